"""Text that waits for more to come: for how long, and what becomes of it then."""

import asyncio
import concurrent.futures
import math
from collections.abc import AsyncIterator

import pytest

from millrace.safety.v1 import safety_service_pb2 as pb
from services.safety import wiring
from services.safety.detectors.detector import ALWAYS, Wakes
from services.safety.holding import HoldTimer, Waiting
from services.safety.policy import Direction
from services.safety.run import duties
from services.safety.screening import Screening
from services.safety.stream import (
    Awaited,
    ChoiceDone,
    Delta,
    Event,
    Judged,
    OutputKind,
    OutputStream,
    PartKey,
    Released,
)
from tests.safety.conftest import Serve

DEADLINE_S = 20.0
HOLD_S = 20.0
LETTER = (
    "Thank you for the long letter about the bridge, which the committee read with interest before it met on Tuesday. "
    "Please write to jo@example.com if the report about its costs should be sent to you as well, or to anybody else. "
    "The new one will be opened before the winter rains begin, as everyone who has spoken of it hopes that it may be."
)
TEXT, ARGUMENTS = PartKey(0, OutputKind.TEXT), PartKey(0, OutputKind.TOOL_ARGUMENTS, 0)


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def stream(embedded: wiring.SafetyService, clock: Clock) -> OutputStream:
    pool = concurrent.futures.ThreadPoolExecutor(1)
    detectors = {name: embedded.safety.detectors[name] for name in ("forbidden_terms", "pii")}
    profile = embedded.safety.policies.profile("strict")
    wanted = duties(profile, Direction.OUTPUT, detectors)
    return OutputStream(Screening(profile, Direction.OUTPUT, wanted, pool, clock), 1, clock)


def text(events: list[Event]) -> str:
    return "".join(event.text for event in events if isinstance(event, Released))


async def test_text_is_due_when_the_policy_says(stream: OutputStream, clock: Clock) -> None:
    """Nothing is due while nothing waits; what waits is due so long after it came, and goes as it stands."""
    assert text(await stream.push([Delta(TEXT, "Write to ")])) == "Write to "
    assert stream.due_s == math.inf

    await stream.push([Delta(TEXT, "jo@exam")])
    assert stream.due_s == clock.now + HOLD_S
    clock.now += HOLD_S - 1
    assert await stream.release_overdue() == []
    clock.now += 1

    assert text(await stream.release_overdue()) == "jo@exam"
    assert stream.due_s == math.inf


async def test_what_is_complete_is_redacted_though_it_was_not_certain(stream: OutputStream, clock: Clock) -> None:
    """An address that might have gone on is judged as the end of the text would have it."""
    await stream.push([Delta(TEXT, "jo@example.com")])
    clock.now += HOLD_S

    events = await stream.release_overdue()

    assert text(events) == "<EMAIL_ADDRESS>"
    assert [event.finding.category for event in events if isinstance(event, Judged)] == ["EMAIL_ADDRESS"]


async def test_the_part_goes_on_behind_it(stream: OutputStream, clock: Clock) -> None:
    """Positions count from the beginning of the part, before and after; a later block still ends the choice."""
    await stream.push([Delta(TEXT, "one two@")])
    clock.now += HOLD_S
    first = await stream.release_overdue()

    rest = await stream.push([Delta(TEXT, " jo@example.com, and ")])
    end = await stream.push([Delta(TEXT, "i will kill you. "), Delta(TEXT, "never", ends_choice=True)])

    assert [event.through for event in first if isinstance(event, Released)] == [8]
    [found] = [event.finding for event in rest if isinstance(event, Judged)]
    assert (found.start, found.end) == (9, 23)
    assert text(rest) == " <EMAIL_ADDRESS>, and "
    assert [event.through for event in rest if isinstance(event, Released)] == [29]
    assert isinstance(end[-1], ChoiceDone)
    assert "never" not in text(end)


async def test_a_slow_model_does_not_keep_text_for_ever(stream: OutputStream, clock: Clock) -> None:
    """A token a second: text that has long been waiting is due although more keeps coming, and never late."""
    came: dict[int, float] = {}
    seen = 0
    for number in range(60):
        came[number] = clock.now
        events = await stream.push([Delta(TEXT, "a")])
        clock.now += 1
        events += await stream.release_overdue()
        for _ in text(events):
            assert clock.now - came[seen] <= HOLD_S + 1
            seen += 1

    assert seen >= 60 - HOLD_S - 1


async def test_what_is_only_kept_is_as_if_it_had_been_pushed(embedded: wiring.SafetyService) -> None:
    """Deltas taken in one step while a model must see more leave the same events, at the same times, behind."""

    async def events_of(keeps: bool) -> tuple[list[Event], list[float], int]:
        clock = Clock()
        stream = OutputStream(embedded.safety.screening("strict", Direction.OUTPUT), 1, clock)
        events: list[Event] = []
        due_s: list[float] = []
        kept_count = 0
        for piece in LETTER.split(" "):
            deltas = [Delta(TEXT, piece), Delta(TEXT, " ")]
            if keeps and stream.keep(deltas):
                kept_count += 1
            else:
                events += await stream.push(deltas)
            due_s.append(stream.due_s)
            clock.now += 1
        return [*events, *await stream.finish()], due_s, kept_count

    await embedded.safety.warm()
    kept, kept_due_s, kept_count = await events_of(True)

    assert (kept, kept_due_s, 0) == await events_of(False)
    assert kept_count > LETTER.count(" ") / 2
    assert "<EMAIL_ADDRESS>" in text(kept)


