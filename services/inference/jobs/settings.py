"""What can be set about jobs: MILLRACE_INFERENCE_JOBS_*."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, SecretStr


class JobSettings(BaseModel):
    """How jobs are worked on and kept."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    concurrency: int = Field(
        default=4, ge=0, le=1_000, description="Items of jobs that this process works on at once; 0: none, others do."
    )
    queue_url: SecretStr = Field(
        default=SecretStr(""),
        description="Redis, as redis://host:6379/0, by which replicas learn of new work at once; unset: the database.",
    )
    poll_s: float = Field(default=1.0, gt=0, le=60, description="Seconds between looks for work that nobody announced.")
    lease_s: float = Field(
        default=15.0, ge=0.1, le=600, description="Seconds after which the items of a process that died are begun anew."
    )
    tries_max: int = Field(default=5, ge=1, le=100, description="Tries of an item whose worker dies or target is away.")
    pending_count_max: int = Field(
        default=10_000, ge=1, description="Jobs of one caller that may wait or run; more are 429. A batch is one job."
    )
    ttl_days: float = Field(default=30.0, gt=0, le=365, description="Days that jobs and their answers are kept.")
    file_bytes_max: int = Field(
        default=200_000_000, ge=1, le=2_000_000_000, description="Largest file that callers may keep here, in bytes."
    )
