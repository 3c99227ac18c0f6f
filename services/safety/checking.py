"""Judges whole texts: the segments of a prompt, the parts of a finished answer.

Each text is a lane of one screening, so that a prompt has one verdict and each of its segments its own.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from services.safety.policy import Verdict
from services.safety.screening import Finding, Screening


@dataclass(frozen=True, slots=True)
class Screened:
    """The judgement of one text; `replacement` is given when something in it was redacted."""

    verdict: Verdict
    replacement: str | None
    findings: tuple[Finding, ...]


class Text(NamedTuple):
    """A text to judge; `retrieved`: a tool returned it, or it is a document."""

    text: str
    retrieved: bool = False


async def check(screening: Screening, texts: Iterable[Text]) -> list[Screened]:
    """Judges texts one after the other, each apart; empty ones cost nothing."""
    return [await _check_one(screening, *text) for text in texts]


async def _check_one(screening: Screening, text: str, retrieved: bool) -> Screened:
    if not text:
        return Screened(Verdict.ALLOW, None, ())
    lane = screening.lane(retrieved)
    release = await lane.push(text, final=True)
    replacement = release.text if lane.verdict is Verdict.REDACT else None
    return Screened(lane.verdict, replacement, release.findings)
