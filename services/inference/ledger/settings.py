"""What can be set about the ledger: MILLRACE_INFERENCE_LEDGER_*."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field


class LedgerSettings(BaseModel):
    """Where rows wait for the database, and what is kept for how long."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    folder: Path = Field(
        default=Path(".millrace/ledger"), description="Where rows wait for the database; on a disk that lasts."
    )
    bytes_max: int = Field(
        default=256 * 1024 * 1024,
        ge=16 * 1024 * 1024,
        description="Bytes that may wait for the database; beyond it new work is refused (503, LEDGER_FULL).",
    )
    sync: bool = Field(
        default=False,
        description="Have a row on the disk before its answer ends: then not even a power cut loses it. Without, "
        "killed processes lose none.",
    )
    keep_texts: bool = Field(
        default=False, description="Keep prompts and answers, as safety has left them (redacted where it redacts)."
    )
    text_days: int = Field(default=30, ge=1, description="Days after which prompts and answers are deleted.")
    row_days: int | None = Field(
        default=None, ge=1, description="Days after which rows are deleted; unset: never. Sums by the hour stay."
    )
