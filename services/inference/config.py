"""Settings of the inference service: MILLRACE_INFERENCE_*, read once at start."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, FilePath, model_validator
from pydantic_settings import SettingsConfigDict

from kit.config import DialSettings
from kit.proxies import OutwardSettings
from services.inference.access.settings import AccessSettings
from services.inference.database.settings import DatabaseSettings
from services.inference.jobs.settings import JobSettings
from services.inference.ledger.settings import LedgerSettings
from services.inference.quota.settings import QuotaSettings

EMBEDDED_MODELS_FILE = Path(__file__).with_name("models.yaml")


class CacheDialSettings(DialSettings):
    """How to reach the cache service."""

    target: str = Field(default="127.0.0.1:50052", description="Address of the cache service; `none`: go without.")


class SafetyDialSettings(DialSettings):
    """How to reach the safety service."""

    target: str = Field(
        default="127.0.0.1:50053", description="Address of the safety service; `none`: only profile `off` can be used."
    )
    # What waits for a frozen service learns of it by these, early enough to ask another replica: an answer that hears
    # nothing for five seconds is given up. And the kernel gives up what nobody acknowledges for that long.
    keepalive_time_s: float = Field(default=1.5, ge=1, description="Seconds of silence before it is probed.")
    keepalive_timeout_s: float = Field(default=2.0, ge=1, description="Seconds that a probe may stay unanswered.")


class InferenceSettings(OutwardSettings):
    """What can be set about inference; models and routes are in the models file."""

    model_config = SettingsConfigDict(env_prefix="MILLRACE_INFERENCE_")

    port: int = Field(default=50051, ge=0, le=65535, description="Port to listen on; 0 takes a free one.")
    models_file: FilePath | None = Field(default=None, description="The models file; unset: the embedded models.")
    cache: CacheDialSettings = CacheDialSettings()
    safety: SafetyDialSettings = SafetyDialSettings()
    database: DatabaseSettings = DatabaseSettings()
    ledger: LedgerSettings = LedgerSettings()
    jobs: JobSettings = JobSettings()
    quotas: QuotaSettings = QuotaSettings()
    access: AccessSettings = AccessSettings()
    environment: Literal["development", "production"] = Field(
        default="development", description="`production` refuses to start where calls need no credential."
    )
    cache_lookup_timeout_ms: int = Field(
        default=50, ge=1, le=10_000, description="Longest wait for a cache lookup; then a miss."
    )
    cache_semantic_timeout_ms: int = Field(
        default=150, ge=0, le=10_000, description="Longest further wait where a similar question will do, too."
    )
    cache_store_timeout_ms: int = Field(
        default=2_000, ge=1, le=60_000, description="Longest wait for keeping an answer."
    )
    cache_pending_count_max: int = Field(
        default=1_000, ge=1, description="Answers that may wait to be kept; more are dropped."
    )
    # More than the detectors' own deadlines, so that the policy decides about a text that takes too long.
    safety_timeout_ms: int = Field(
        default=15_000, ge=1, le=60_000, description="Longest wait for a judgement of a whole text."
    )
    dependency_wait_s: float = Field(
        default=10.0, ge=0, description="Longest wait at start for cache and safety to be up; then it serves without."
    )
    running_count_max: int = Field(
        default=4_096, ge=1, description="Generations that may run at once; more are refused."
    )
    batch_concurrency: int = Field(default=8, ge=1, le=100, description="Items of one batch that run at once.")
    local_active_max: int = Field(default=32, ge=1, description="Answers that one local model computes at once.")
    local_queue_max: int = Field(default=256, ge=0, description="Generations that may wait for one local model.")
    local_wait_s_max: float = Field(
        default=30.0, gt=0, description="Longest wait for a local model; then RESOURCE_EXHAUSTED."
    )
    local_cache_mib: int = Field(
        default=0, ge=0, description="Memory of a local model's KV cache; 0: a quarter of what is free, at most 4 GiB."
    )
    local_precision: Literal["auto", "float32", "bfloat16", "int8"] = Field(
        default="auto",
        description="What local models compute in; auto: float32 on a processor, on CUDA the checkpoint's own.",
    )
    local_drafts: bool = Field(
        default=True,
        description="Speculative decoding by prompt lookup: guess tokens where text repeats itself; no answer changes.",
    )
    local_load: Literal["start", "demand"] = Field(
        default="start", description="When local models are loaded: at start, or by the first call that needs one."
    )
    local_idle_s: float = Field(
        default=0, ge=0, description="After so long without a call a local model is let go until the next; 0: never."
    )
    torch_threads: int = Field(default=0, ge=0, description="Threads of torch; 0 takes what the machine has.")

    @model_validator(mode="after")
    def _production_asks_who_calls(self) -> Self:
        if self.environment == "production" and self.access.mode == "open":
            raise ValueError("ENVIRONMENT=production needs ACCESS_MODE=required: anybody could call")
        return self
