"""What holds of the answer's way through safety however it is cut, released, blocked and broken.

Several choices of several parts each, mixed at random; safety releases at random and fails at any moment; engine and
reader pause at random. `test_release.py` has the stories one by one.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from random import Random
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from kit.errors import MillraceError, Unavailable
from services.inference.attempts.attempts import Batch
from services.inference.events import Finding, SafetyEvent, Verdict
from services.inference.generation import (
    ChoiceFinished,
    Delta,
    EngineCompleted,
    EngineEvent,
    FinishReason,
    ToolCallDelta,
)
from services.inference.routing.rules import SafetyRule
from services.inference.screening.release import Screen, ScreenedBatch
from services.inference.screening.safety_port import REFUSAL, Assessment, ChoiceJudged, Judged, OutputPiece, Released
from tests.inference.parts import DONE, Decision, FakeSafety, ScriptedStream
from tests.inference.suite import only_tasks, tasks_now

OPEN, CLOSED = SafetyRule(on_unavailable="open"), SafetyRule(on_unavailable="closed")
KINDS = ("text", "reasoning", "tool_arguments")
DOWN = Unavailable("DOWN", "the script says that safety is down")
FOUND = Finding("violence", 0.9, "script")
HANGS_S = 2.0
EXAMPLES = settings(max_examples=200, deadline=None)

Texts = dict[tuple[int, str], str]


class Judge:
    """Decides as a safety service would, by a script.

    Args:
        count: Choices of the answer.
        release: How many of so many held code points leave now.
        block_at: Choices that are blocked, each at this code point of all its texts.
        fail_at: The request, the half-close included, that is answered by `failure`; None means never.
        failure: An error, or an assessment that comes too early.
    """

    def __init__(
        self,
        count: int,
        release: Callable[[int], int],
        *,
        block_at: dict[int, int] | None = None,
        fail_at: int | None = None,
        failure: Exception | Assessment = DOWN,
    ) -> None:
        self._release, self._block_at, self._failure = release, block_at or {}, failure
        self._requests_left = fail_at
        self._held: list[dict[str, str]] = [{} for _ in range(count)]
        self._through: dict[tuple[int, str], int] = {}
        self._seen = [0] * count
        self._over: set[int] = set()

    def __call__(self, pieces: Sequence[OutputPiece] | None) -> Iterable[Sequence[Decision] | Exception]:
        if self._requests_left == 0:
            return [self._failure] if isinstance(self._failure, Exception) else [[self._failure]]
        if self._requests_left is not None:
            self._requests_left -= 1
        if pieces is None:
            ends = [one for index in range(len(self._seen)) for one in self._end(index)]
            return [[*ends, Assessment(Verdict.ALLOW, policy_version="v1")]]
        return [[one for piece in pieces for one in self._judge(piece)]]

    def _judge(self, piece: OutputPiece) -> list[Decision]:
        index, kind = piece.choice_index, piece.kind
        if index in self._over:
            return []
        room = self._block_at.get(index, self._seen[index] + len(piece.text)) - self._seen[index]
        self._seen[index] += len(piece.text)
        self._held[index][kind] = self._held[index].get(kind, "") + piece.text[:room]
        released = self._let_go(index, kind, self._release)
        if len(piece.text) > room:
            self._over.add(index)
            return [Judged(index, kind, Verdict.BLOCK, FOUND), *released, ChoiceJudged(index, Verdict.BLOCK)]
        return [*released, *(self._end(index) if piece.end_of_choice else [])]

    def _end(self, index: int) -> list[Decision]:
        if index in self._over:
            return []
        self._over.add(index)
        rest = [one for kind in self._held[index] for one in self._let_go(index, kind, lambda held: held)]
        return [*rest, ChoiceJudged(index, Verdict.ALLOW)]

    def _let_go(self, index: int, kind: str, how_many: Callable[[int], int]) -> list[Decision]:
        held = self._held[index][kind]
        size = how_many(len(held))
        self._held[index][kind] = held[size:]
        through = self._through[index, kind] = self._through.get((index, kind), 0) + size
        return [Released(index, kind, 0, held[:size], through)] if size else []


def piece(index: int, kind: str, text: str) -> Delta:
    """A delta of one part; arguments belong to tool call 0."""
    if kind == "tool_arguments":
        return Delta(index, tool_calls=(ToolCallDelta(0, arguments_json=text),))
    return Delta(index, text=text) if kind == "text" else Delta(index, reasoning=text)


def cut(texts: Texts, count: int, random: Random) -> list[list[EngineEvent]]:
    """An answer in pieces: all parts mixed, each choice finished after its last, and all of it in batches."""
    left = {key: text for key, text in texts.items() if text}
    unfinished = list(range(count))
    events: list[EngineEvent] = []
    while unfinished:
        for index in [one for one in unfinished if not any(key[0] == one for key in left)]:
            unfinished.remove(index)
            events.append(ChoiceFinished(index, FinishReason.STOP))
        if left:
            key = random.choice(sorted(left))
            size = random.randint(1, len(left[key]))
            events.append(piece(*key, left[key][:size]))
            left[key] = left[key][size:]
            left = {key: text for key, text in left.items() if text}
    batches: list[list[EngineEvent]] = [[]]
    for event in [*events, DONE]:
        if batches[-1] and random.random() < 0.6:
            batches.append([])
        batches[-1].append(event)
    return batches


async def pause(random: Random) -> None:
    """Lets others go on, or not."""
    for _ in range(random.randint(0, 4)):
        await asyncio.sleep(0)


async def play(batches: Sequence[Batch], random: Random) -> AsyncGenerator[Batch, None]:
    """An engine at its own pace."""
    for batch in batches:
        await pause(random)
        yield batch


async def read(batches: AsyncGenerator[ScreenedBatch, None], random: Random) -> tuple[list[Any], MillraceError | None]:
    """What a reader at its own pace sees, and the error that it ends with."""
    seen: list[Any] = []
    try:
        async with asyncio.timeout(HANGS_S):
            async for batch in batches:
                seen += batch
                await pause(random)
    except MillraceError as error:
        return seen, error
    return seen, None


def screened(
    judge: Judge, rule: SafetyRule, batches: Sequence[Batch], count: int, random: Random, silent: bool = False
) -> tuple[list[Any], MillraceError | None]:
    """What leaves of an answer; nothing of a choice follows its end, nothing runs on."""

    async def story() -> tuple[list[Any], MillraceError | None]:
        before = tasks_now()
        screen = Screen(FakeSafety(stream=ScriptedStream(judge, silent)), "default", rule, count)
        found = await read(screen.streamed(play(batches, random)), random)
        await only_tasks(before)
        return found

    seen, error = asyncio.run(story())
    over: set[int] = set()
    for number, event in enumerate(seen):
        assert not (isinstance(event, ChoiceFinished | Delta) and event.choice_index in over)
        assert not (isinstance(event, EngineCompleted) and number < len(seen) - 1)
        over |= {event.choice_index} if isinstance(event, ChoiceFinished) else set()
    return seen, error


def texts_of(seen: Sequence[Any]) -> Texts:
    """What was seen of each part."""
    found: Texts = {}
    for event in seen:
        if isinstance(event, Delta):
            said = {kind: getattr(event, kind) for kind in ("text", "reasoning", "refusal")}
            said["tool_arguments"] = "".join(call.arguments_json for call in event.tool_calls)
            for kind, text in said.items():
                found[event.choice_index, kind] = found.get((event.choice_index, kind), "") + text
    return filled(found)


def filled(texts: Texts) -> Texts:
    """Without the empty ones."""
    return {key: text for key, text in texts.items() if text}


def finishes(seen: Sequence[Any]) -> list[tuple[int, FinishReason]]:
    """The ends of choices, by index."""
    return sorted((one.choice_index, one.finish_reason) for one in seen if isinstance(one, ChoiceFinished))


@st.composite
def answers(draw: st.DrawFn) -> tuple[Texts, int, Random]:
    """Up to three choices of up to three parts each, and the chance that cuts and delays them."""
    count = draw(st.integers(1, 3))
    keys = [(index, kind) for index in range(count) for kind in KINDS]
    texts = {key: draw(st.text("abc é😀", max_size=12)) for key in keys}
    return texts, count, Random(draw(st.integers(0, 2**32)))


failures = st.sampled_from([DOWN, Assessment(Verdict.ALLOW)])


@EXAMPLES
@given(answers())
def test_all_that_is_allowed_arrives(answer: tuple[Texts, int, Random]) -> None:
    """However it is cut and released, an allowed answer arrives whole, once, in order and with its usage."""
    texts, count, random = answer
    judge = Judge(count, lambda held: random.randint(0, held))

    seen, error = screened(judge, CLOSED, cut(texts, count, random), count, random)

    assert error is None
    assert texts_of(seen) == filled(texts)
    assert finishes(seen) == [(index, FinishReason.STOP) for index in range(count)]
    assert seen[-1] == DONE


@EXAMPLES
@given(answers(), st.integers(0, 12), failures, st.booleans())
def test_fail_open_loses_and_repeats_nothing(
    answer: tuple[Texts, int, Random], fail_at: int, failure: Exception | Assessment, silent: bool
) -> None:
    """When safety fails at any moment and the policy is open, the original arrives exactly once and is marked."""
    texts, count, random = answer
    judge = Judge(count, lambda held: random.randint(0, held), fail_at=fail_at, failure=failure)

    seen, error = screened(judge, OPEN, cut(texts, count, random), count, random, silent)

    assert error is None
    assert texts_of(seen) == filled(texts)
    assert finishes(seen) == [(index, FinishReason.STOP) for index in range(count)]
    assert seen[-1] == DONE
    marks = [event.unscreened for event in seen if isinstance(event, SafetyEvent)]
    assert marks in ([], [True])
    assert marks or fail_at > 0


@EXAMPLES
@given(answers(), st.integers(0, 12), failures, st.booleans())
def test_fail_closed_tells_only_what_was_released(
    answer: tuple[Texts, int, Random], fail_at: int, failure: Exception | Assessment, silent: bool
) -> None:
    """When safety fails and the policy is closed, no more leaves than was released, and the call fails."""
    texts, count, random = answer
    sizes: list[int] = []

    def release(held: int) -> int:
        sizes.append(random.randint(0, held))
        return sizes[-1]

    judge = Judge(count, release, fail_at=fail_at, failure=failure)
    seen, error = screened(judge, CLOSED, cut(texts, count, random), count, random, silent)

    if error is None:  # the answer was over before
        assert texts_of(seen) == filled(texts)
        assert seen[-1] == DONE
        return
    assert error.reason == "SAFETY_UNAVAILABLE"
    assert not any(isinstance(event, EngineCompleted) for event in seen)
    ended = {index for index, _ in finishes(seen)}
    told = {key: text for key, text in texts_of(seen).items() if key[0] not in ended}
    assert all(texts[key].startswith(text) for key, text in told.items())
    assert sum(map(len, told.values())) <= sum(sizes)
    assert seen == [] or fail_at > 0


@EXAMPLES
@given(answers(), st.dictionaries(st.integers(0, 2), st.integers(0, 12)))
def test_a_block_is_the_end_of_its_choice(answer: tuple[Texts, int, Random], block_at: dict[int, int]) -> None:
    """A blocked choice ends with a refusal and CONTENT_FILTER and nothing after; the others arrive whole."""
    texts, count, random = answer
    sizes = [sum(len(texts[index, kind]) for kind in KINDS) for index in range(count)]
    blocked = {index for index, at in block_at.items() if index < count and at < sizes[index]}
    judge = Judge(count, lambda held: random.randint(0, held), block_at=block_at)

    seen, error = screened(judge, OPEN, cut(texts, count, random), count, random)

    assert error is None
    stop, filtered = FinishReason.STOP, FinishReason.CONTENT_FILTER
    assert finishes(seen) == [(index, filtered if index in blocked else stop) for index in range(count)]
    assert isinstance(seen[-1], EngineCompleted)
    assert len(blocked) == count or seen[-1] == DONE
    found = texts_of(seen)
    for index in range(count):
        size = sum(len(found.get((index, kind), "")) for kind in KINDS)
        assert found.get((index, "refusal")) == (REFUSAL if index in blocked else None)
        assert size <= block_at[index] if index in blocked else size == sizes[index]
