"""Moderation: texts judged in the categories of OpenAI's endpoint, by whatever detectors safety runs."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Protocol

import msgspec

from kit.errors import Code, MillraceError, Unavailable

PROFILE = "moderation"
CONCURRENCY = 8  # texts of one call judged at once

# OpenAI's categories, in the order of its answers. A category that no detector knows scores 0.
CATEGORIES = (
    "harassment", "harassment/threatening", "sexual", "hate", "hate/threatening", "illicit", "illicit/violent",
    "self-harm/intent", "self-harm/instructions", "self-harm", "sexual/minors", "violence", "violence/graphic",
)  # fmt: skip


class Judgement(msgspec.Struct, frozen=True):
    """One text's scores: name, score 0 to 1, whether it is flagged."""

    categories: tuple[tuple[str, float, bool], ...]

    @property
    def is_flagged(self) -> bool:
        """Whether any category is."""
        return any(flagged for _, _, flagged in self.categories)


class ScoringPort(Protocol):
    """Safety, or what stands for it."""

    async def scores(self, profile: str, text: str) -> tuple[dict[str, tuple[float, bool]], str]:
        """Each category's score and whether it is flagged, and the policy's version."""
        ...


async def moderate(port: ScoringPort, texts: Sequence[str]) -> tuple[list[Judgement], str]:
    """Judges each text apart; returns the judgements in order and the policy's version."""
    slots = asyncio.Semaphore(CONCURRENCY)

    async def judge(text: str) -> tuple[dict[str, tuple[float, bool]], str]:
        async with slots:
            return await port.scores(PROFILE, text)

    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(judge(text)) for text in texts]
    except ExceptionGroup as failed:
        raise _told(failed.exceptions[0]) from None  # one is what a caller can act on; the others are like it
    answers = [task.result() for task in tasks]
    judgements = [
        Judgement(tuple((name, *scores.get(name, (0.0, False))) for name in CATEGORIES)) for scores, _ in answers
    ]
    return judgements, answers[0][1]


def _told(failure: Exception) -> Exception:
    """What a caller hears: that safety is away, not that something is."""
    if isinstance(failure, MillraceError) and failure.code in (Code.UNAVAILABLE, Code.DEADLINE_EXCEEDED):
        return Unavailable("SAFETY_UNAVAILABLE", "the safety service cannot be reached; retry", retry_after_ms=1_000)
    return failure
