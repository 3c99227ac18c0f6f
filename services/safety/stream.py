"""Screens an answer while it is generated: several choices, each of several parts, in one stream.

Every part is a lane of its own. Arguments of a tool call are held until the call has ended, because half of a call can
already do harm. What is blocked ends its choice; the other choices go on.
"""

from __future__ import annotations

import dataclasses
import enum
import itertools
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from kit.errors import InvalidArgument
from services.safety.checking import check_one
from services.safety.detectors.detector import ALWAYS, Wakes
from services.safety.holding import Waiting
from services.safety.policy import Verdict
from services.safety.reading import Reading
from services.safety.screening import Finding, Lane, Release, Screening

PART_CODE_POINTS_MAX = 1_000_000
TOOL_CALLS_MAX = 128
# So much of the longest wait of a text may be its caller's.
GATHER_SHARE = 0.05


class OutputKind(enum.IntEnum):
    """What part of an answer a text belongs to; numbered as in the contract."""

    TEXT = 1
    REASONING = 2
    REFUSAL = 3
    TOOL_ARGUMENTS = 4
    TOOL_NAME = 5


class PartKey(NamedTuple):
    """Names one part of the answer."""

    choice_index: int
    kind: OutputKind
    tool_call_index: int | None = None


class Delta(NamedTuple):
    """A piece of a part, as the model made it."""

    part: PartKey
    text: str
    ends_part: bool = False
    ends_choice: bool = False


@dataclass(frozen=True, slots=True)
class Released:
    """Text that may go to the end user."""

    part: PartKey
    text: str
    through: int


@dataclass(frozen=True, slots=True)
class Judged:
    """Something was found."""

    part: PartKey
    finding: Finding


@dataclass(frozen=True, slots=True)
class ChoiceDone:
    """A choice is over."""

    choice_index: int
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class Awaited:
    """What must arrive of a part before more of it can be judged, and for how long a caller may gather it."""

    part: PartKey
    wakes: Wakes
    gather_s: float


Event = Released | Judged | ChoiceDone | Awaited


@dataclass(slots=True)
class _Part:
    lane: Lane
    waiting: Waiting
    start: int = 0
    """Where in the part its lane began."""
    code_point_count: int = 0
    held: list[str] = field(default_factory=list)
    told: Wakes = ALWAYS
    """What the caller knows of when the lane wakes."""
    has_ended: bool = False


@dataclass(slots=True)
class _Choice:
    parts: dict[PartKey, _Part] = field(default_factory=dict)
    verdict: Verdict = Verdict.ALLOW
    is_done: bool = False
    is_blocked: bool = False


