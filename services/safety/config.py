"""The settings of the safety service, read once at start from MILLRACE_SAFETY_*."""

from pydantic import Field, FilePath
from pydantic_settings import SettingsConfigDict

from kit.proxies import OutwardSettings


class SafetySettings(OutwardSettings):
    """What the safety service can be told."""

    model_config = SettingsConfigDict(env_prefix="MILLRACE_SAFETY_")

    port: int = Field(default=50053, ge=0, le=65535, description="Port to listen on; 0 picks a free one.")
    # Inference probes often, so that it finds a frozen replica before its callers give up.
    keepalive_min_interval_s: float = Field(
        default=1.0, ge=1, description="Clients that probe more often are disconnected."
    )
    policies_file: FilePath | None = Field(
        default=None, description="Your policies and forbidden terms (YAML), over the embedded ones."
    )
    detector_threads: int = Field(
        default=2, ge=1, le=64, description="Threads that read long texts; short ones are read in the event loop."
    )
    encoder_threads: int = Field(
        default=2,
        ge=1,
        le=64,
        description="Texts that the sentence encoder of moderation and injection reads at once, a thread each.",
    )