async def test_only_what_adds_to_a_waiting_text_is_kept(embedded: wiring.SafetyService, clock: Clock) -> None:
    """What begins, ends or belongs to another part, and what is wrong, goes the whole way; half of it never stays."""
    await embedded.safety.warm()
    stream = OutputStream(embedded.safety.screening("strict", Direction.OUTPUT), 1, clock)
    assert not stream.keep([Delta(TEXT, "A first word")])
    await stream.push([Delta(TEXT, "A first word")])

    assert stream.keep([Delta(TEXT, " and another")])
    refused = [
        [],
        [Delta(TEXT, " x"), Delta(TEXT, "", ends_part=True)],
        [Delta(TEXT, " x", ends_choice=True)],
        [Delta(TEXT, " x"), Delta(ARGUMENTS, "{}")],
        [Delta(ARGUMENTS, "{}")],
        [Delta(PartKey(1, OutputKind.TEXT), "no such choice")],
        [Delta(TEXT, "much more than a passage " * 20)],
    ]
    assert [stream.keep(deltas) for deltas in refused] == [False] * len(refused)
    assert text(await stream.finish()) == "A first word and another"


async def test_a_caller_is_told_what_is_awaited(embedded: wiring.SafetyService, clock: Clock) -> None:
    """Once for each passage, and no longer where text was let go early; of arguments nothing is told."""
    await embedded.safety.warm()
    stream = OutputStream(embedded.safety.screening("strict", Direction.OUTPUT), 1, clock)

    first = await stream.push([Delta(TEXT, LETTER[:20]), Delta(ARGUMENTS, "{")])
    passage = Wakes(160, 320, ".!?…。！？\n")
    assert first == [Awaited(TEXT, passage, HOLD_S / 20)]
    assert await stream.push([Delta(TEXT, LETTER[20:165])]) == []

    events = await stream.push([Delta(TEXT, LETTER[165:230])])
    through = max(event.through for event in events if isinstance(event, Released))
    assert events[-1] == Awaited(TEXT, passage.moved(through), HOLD_S / 20)

    clock.now += HOLD_S
    assert (await stream.release_overdue())[-1] == Awaited(TEXT, ALWAYS, HOLD_S / 20)
    after = await stream.push([Delta(TEXT, LETTER[230:240])])
    assert after == [Awaited(TEXT, passage.moved(230), HOLD_S / 20)]


async def test_where_no_model_is_waited_for_nothing_is_awaited(stream: OutputStream) -> None:
    """Any piece may release text that only patterns read."""
    events = [event for at in range(0, 200, 10) for event in await stream.push([Delta(TEXT, LETTER[at : at + 10])])]

    assert text(events)
    assert not [event for event in events if isinstance(event, Awaited)]


async def test_arguments_wait_for_their_end(stream: OutputStream, clock: Clock) -> None:
    """Half of a tool call can already do harm, however long it takes."""
    await stream.push([Delta(ARGUMENTS, '{"to": "jo@exam')])
    clock.now += 10 * HOLD_S

    assert stream.due_s == math.inf
    assert await stream.release_overdue() == []


def test_times_are_noted_a_few_times_only() -> None:
    """However many pieces come, a wait holds a handful of times, and never one that is too late."""
    waiting = Waiting(10.0)
    for step in range(10_000):
        waiting.arrived(step, step / 1000)
    assert waiting.due_s == 10.0

    waiting.released(9_000, 10_000)
    assert 9.0 - 10.0 / 4 <= waiting.due_s - 10.0 <= 9.0
    waiting.released(10_000, 10_000)
    assert waiting.due_s == math.inf


async def test_the_timer_rings_once_for_what_is_due(clock: Clock) -> None:
    """What left meanwhile rings for nobody; what came later rings at its own time."""
    due, rung = [clock.now], asyncio.Event()

    async def act() -> None:
        due[0] = math.inf
        rung.set()

    timer = HoldTimer(lambda: due[0], act, clock)
    timer.look()
    timer.look()
    await asyncio.wait_for(rung.wait(), DEADLINE_S)
    due[0] = clock.now + 1000
    timer.look()
    timer.cancel()


async def test_a_silent_model_shows_what_it_said(serve: Serve) -> None:
    """Over the wire: the caller sends nothing more, and the text comes all the same; then the stream goes on."""
    stub = await serve(
        "profiles:\n  quick: {description: d, strictness: 1, hold_ms: 100, output: {pii: {action: redact}}}\n"
    )
    go_on = asyncio.Event()

    async def requests() -> AsyncIterator[pb.StreamCheckOutputRequest]:
        yield pb.StreamCheckOutputRequest(start=pb.StreamStart(profile="quick"), deltas=[pb.OutputDelta(text="a b@")])
        await go_on.wait()
        yield pb.StreamCheckOutputRequest(deltas=[pb.OutputDelta(text=" or jo@example.com")])

    told = ""
    async for response in stub.StreamCheckOutput(requests(), timeout=DEADLINE_S):
        told += "".join(event.released.text for event in response.events)
        if told == "a b@":
            go_on.set()

    assert told == "a b@ or <EMAIL_ADDRESS>"
    listed = await stub.ListPolicies(pb.ListPoliciesRequest())
    holds = {policy.profile: policy.hold_max.ToMilliseconds() for policy in listed.policies}
    assert (holds["quick"], holds["default"]) == (100, 20_000)
    assert {each.name: each.backend for each in listed.detectors}["pii"] == "embedded"