class OutputStream:
    """The screening of one generation."""

    def __init__(self, screening: Screening, choice_count: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._screening = screening
        self._clock = clock
        self._choices = [_Choice() for _ in range(choice_count)]

    def keep(self, deltas: Sequence[Delta]) -> bool:
        """Takes what only adds to a text of which a model must see more first, as most messages do, for little.

        Returns:
            False where something may be judged, refused or let go: it took nothing, and all of it must be pushed.
        """
        key = deltas[0].part if deltas else None
        if key is None or key.tool_call_index is not None or not 0 <= key.choice_index < len(self._choices):
            return False
        part = self._choices[key.choice_index].parts.get(key)
        if part is None or part.has_ended or any(one.part != key or one.ends_part or one.ends_choice for one in deltas):
            return False
        text = "".join([delta.text for delta in deltas])
        count = part.code_point_count + len(text)
        if not text or count > PART_CODE_POINTS_MAX or not part.lane.keep(text):
            return False
        part.waiting.arrived(part.code_point_count, self._clock())
        part.code_point_count = count
        return True

    async def push(self, deltas: Sequence[Delta]) -> list[Event]:
        """Takes what was generated and returns what that made certain.

        Raises:
            InvalidArgument: A delta belongs nowhere: to an unknown choice, or to what has ended.
        """
        self._screening.refill()
        events: list[Event] = []
        for delta in _joined(deltas):
            await self._take(delta, events)
        return events

    async def finish(self) -> list[Event]:
        """Ends every choice that has not ended."""
        self._screening.refill()
        events: list[Event] = []
        for index, choice in enumerate(self._choices):
            if not choice.is_done:
                await self._end_choice(index, choice, events)
        return events

    @property
    def due_s(self) -> float:
        """When text will have waited as long as the policy lets it, by the clock; infinite while none waits."""
        return min((part.waiting.due_s for _, _, part in self._waiting()), default=math.inf)

    async def release_overdue(self) -> list[Event]:
        """Judges what has waited too long as if its part ended there, and lets it go; the part goes on behind it."""
        self._screening.refill()
        events: list[Event] = []
        for choice, key, part in self._waiting():
            if part.waiting.due_s <= self._clock() and not choice.is_done:
                await self._push(choice, key, part, "", True, events)
                part.has_ended = False
                part.lane, part.start = self._screening.lane(), part.code_point_count
                self._tell(key, part, events)
        return events

    def _waiting(self) -> list[tuple[_Choice, PartKey, _Part]]:
        """The parts whose text may be shown as it grows; what makes up a tool call waits for its end."""
        return [
            (choice, key, part)
            for choice in self._choices
            for key, part in choice.parts.items()
            if not part.has_ended and key.tool_call_index is None
        ]

    async def _take(self, delta: Delta, events: list[Event]) -> None:
        index = delta.part.choice_index
        if not 0 <= index < len(self._choices):
            raise InvalidArgument("deltas.choice_index", f"must be 0 to {len(self._choices) - 1}, the stream's choices")
        choice = self._choices[index]
        if choice.is_blocked:
            return
        if choice.is_done:
            raise InvalidArgument("deltas.choice_index", f"choice {index} has ended")
        if delta.text or delta.ends_part:
            await self._feed(choice, delta, events)
        if delta.ends_choice and not choice.is_done:
            await self._end_choice(index, choice, events)

    async def _feed(self, choice: _Choice, delta: Delta, events: list[Event]) -> None:
        part = choice.parts.get(delta.part)
        if part is None:
            part = choice.parts[delta.part] = _Part(self._screening.lane(), Waiting(self._screening.profile.hold_s))
        part.waiting.arrived(part.code_point_count, self._clock())
        part.code_point_count += len(delta.text)
        if part.has_ended:
            raise InvalidArgument("deltas.end_of_part", "the part has ended; it takes no further text")
        if part.code_point_count > PART_CODE_POINTS_MAX:
            raise InvalidArgument("deltas.text", f"a part holds at most {PART_CODE_POINTS_MAX} code points")
        await self._push(choice, delta.part, part, delta.text, delta.ends_part, events)

    async def _push(
        self, choice: _Choice, key: PartKey, part: _Part, text: str, final: bool, events: list[Event]
    ) -> None:
        is_call = key.tool_call_index is not None
        release = await (_push_arguments(part, text, final) if is_call else part.lane.push(text, final))
        part.has_ended = final
        choice.verdict = max(choice.verdict, part.lane.verdict)
        through = part.start + release.through
        part.waiting.released(part.code_point_count if final else through, part.code_point_count)
        events += [Judged(key, _moved(finding, part.start)) for finding in release.findings]
        if release.text:
            part.held.append(release.text)
        holds = is_call and (release.blocked or not final)
        if part.held and not holds:
            events.append(Released(key, "".join(part.held), through))
            part.held.clear()
        if not (final or is_call or release.blocked):
            self._tell(key, part, events)
        if release.blocked or self._screening.blocks_all:
            choice.is_done = choice.is_blocked = True
            choice.verdict = Verdict.BLOCK
            choice.parts.clear()
            events.append(ChoiceDone(key.choice_index, Verdict.BLOCK))

    def _tell(self, key: PartKey, part: _Part, events: list[Event]) -> None:
        """Says what is awaited, where that has changed."""
        wakes = part.lane.wakes.moved(part.start)
        if wakes != part.told:
            part.told = wakes
            events.append(Awaited(key, wakes, self._screening.profile.hold_s * GATHER_SHARE))

    async def _end_choice(self, index: int, choice: _Choice, events: list[Event]) -> None:
        for key, part in list(choice.parts.items()):
            if not part.has_ended and not choice.is_done:
                await self._push(choice, key, part, "", True, events)
        if not choice.is_done:
            choice.is_done = True
            choice.parts.clear()
            events.append(ChoiceDone(index, choice.verdict))


def _joined(deltas: Sequence[Delta]) -> Iterator[Delta]:
    """Joins neighbours of one part: what arrived together is read once."""
    if len(deltas) == 1:
        yield deltas[0]
        return
    for (part, ends), run in itertools.groupby(
        deltas, lambda delta: (delta.part, delta.ends_part or delta.ends_choice)
    ):
        if ends:
            yield from run
        else:
            yield Delta(part, "".join(delta.text for delta in run))


async def _push_arguments(part: _Part, text: str, final: bool) -> Release:
    """Judges arguments at their end, when they can be read as JSON."""
    part.held.append(text)
    if not final:
        return Release("", 0)
    source = "".join(part.held)
    part.held.clear()
    screened = await check_one(part.lane, Reading(source, is_json=True))
    passed = "" if part.lane.is_blocked else source if screened.replacement is None else screened.replacement
    return Release(passed, len(source), tuple(screened.source_findings), part.lane.is_blocked)


def _moved(finding: Finding, by: int) -> Finding:
    return dataclasses.replace(finding, start=finding.start + by, end=finding.end + by) if by else finding
