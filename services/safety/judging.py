"""Judges a whole text, once: what was said of it is remembered by its digest for as long as a policy is in force.

So the earlier turns of a chat, and a prompt that many send, cost nothing. No text is kept, and nothing of a text that a
detector failed to read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from services.safety.policy import Direction, Verdict
from services.safety.recent import Recent, digest
from services.safety.run import State
from services.safety.screening import Finding, Screening

# A judgement is about a kilobyte, and of texts with more findings none is kept.
JUDGEMENTS_MAX = 4096
FINDINGS_MAX = 64


@dataclass(frozen=True, slots=True)
class Judgement:
    """What was said of one text: the findings in it, and the highest scores by detector, of those that have read it."""

    verdict: Verdict
    findings: tuple[Finding, ...]
    scores: Mapping[str, Mapping[str, float]]


# By profile, direction, whether the text was retrieved, and its digest; for the detectors of one policy.
Judgements = Recent[tuple[str, Direction, bool, bytes], Judgement]


async def judge(screening: Screening, text: str, retrieved: bool, known: Judgements | None) -> Judgement:
    """Judges a text as part of a call, or has the call take what is known of it."""
    if known is None:
        return await _read(screening, text, retrieved)
    key = (screening.profile.name, screening.direction, retrieved, digest(text))
    judgement = known.get(key)
    if judgement is not None:
        _take(screening, judgement)
        return judgement
    judgement = await _read(screening, text, retrieved)
    has_failed = any(run.rule is not None and not run.is_live for run in screening.runs)
    if not has_failed and len(judgement.findings) <= FINDINGS_MAX:
        known.put(key, judgement)
    return judgement


async def _read(screening: Screening, text: str, retrieved: bool) -> Judgement:
    before = [run.scores for run in screening.runs]
    for run in screening.runs:
        run.scores = {}
    lane = screening.lane(retrieved)
    release = await lane.push(text, final=True)
    scores = {run.detector.name: run.scores for run in screening.runs if run.state is State.OK}
    for run, earlier in zip(screening.runs, before, strict=True):
        run.scores = _highest(earlier, run.scores)
    return Judgement(lane.verdict, release.findings, scores)


def _take(screening: Screening, judgement: Judgement) -> None:
    for run in screening.runs:
        scores = judgement.scores.get(run.detector.name)
        if scores is not None and run.is_live:
            run.state = State.OK
            run.scores = _highest(run.scores, scores)
    for finding in judgement.findings:
        screening.count(finding)


def _highest(one: Mapping[str, float], other: Mapping[str, float]) -> dict[str, float]:
    return {category: max(one.get(category, 0.0), other.get(category, 0.0)) for category in (*one, *other)}
