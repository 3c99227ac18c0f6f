"""Screens texts against a profile: runs its detectors, applies its rules, and lets go of what is judged.

A screening is one call. Each text of the call is a lane: text goes in piece by piece, and comes out as soon as no
finding can begin in it any more, redacted where the policy says so. A whole text is a lane with one piece, so streams
and whole texts cannot differ. A detector that raises or overruns never looks like one that found nothing: its run says
so, and the policy decides. Texts are kept no longer than a lane lives and never logged.
"""

from __future__ import annotations

import asyncio
import bisect
import concurrent.futures
import logging
import math
import operator
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from services.safety.detectors.detector import (
    ALWAYS,
    AwaitedCursor,
    Cursor,
    Deliberate,
    Detector,
    Match,
    Wakes,
    is_awaited,
)
from services.safety.policy import Direction, Profile, Verdict
from services.safety.run import Duty, Run, State

# A detector sees long texts in pieces, so that a deadline or a block ends all work and other calls get their turn.
_PIECE_CODE_POINTS = 4096
# Turns of the loop in which models hand a passage to their threads; these work while the loop reads patterns.
_HANDOVER_TURNS = 3

_PLACE = operator.attrgetter("place")
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Finding:
    """A match that the policy acts on."""

    start: int
    end: int
    category: str
    detector: str
    score: float
    action: Verdict
    reversible: bool = False
    token: str = ""
    """The numbered placeholder, where there is a way back."""

    @property
    def place(self) -> tuple[int, int, str]:
        """Sorts findings in the order of the text, the longest first."""
        return self.start, -self.end, self.category

    def begins_anew(self, covered: int, category: str) -> bool:
        """Whether it has a placeholder of its own, behind one of a category that covers the text up to a position.

        What overlaps shares one, and what touches and is of one category: long things are found in stretches.
        """
        return self.start > covered or (self.start == covered and self.category != category)

    @property
    def placeholder(self) -> str:
        """What stands in its place when it is redacted."""
        return self.token or f"<{self.category.upper()}>"


class _Model(NamedTuple):
    """A model that reads a text."""

    run: Run
    cursor: AwaitedCursor
    holds: bool
    """Whether text waits for it."""


@dataclass(frozen=True, slots=True)
class Release:
    """What a lane lets go of: text for the end user, how far it is judged, and what was found on the way."""

    text: str
    through: int
    findings: tuple[Finding, ...] = ()
    blocked: bool = False


class Screening:
    """One call: the runs of its detectors and what they found over all lanes."""

    def __init__(
        self,
        profile: Profile,
        direction: Direction,
        duties: Sequence[Duty],
        pool: concurrent.futures.Executor,
        clock: Callable[[], float] = time.perf_counter,
        policy_version: str = "",
    ) -> None:
        self.profile = profile
        self.direction = direction
        self.policy_version = policy_version
        self.runs = [Run(duty) for duty in duties]
        self.finding_count = 0
        self.verdict = Verdict.ALLOW
        self.blocks_all = False  # whether a detector failed that the policy does not do without
        self._pool = pool
        self._clock = clock
        self.refill()

    def refill(self) -> None:
        """Gives every detector its whole deadline again; for the next delta of a stream."""
        for run in self.runs:
            if run.rule:
                run.deadline_s = run.spent_s + run.rule.deadline_s

    def lane(self, retrieved: bool = False) -> Lane:
        """Begins a text; `retrieved`: a tool returned it, or it is a document."""
        return Lane(self, retrieved)

    async def scan(self, run: Run, cursor: Cursor, text: str, offset: int, final: bool) -> list[Match]:
        """Lets a detector read on; a failure ends its run and is never raised."""
        started = self._clock()
        try:
            left_s = run.deadline_s - run.spent_s
            if left_s <= 0:
                raise TimeoutError
            if len(text) <= run.detector.inline_code_points:
                matches = cursor.scan(text, offset, final)
            else:
                loop = asyncio.get_running_loop()
                scanned = loop.run_in_executor(self._pool, cursor.scan, text, offset, final)
                matches = await asyncio.wait_for(scanned, left_s)
            run.state = State.OK
            return matches
        except Exception as error:  # A detector may fail in any way, and must not take the call with it.
            return self.failed(run, error)
        finally:
            run.spent_s += self._clock() - started

    def begin(
        self, run: Run, cursor: AwaitedCursor, text: str, offset: int, final: bool
    ) -> asyncio.Task[list[Match]] | None:
        """Hands text to a model; None where that completes nothing. A failure ends the run and is never raised."""
        try:
            work = cursor.begin(text, offset, final)
            run.state = State.OK
            return None if work is None else asyncio.ensure_future(self._finish(run, work))
        except Exception as error:  # As in `scan`.
            self.failed(run, error)
            return None

    def wakes(self, run: Run, cursor: AwaitedCursor) -> Wakes:
        """When a model has something to do; a failure ends the run."""
        try:
            return cursor.wakes
        except Exception as error:  # As in `scan`.
            self.failed(run, error)
            return ALWAYS

    async def _finish(self, run: Run, work: Awaitable[list[Match]]) -> list[Match]:
        started = self._clock()
        try:
            async with asyncio.timeout(run.deadline_s - run.spent_s):  # `wait_for` makes a task more
                return await work
        except Exception as error:  # As in `scan`.
            return self.failed(run, error)
        finally:
            run.spent_s += self._clock() - started

    def failed(self, run: Run, error: Exception) -> list[Match]:
        """Ends the run of a detector that raised or overran; nothing was found by it."""
        run.state = State.TIMED_OUT if isinstance(error, TimeoutError) else State.FAILED
        self.blocks_all |= run.failed_closed
        if run.state is State.FAILED:
            # Only the kind of error: its message may quote the text.
            _log.error("detector failed", extra={"detector": run.detector.name, "error": type(error).__name__})
        return []

    def judge(self, run: Run, match: Match, retrieved: bool) -> Finding | None:
        """Applies the rule to a match; None when it only counts as a score."""
        assert run.rule is not None, "a detector without a rule does not run"
        rule = run.rule.for_text(retrieved)
        run.scores[match.category] = max(match.score, run.scores.get(match.category, 0.0))
        if match.score < rule.threshold:
            return None
        action = rule.action_for(match.category)
        reversible = action is Verdict.REDACT and rule.is_reversible(match.category)
        return Finding(match.start, match.end, match.category, rule.detector, match.score, action, reversible)

    def count(self, finding: Finding) -> None:
        """Takes a finding into the judgement of the call."""
        self.finding_count += 1
        self.verdict = max(self.verdict, finding.action)


