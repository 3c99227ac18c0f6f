"""Attempts: who is asked after whom, what is never retried, and every deadline."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing, contextmanager, nullcontext
from typing import Any

import pytest

from kit.errors import Code, FailedPrecondition, InvalidArgument, MillraceError, NotFound, Unavailable, error_of
from services.inference.attempt import RETRYABLE, Attempts, Batch
from services.inference.catalog import Price, Target
from services.inference.events import AttemptEvent, AttemptOutcome, Receipt
from services.inference.generation import Delta, EngineCompleted, Usage
from services.inference.request import Request
from services.inference.routing import Route, RouteTarget
from tests.inference.parts import DONE, STOP, FakeEngine, prompt, receipt, request, route, saying

DOWN = Unavailable("DOWN", "down")
SOON = 0.02


class Watcher:
    """Notes what it sees of each attempt."""

    def __init__(self) -> None:
        self.seen: list[object] = []

    @contextmanager
    def observe(self, *_: object) -> Any:
        yield self

    def current(self) -> Any:
        return nullcontext()

    def see(self, event: object) -> None:
        self.seen.append(event)


def attempts(*engines: FakeEngine | MillraceError) -> Attempts:
    """Attempts whose targets t1, t2, ... are these engines, or cannot be had."""

    def engine_for(target: Target) -> FakeEngine:
        engine = engines[int(target.model[1:]) - 1]
        if isinstance(engine, MillraceError):
            raise engine
        return engine

    return Attempts(engine_for, Watcher().observe)


async def run(
    made: Attempts, asked: Request | None = None, way: Route | None = None, done: Receipt | None = None
) -> list[object]:
    batches = made.run(asked or request(), way or route(2), done or receipt())
    return [event async for batch in batches for event in batch]


async def failed(made: Attempts, *args: Any) -> tuple[MillraceError, Receipt]:
    done = receipt()
    with pytest.raises(MillraceError) as caught:
        await run(made, *args, done=done)
    return caught.value, done


def outcomes(done: Receipt) -> list[tuple[str, AttemptOutcome, str]]:
    return [(one.target, one.outcome, one.error_reason) for one in done.attempts]


async def test_the_first_target_answers() -> None:
    """One attempt, in the receipt with its times, and what the target said about itself."""
    done = receipt()
    engine = saying("a", "b")
    events = await run(attempts(engine, saying("no")), done=done)

    assert [type(event) for event in events] == [Delta, Delta, type(STOP), EngineCompleted]
    assert outcomes(done) == [("local:t1", AttemptOutcome.OK, "")]
    assert done.attempts[0].ttft_s is not None
    assert 0 < done.attempts[0].ttft_s <= done.attempts[0].duration_s
    assert (done.engine, done.target, done.target_model, done.system_fingerprint) == ("local", "local:t1", "m-1", "fp")
    assert engine.prompts[0].model == "t1"


@pytest.mark.parametrize("code", sorted(RETRYABLE))
async def test_the_next_target_is_tried(code: Code) -> None:
    """What another target may well answer is asked there, and told as an event."""
    done = receipt()
    events = await run(attempts(FakeEngine(error_of(code, "ODD", "odd")), saying("b")), done=done)

    assert isinstance(events[0], AttemptEvent)
    assert (events[0].attempt.target, events[0].attempt.error_reason) == ("local:t1", "ODD")
    assert events[1] == Delta(text="b")
    assert [one[1] for one in outcomes(done)] == [AttemptOutcome.FAILED, AttemptOutcome.OK]
    assert [one.number for one in done.attempts] == [1, 2]


@pytest.mark.parametrize("error", [InvalidArgument("spec", "no"), NotFound("NO", "no"), FailedPrecondition("NO", "no")])
async def test_the_requests_own_faults_are_not_retried(error: MillraceError) -> None:
    """What is wrong with the request is wrong everywhere."""
    second = saying("b")
    caught, _ = await failed(attempts(FakeEngine(error), second))

    assert caught is error
    assert second.prompts == []


@pytest.mark.parametrize(
    "error", [NotFound("MODEL_NOT_FOUND", "no"), InvalidArgument("spec.input", "no", reason="CONTEXT_LENGTH_EXCEEDED")]
)
async def test_what_one_target_cannot_another_may(error: MillraceError) -> None:
    """It may know the model, or take a longer context."""
    events = await run(attempts(FakeEngine(error), saying("b")))

    assert events[1] == Delta(text="b")


async def test_a_whole_answer_falls_back_however_late() -> None:
    """Nothing has left while a caller waits for the whole: a target that breaks in the middle is no loss."""
    asked = request(streamed=False)
    first = FakeEngine([Delta(text="half")], Unavailable("BROKEN", "broken"))
    second = saying("b")
    events = await run(attempts(first, second), asked)

    assert [event.text for event in events if isinstance(event, Delta)] == ["b"]
    assert first.prompts[0].streamed, "only a stream shows in time that a target is silent"
    assert not second.prompts[0].streamed


async def test_an_engine_that_cannot_be_had_is_a_failed_attempt() -> None:
    """A model that is still loading does not stop the next from answering."""
    done = receipt()
    await run(attempts(Unavailable("MODEL_LOADING", "wait"), saying("b")), done=done)

    assert outcomes(done)[0] == ("local:t1", AttemptOutcome.FAILED, "MODEL_LOADING")


async def test_after_the_first_delta_the_target_never_changes() -> None:
    """Half an answer of one model is never finished by another."""
    second = saying("b")
    error, done = await failed(attempts(FakeEngine([Delta(text="a")], DOWN), second))

    assert error is DOWN
    assert second.prompts == []
    assert outcomes(done) == [("local:t1", AttemptOutcome.FAILED, "DOWN")]


async def test_after_an_end_without_text_the_target_never_changes_either() -> None:
    """A choice that has ended must not end again at another target."""
    second = saying("b")
    error, _ = await failed(attempts(FakeEngine([STOP], DOWN), second))

    assert error is DOWN
    assert second.prompts == []


async def test_the_last_failure_is_the_requests() -> None:
    """When every target fails, the last says why, and the receipt has them all."""
    last = Unavailable("LAST", "last")
    error, done = await failed(attempts(FakeEngine(DOWN), FakeEngine(last)))

    assert error is last
    assert [one[2] for one in outcomes(done)] == ["DOWN", "LAST"]


@pytest.mark.parametrize("script", [[], [[Delta(text="a")]], [[Delta(text="a")], [STOP]]], ids=str)
async def test_a_stream_without_its_end_is_truncated(script: Sequence[Any]) -> None:
    """An engine that stops without its terminal event has failed, whatever it said."""
    error, _ = await failed(attempts(FakeEngine(*script)), None, route(1))

    assert (error.code, error.reason) == (Code.UNAVAILABLE, "UPSTREAM_TRUNCATED")


@pytest.mark.parametrize(
    ("rule", "wish", "script", "reason"),
    [
        ({"ttft_s": SOON}, {}, [], "TTFT_TIMEOUT"),
        ({}, {"ttft_max_s": SOON}, [], "TTFT_TIMEOUT"),
        ({"inter_token_s": SOON}, {}, [[Delta(text="a")]], "INTER_TOKEN_TIMEOUT"),
        ({}, {"inter_token_max_s": SOON}, [[Delta(text="a")]], "INTER_TOKEN_TIMEOUT"),
        ({"total_s": SOON}, {}, [], "DEADLINE_EXCEEDED"),
        ({"total_s": SOON}, {}, [[Delta(text="a")]], "DEADLINE_EXCEEDED"),
        ({"total_s": SOON}, {"streamed": False}, [], "DEADLINE_EXCEEDED"),
    ],
)
async def test_silence_has_a_bound(
    rule: dict[str, float], wish: dict[str, Any], script: Sequence[Any], reason: str
) -> None:
    """To the first token, between two and to the end: by the route's rule or the caller's tighter wish."""
    engine = FakeEngine(*script, asyncio.Event())
    error, done = await failed(attempts(engine), request(**wish), route(1, **rule))

    assert (error.code, error.reason) == (Code.DEADLINE_EXCEEDED, reason)
    assert engine.closed
    assert outcomes(done) == [("local:t1", AttemptOutcome.FAILED, reason)]


async def test_a_whole_answer_has_no_first_token_to_wait_for() -> None:
    """Fetched in one piece it may take the whole time, not just that to the first token."""
    gate = asyncio.Event()
    engine = FakeEngine(gate, [Delta(text="a"), STOP, DONE])
    work = asyncio.create_task(run(attempts(engine), request(streamed=False), route(1, ttft_s=0.001)))
    await engine.waiting.wait()
    asyncio.get_running_loop().call_later(0.01, gate.set)

    assert Delta(text="a") in await work


async def test_the_callers_wish_never_widens_the_rule() -> None:
    """A wish beyond the route's bound is the bound."""
    error, _ = await failed(attempts(FakeEngine(asyncio.Event())), request(ttft_max_s=60.0), route(1, ttft_s=SOON))

    assert error.reason == "TTFT_TIMEOUT"


