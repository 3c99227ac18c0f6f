"""Judges whole texts: the segments of a prompt, the parts of a finished answer.

Each text is a lane of one screening, so that a prompt has one verdict and each of its segments its own.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from services.safety.judging import Judgements, judge
from services.safety.policy import Verdict
from services.safety.reading import Reading, Stretch
from services.safety.screening import Finding, Lane, Screening


@dataclass(frozen=True, slots=True)
class Screened:
    """The judgement of one text; `replacement` is given when something in it was redacted.

    `findings` are placed in the text as it was read.
    """

    verdict: Verdict
    replacement: str | None
    findings: tuple[Finding, ...]
    reading: Reading

    @property
    def source_findings(self) -> Iterator[Finding]:
        """The findings, placed in the text as it was sent."""
        place = self.reading.source_position
        for each in self.findings:
            yield dataclasses.replace(each, start=place(each.start), end=place(each.end))


class Text(NamedTuple):
    """A text to judge; `retrieved`: a tool returned it, or it is a document. `is_json`: its escapes are taken apart."""

    text: str
    retrieved: bool = False
    is_json: bool = False


async def check(screening: Screening, texts: Iterable[Text], known: Judgements | None = None) -> list[Screened]:
    """Judges texts one after the other, each apart; empty ones, and those that are known, cost nothing."""
    return [await _check(screening, text, known) for text in texts]


async def check_one(lane: Lane, reading: Reading) -> Screened:
    """Judges a text on a lane of its own."""
    release = await lane.push(reading.text, final=True)
    return _screened(lane.verdict, release.findings, reading)


def stretches(findings: Iterable[Finding]) -> Iterator[tuple[list[Finding], int]]:
    """Groups what is redacted: each group is one stretch of text, given with its end."""
    group: list[Finding] = []
    end = 0
    for finding in findings:
        if finding.action is not Verdict.REDACT:
            continue
        if group and finding.begins_anew(end, group[0].category):
            yield group, end
            group = []
        group.append(finding)
        end = max(end, finding.end)
    if group:
        yield group, end


async def _check(screening: Screening, text: Text, known: Judgements | None) -> Screened:
    reading = Reading(text.text, text.is_json)
    if not text.text:
        return Screened(Verdict.ALLOW, None, (), reading)
    judgement = await judge(screening, reading.text, text.retrieved, known)
    return _screened(judgement.verdict, judgement.findings, reading)


def _screened(verdict: Verdict, findings: tuple[Finding, ...], reading: Reading) -> Screened:
    replacement = None
    if verdict is Verdict.REDACT:
        redacted = (Stretch(each[0].start, end, each[0].placeholder) for each, end in stretches(findings))
        replacement = reading.replaced(redacted)
    return Screened(verdict, replacement, findings, reading)
