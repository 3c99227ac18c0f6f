"""Settings of the edge: MILLRACE_EDGE_<FIELD>."""

from __future__ import annotations

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from kit.config import DialSettings, ServeSettings


class InferenceDialSettings(DialSettings):
    """How to reach the inference service."""

    target: str = Field(default="127.0.0.1:50051", description="Address of the inference service.")


class EdgeSettings(ServeSettings):
    """Where the edge listens, whom it calls and what a request may use."""

    model_config = SettingsConfigDict(env_prefix="MILLRACE_EDGE_", frozen=True, extra="forbid")

    port: int = Field(8080, ge=0, le=65535, description="Port to listen on; 0 picks a free one.")
    inference: InferenceDialSettings = InferenceDialSettings()
    default_model: str = Field(
        "millrace-embedded",
        min_length=1,
        max_length=256,
        description="Model where `/chat` and its like name none.",
    )
    auto_model: str = Field("auto", min_length=1, max_length=256, description="Model of `/chat/smart`.")
    safe_profile: str = Field("strict", min_length=1, max_length=64, description="Safety profile of `/chat/safe`.")
    body_bytes_max: int = Field(8 * 1024 * 1024, ge=1024, description="Largest body of a request; larger ones are 413.")
    file_bytes_max: int = Field(200_000_000, ge=1024, description="Largest upload to /v1/files; larger ones are 413.")
    store_responses: bool = Field(
        True, description="Keep what /v1/responses answers where `store` is not given, as OpenAI does."
    )
    body_timeout_s: float = Field(
        30.0,
        gt=0,
        description="Time for the body of a request that sends no X-Request-Timeout-Ms; a later one is 408.",
    )
    request_timeout_s: float = Field(600.0, gt=0, description="Time for a request that sends no X-Request-Timeout-Ms.")
    request_timeout_s_max: float = Field(3600.0, gt=0, description="Most time that X-Request-Timeout-Ms may ask for.")
    heartbeat_s: float = Field(15.0, gt=0, description="Longest silence of a stream before a comment keeps it alive.")
    prompt_concurrency: int = Field(
        8, ge=1, le=100, description="Prompts of one streamed `/v1/completions` that are answered at once."
    )
    health_timeout_s: float = Field(1.0, gt=0, description="Time for one health question to inference.")
    cors_origins: list[str] = Field([], description="Origins whose pages may call, comma separated; * means all.")
    drain_delay_s: float = Field(
        0.0,
        ge=0,
        description="Seconds between `/readyz` turning 503 and the port closing, for balancers.",
    )
    keep_alive_s: float = Field(75.0, ge=1, description="Seconds that an idle connection is kept.")
    active_requests_max: int | None = Field(
        None, ge=1, description="Most requests with a body in flight; more are answered 503."
    )
    span_store_port: int | None = Field(
        None,
        ge=1,
        le=65535,
        description="Port on loopback that takes spans for `/v1/traces`; unset keeps none. `millrace up` sets it.",
    )
    proxies: list[str] = Field([], description="Addresses of proxies whose forwarded headers are believed.")