def _cursor(detector: Detector, wanted: frozenset[str], direction: Direction) -> Cursor | AwaitedCursor:
    if direction is Direction.INPUT and isinstance(detector, Deliberate):
        return detector.prompt_cursor(wanted)
    return detector.cursor(wanted)


def _first(wakes: list[Wakes]) -> Wakes:
    """When the first of several cursors has something to do."""
    if not wakes or wakes.count(wakes[0]) == len(wakes):  # as where they read the same passages
        return wakes[0] if wakes else ALWAYS
    at, surely_at, stops = zip(*wakes, strict=True)
    return Wakes(min(at), min(surely_at), "".join(dict.fromkeys("".join(stops))))


class Lane:
    """One text on its way through a screening."""

    def __init__(self, screening: Screening, retrieved: bool) -> None:
        self.verdict = Verdict.ALLOW
        self.is_blocked = False
        self._screening = screening
        self._retrieved = retrieved
        self._readers: list[tuple[Run, Cursor]] = []
        self._models: list[_Model] = []
        for run in screening.runs:
            if wanted := run.duty.wanted(retrieved):
                self._open(run, wanted)
        self._context = max((run.detector.context for run, _ in self._readers), default=0)
        self._text = ""
        self._offset = 0
        self._read_through = 0
        self._wakes = ALWAYS  # when the first of the models has something to do
        self._pending: list[Finding] = []
        self._released = 0
        self._covered = 0
        self._covered_category = ""

    def _open(self, run: Run, wanted: frozenset[str]) -> None:
        """Begins a detector's reading of the text; a failure ends its run and is never raised."""
        try:
            cursor = _cursor(run.detector, wanted, self._screening.direction)
            if is_awaited(cursor):
                self._models.append(_Model(run, cursor, run.duty.holds(self._retrieved)))
            else:
                self._readers.append((run, cursor))
        except Exception as error:  # As in `Screening.scan`.
            self._screening.failed(run, error)

    def keep(self, text: str) -> bool:
        """Takes a piece behind which nothing can be judged or leave yet; False: it took nothing, and must be pushed."""
        if self._offset + len(self._text) + len(text) >= self._wakes.at or not self._waits_for_models:
            return False
        self._text += text
        return True

    @property
    def wakes(self) -> Wakes:
        """What must arrive before anything more can be judged and leave."""
        return self._wakes if self._waits_for_models else ALWAYS

    async def push(self, text: str, final: bool) -> Release:
        """Takes the next piece of the text; `final` when it is the last.

        Returns:
            What has become certain. After a block nothing comes any more.
        """
        if not text and not final:
            return Release("", self._released)
        if not final and self.keep(text):
            return Release("", max(self._released, self._covered))
        self._text += text
        arrived = self._offset + len(self._text)
        released: list[str] = []
        findings: list[Finding] = []
        for end in (*range(self._read_through + _PIECE_CODE_POINTS, arrived, _PIECE_CODE_POINTS), arrived):
            await self._read(end, final and end == arrived, released, findings)
            if self.is_blocked:
                break
        # What a placeholder covers has left, as far as that placeholder reaches.
        through = max(self._released, self._covered)
        return Release("".join(released), through, tuple(findings), self.is_blocked)

    async def _read(self, end: int, final: bool, released: list[str], findings: list[Finding]) -> None:
        """Has models and patterns read up to a position at the same time, and lets go of what they judged."""
        text = self._text if end == self._offset + len(self._text) else self._text[: end - self._offset]
        judged = self._judged  # a model may be done, and its findings not taken, while patterns are read
        judging = self._begin(text, final)
        if not judging and not final and self._waits_for_models:
            return
        try:
            for _ in range(_HANDOVER_TURNS if judging else 0):
                await asyncio.sleep(0)
            await self._read_patterns(text, final)
            self._let_go(int(min(self._safe, judged)), released, findings)
            if judging and not self.is_blocked:
                for run, task in judging:
                    self._take(run, await task)
                self._let_go(self._safe, released, findings)
            elif judging:
                await asyncio.sleep(0)  # what has not begun cannot be cancelled
        finally:
            for _, task in judging:
                task.cancel()

    def _begin(self, text: str, final: bool) -> list[tuple[Run, asyncio.Task[list[Match]]]]:
        """Hands what has arrived to every model; most of the time that is not enough to judge."""
        judging = [
            (run, task)
            for run, cursor, _ in self._models
            if run.is_live and (task := self._screening.begin(run, cursor, text, self._offset, final))
        ]
        live = ((run, cursor) for run, cursor, _ in self._models if run.is_live)
        self._wakes = _first([self._screening.wakes(run, cursor) for run, cursor in live])
        return judging

    async def _read_patterns(self, text: str, final: bool) -> None:
        """Has every detector of patterns read on."""
        self._read_through = self._offset + len(text)
        for run, cursor in self._readers:
            if run.is_live:
                self._take(run, await self._screening.scan(run, cursor, text, self._offset, final))

    @property
    def _waits_for_models(self) -> bool:
        """Whether nothing can leave before a model has judged more, so that patterns need not look yet."""
        return not self._screening.blocks_all and any(holds and run.is_live for run, _, holds in self._models)

    @property
    def _safe(self) -> int:
        """Up to where all that begins is known, and no model is waited for."""
        safe = self._read_through
        for run, cursor in self._readers:
            if run.is_live:
                safe = min(safe, cursor.safe)
        return int(min(safe, self._judged))

    @property
    def _judged(self) -> float:
        """Up to where all models that are waited for have judged; infinite where none is."""
        return min((model.safe for run, model, holds in self._models if holds and run.is_live), default=math.inf)

    def _take(self, run: Run, matches: list[Match]) -> None:
        for match in matches:
            if finding := self._screening.judge(run, match, self._retrieved):
                bisect.insort(self._pending, finding, key=_PLACE)

    def _let_go(self, safe: int, released: list[str], findings: list[Finding]) -> None:
        """Releases what is safe, up to the first finding that blocks."""
        if self._screening.blocks_all:
            self.is_blocked = True
            self.verdict = self._screening.verdict = Verdict.BLOCK
            return
        while self._pending and self._pending[0].start < safe:
            finding = self._pending.pop(0)
            findings.append(finding)
            self._screening.count(finding)
            self.verdict = max(self.verdict, finding.action)
            if finding.action >= Verdict.REDACT:
                self._release_to(finding.start, released)
            if finding.action is Verdict.BLOCK:
                self.is_blocked = True
                return
            if finding.action is Verdict.REDACT:
                if finding.begins_anew(self._covered, self._covered_category):
                    released.append(finding.placeholder)
                    self._covered_category = finding.category
                self._covered = max(self._covered, finding.end)
        self._release_to(safe, released)
        self._forget()

    def _release_to(self, end: int, released: list[str]) -> None:
        begin = max(self._released, self._covered)
        if begin < end:
            released.append(self._text[begin - self._offset : end - self._offset])
        self._released = max(self._released, end)

    def _forget(self) -> None:
        """Drops text that no detector looks at any more."""
        keep = max(self._released - self._context, self._offset)
        self._text = self._text[keep - self._offset :]
        self._offset = keep
