"""What can be set about the database: MILLRACE_INFERENCE_DATABASE_*."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, SecretStr

DEFAULT_URL = "sqlite+aiosqlite:///.millrace/millrace.sqlite3"


class DatabaseSettings(BaseModel):
    """How to reach the database."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    url: SecretStr = Field(
        default=SecretStr(DEFAULT_URL),
        description="Where the database is, as postgresql+asyncpg://user:password@host/name; unset: "
        "the SQLite file .millrace/millrace.sqlite3.",
    )
    pool_size: int = Field(default=5, ge=1, le=100, description="Connections to the database at most.")
    timeout_s: float = Field(
        default=5.0, gt=0, le=60, description="Longest wait for a connection and for a transaction on it."
    )
    migrate: bool | None = Field(
        default=None,
        description="Bring the schema up to date at start; unset: on SQLite only (else by `millrace migrate`).",
    )
