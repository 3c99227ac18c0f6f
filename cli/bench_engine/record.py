"""What one measurement says: the times of each answer's tokens, and the figures that come of them."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True)
class Answer:
    """One answer: when it was asked for, and when each of its tokens came, in seconds of one clock."""

    asked_s: float
    tokens_s: list[float] = field(default_factory=list)

    @property
    def ttft_s(self) -> float:
        """From the question to the first token."""
        return self.tokens_s[0] - self.asked_s

    @property
    def gaps_s(self) -> list[float]:
        """Between one token and the next; tokens that came together have no time between them."""
        return [after - before for before, after in zip(self.tokens_s, self.tokens_s[1:], strict=False)]


@dataclass(frozen=True, slots=True)
class Limits:
    """What an answer must keep to count as good, in milliseconds."""

    ttft_ms: float
    itl_ms: float

    def hold(self, answer: Answer) -> bool:
        """Whether the answer kept them."""
        mean_ms = 1e3 * statistics.fmean(answer.gaps_s or [0.0])
        return answer.ttft_s * 1e3 <= self.ttft_ms and mean_ms <= self.itl_ms


def record(
    engine: str,
    precision: str,
    concurrency: int,
    answers: Sequence[Answer],
    limits: Limits,
    cpu_s: float,
    *,
    streams: bool = True,
) -> dict[str, Any]:
    """A flat record; times between tokens are None for what gives its answer whole.

    `cpu_s` is what the process used. On a busy machine it is steadier than time, with one thread of torch; more than
    one burn it while they wait for each other.
    """
    token_count = sum(len(answer.tokens_s) for answer in answers)
    begin = min(answer.asked_s for answer in answers)
    seconds = max(answer.tokens_s[-1] for answer in answers) - begin
    gaps = sorted(gap for answer in answers for gap in answer.gaps_s)
    return {
        "engine": engine,
        "precision": precision,
        "concurrency": concurrency,
        "tokens_per_s": round(token_count / seconds, 1),
        "ttft_p50_ms": _ms(sorted(answer.ttft_s for answer in answers), 0.5),
        "itl_p50_ms": _ms(gaps, 0.5) if streams else None,
        "itl_p99_ms": _ms(gaps, 0.99) if streams else None,
        "goodput_per_s": round(sum(limits.hold(answer) for answer in answers) / seconds, 3) if streams else None,
        "cpu_ms_per_token": round(1e3 * cpu_s / token_count, 3),
        "answers": len(answers),
        "seconds": round(seconds, 2),
    }


def _ms(ordered: Sequence[float], share: float) -> float | None:
    if not ordered:
        return None
    return round(1e3 * ordered[min(int(share * len(ordered)), len(ordered) - 1)], 2)
