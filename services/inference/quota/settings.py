"""Settings of quotas: MILLRACE_INFERENCE_QUOTAS_*."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, FilePath, SecretStr

BUILT_IN_FILE = Path(__file__).parents[1] / "quotas.yaml"


class QuotaSettings(BaseModel):
    """What callers may use, and where it is counted."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    file: FilePath | None = Field(default=None, description="The quotas file; unset: the built-in tiers.")
    store: Literal["embedded", "redis"] = Field(
        default="embedded", description="Where use is counted: in this process, or on a Redis for all replicas."
    )
    redis_url: SecretStr = Field(
        default=SecretStr("redis://127.0.0.1:6379/0"), description="Redis 7.0 or later; rediss:// for TLS."
    )
    redis_cluster: bool = Field(default=False, description="Whether the URL names a node of a Redis Cluster.")
    redis_timeout_s: float = Field(
        default=0.08, gt=0, le=5, description="Longest that a request waits for Redis; then it goes by ON_LOSS."
    )
    hold_s: float = Field(
        default=30.0, ge=0.5, le=600, description="How long a replica that died holds what its requests had reserved."
    )
    on_loss: Literal["local", "open", "closed"] = Field(
        default="local",
        description="While Redis is away: count against this process's share, count nothing, or refuse requests.",
    )