async def test_all_attempts_share_one_deadline() -> None:
    """The second target does not get the first one's time again, and after the deadline none is asked."""
    first, second = FakeEngine(DOWN), saying("b")
    await run(attempts(first, second), way=route(2, total_s=60.0))

    assert first.deadlines == second.deadlines

    late = saying("b")
    error, _ = await failed(attempts(FakeEngine(asyncio.Event()), late), None, route(2, total_s=SOON))
    assert error.reason == "DEADLINE_EXCEEDED"
    assert late.prompts == []


async def test_the_calls_deadline_cuts_the_rules() -> None:
    """The engine is told the earlier of the two."""
    engine = saying("a")
    soon = time.monotonic() + 5
    await run(attempts(engine), request(deadline=soon), route(1, total_s=60.0))

    assert engine.deadlines == [soon]


async def test_closing_ends_the_engines_work() -> None:
    """A reader that leaves stops the engine, and the attempt says that it was cancelled."""
    engine, done = FakeEngine([Delta(text="a")], asyncio.Event()), receipt()
    batches: AsyncGenerator[Batch, None] = attempts(engine).run(request(), route(1), done)
    async with aclosing(batches):
        await anext(batches)

    assert engine.closed
    assert outcomes(done) == [("local:t1", AttemptOutcome.CANCELLED, "")]


