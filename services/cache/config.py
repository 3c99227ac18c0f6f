"""The settings of the cache service, read once at start from MILLRACE_CACHE_*."""

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, SecretStr, model_validator
from pydantic_settings import SettingsConfigDict

from kit.config import ServeSettings


class CacheSettings(ServeSettings):
    """What the cache service can be told."""

    model_config = SettingsConfigDict(env_prefix="MILLRACE_CACHE_")

    port: int = Field(50052, ge=0, le=65535, description="Port to listen on; 0 picks a free one.")
    store: Literal["embedded", "redis"] = Field("embedded", description="Where entries are kept.")
    path: Path = Field(Path(".millrace/cache.sqlite3"), description="File of the embedded store.")
    redis_url: SecretStr = Field(
        SecretStr("redis://127.0.0.1:6379/0"), description="Redis 7.0 or later; rediss:// for TLS."
    )
    redis_cluster: bool = Field(False, description="Whether the URL names a node of a Redis Cluster.")
    redis_read_timeout_s: float = Field(
        0.04, gt=0, le=5, description="Longest that a lookup asks Redis; after that it is a miss."
    )
    redis_write_timeout_s: float = Field(1.0, gt=0, le=30, description="Longest that a write asks Redis.")
    key_secret: SecretStr | None = Field(
        None,
        min_length=16,
        description="Keys the digests that stand for names and prompts in the store; the same in every replica.",
    )
    entries_max: int = Field(100_000, ge=1, description="Most entries kept; on Redis, of each tenant.")
    bytes_max: int = Field(1 << 30, ge=1 << 20, description="Most bytes kept; on Redis, of each tenant.")
    hot_bytes_max: int = Field(64 << 20, ge=0, description="Most bytes of the embedded store's entries held in memory.")
    entry_bytes_max: int = Field(4 << 20, ge=1, le=8 << 20, description="Most bytes of one answer.")
    ttl_default_s: float = Field(
        86_400, ge=1, le=2_592_000, description="How long entries are fresh where the caller does not say."
    )
    ttl_jitter: float = Field(
        0.1, ge=0, le=0.5, description="Largest share by which a lifetime is shortened at random."
    )
    stale_for_default_s: float = Field(
        3_600, ge=0, le=2_592_000, description="How long expired entries may still serve lookups that allow it."
    )
    refresh_ahead: float = Field(
        0.1, ge=0, le=1, description="Last share of a life in which an answer may be produced anew; 0 for never."
    )
    refresh_hits_min: int = Field(3, ge=1, description="Hits that make an answer worth producing anew.")
    semantic: bool = Field(
        False, description="Whether answers to similar questions are given to those who ask for that."
    )
    semantic_error_max: float = Field(
        0.02, gt=0, le=1, description="Most wrong answers among those to similar questions; callers may be stricter."
    )
    semantic_similarity_min: float = Field(
        0, ge=0, le=1, description="Least cosine similarity of such questions; callers may be stricter."
    )
    semantic_held_share_max: float = Field(
        0.1, gt=0, le=0.5, description="Most of such answers that are held back, to be compared with fresh ones."
    )
    semantic_timeout_s: float = Field(
        0.15, gt=0, le=5, description="Longest that a similar question is looked for; after that it is a miss."
    )
    semantic_guards: bool = Field(
        True,
        description="Whether differences in numbers, negations, names and the like forbid it; false to measure only.",
    )
    semantic_entries_max: int = Field(1_000_000, ge=1, description="Most entries that can be found by similarity.")
    embedding_model: str = Field(
        "all-minilm-l6-v2", min_length=1, description="Model that compares questions: a name on the hub or a directory."
    )
    embedding_threads: int = Field(1, ge=1, le=64, description="Threads that it runs with.")
    lease_ttl_default_s: float = Field(
        60, ge=0.1, le=600, description="How long a lease lasts where the caller does not say."
    )
    leases_max: int = Field(100_000, ge=1, description="Most leases held at once; beyond that misses have none.")

    @model_validator(mode="after")
    def _an_entry_fits(self) -> Self:
        if self.entry_bytes_max >= self.bytes_max:
            raise ValueError(f"ENTRY_BYTES_MAX ({self.entry_bytes_max}) must be below BYTES_MAX ({self.bytes_max})")
        return self