async def test_cancelling_ends_the_engines_work() -> None:
    """So does cancelling the task that waits for the first token."""
    engine, done = FakeEngine(asyncio.Event()), receipt()
    work = asyncio.create_task(run(attempts(engine), None, route(2), done))
    await engine.waiting.wait()
    work.cancel()
    await asyncio.wait({work})

    assert engine.closed
    assert outcomes(done) == [("local:t1", AttemptOutcome.CANCELLED, "")]


@pytest.mark.parametrize(
    ("price", "cost"),
    [
        (None, None),
        (Price(prompt=2, completion=10), 2 * 100 + 10 * 50),
        (Price(prompt=2, completion=10, cached_prompt=0.5), 2 * 60 + 0.5 * 40 + 10 * 50),
        (Price(prompt=0, completion=0), 0),
    ],
)
async def test_cost(price: Price | None, cost: int | None) -> None:
    """Dollars per million tokens are millionths of a dollar per token; without a price there is no cost, not 0."""
    done = receipt()
    target = Target(engine="local", model="t1", price=price)
    way = Route("gpt", "chat", "", (RouteTarget(target, "t1"),), route().rules)
    await run(attempts(FakeEngine([STOP, EngineCompleted(Usage(100, 50, 40))])), request(), way, done)

    assert done.cost_micro_usd == cost
    assert done.target_model == "t1"


async def test_the_watcher_sees_every_event() -> None:
    """What a span is made of passes it in order."""
    watcher = Watcher()
    made = Attempts(lambda target: saying("a"), watcher.observe)
    await run(made, request(prompt=prompt()), route(1))

    assert watcher.seen == [Delta(text="a"), STOP, DONE]
