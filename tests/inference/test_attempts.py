"""Attempts: who is asked after whom, what is never retried, every deadline, and what is known of targets afterwards."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing, contextmanager, nullcontext
from typing import Any

import pytest

from kit.errors import Code, FailedPrecondition, InvalidArgument, MillraceError, NotFound, Unavailable, error_of
from services.inference.accounting import metering
from services.inference.attempts import failure
from services.inference.attempts.attempts import Attempts, Batch
from services.inference.attempts.breaker import BreakerState
from services.inference.attempts.targets import Targets
from services.inference.events import Attempt, AttemptEvent, AttemptOutcome, Receipt
from services.inference.generation import Delta, EngineCompleted, EngineEvent, Prompt, Usage
from services.inference.request import Request
from services.inference.routing.catalog import Price, Target
from services.inference.routing.router import Route, RouteTarget
from services.inference.routing.rules import BreakerRule, DeadlineRule, HedgeRule, QueueRule, RetryRule, Rules
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


def attempts(*engines: FakeEngine | MillraceError, targets: Targets | None = None) -> Attempts:
    """Attempts whose targets t1, t2, ... are these engines, or cannot be had; waits between tries are none."""

    @contextmanager
    def use_engine(target: Target) -> Iterator[FakeEngine]:
        engine = engines[int(target.model[1:]) - 1]
        if isinstance(engine, MillraceError):
            raise engine
        yield engine

    return Attempts(targets or Targets(), use_engine, Watcher().observe, draw=lambda: 0.0)


async def run(
    made: Attempts, asked: Request | None = None, way: Route | None = None, done: Receipt | None = None
) -> list[object]:
    batches = made.run(asked or request(), way or once(2), done or receipt())
    return [event async for batch in batches for event in batch]


def once(count: int, **rules: Any) -> Route:
    """A route on which no target is asked twice."""
    return route(count, Rules(retries=RetryRule(retries_max=0), **rules))


def texts(events: Sequence[object]) -> list[str]:
    return [event.text for event in events if isinstance(event, Delta)]


def told(events: Sequence[object]) -> list[Attempt]:
    return [event.attempt for event in events if isinstance(event, AttemptEvent)]


async def failed(
    made: Attempts, asked: Request | None = None, way: Route | None = None
) -> tuple[MillraceError, Receipt]:
    done = receipt()
    with pytest.raises(MillraceError) as caught:
        await run(made, asked, way, done)
    return caught.value, done


def outcomes(done: Receipt) -> list[tuple[str, AttemptOutcome, str]]:
    return [(one.target, one.outcome, one.error_reason) for one in done.attempts]


async def test_the_first_target_answers() -> None:
    """One attempt, in the receipt with its times, and what the target said about itself."""
    done = receipt()
    engine = saying("a", "b")
    events = await run(attempts(engine, saying("no")), done=done)

    assert [type(event) for event in events] == [AttemptEvent, Delta, Delta, type(STOP), EngineCompleted]
    assert outcomes(done) == [("local:t1", AttemptOutcome.OK, "")]
    assert done.attempts[0].ttft_s is not None
    assert 0 < done.attempts[0].ttft_s <= done.attempts[0].duration_s
    assert (done.engine, done.target, done.target_model, done.system_fingerprint) == ("local", "local:t1", "m-1", "fp")
    assert engine.prompts[0].model == "t1"


@pytest.mark.parametrize("code", sorted(failure.ELSEWHERE))
async def test_the_next_target_is_tried(code: Code) -> None:
    """What another target may well answer is asked there, and told as an event."""
    done = receipt()
    events = await run(attempts(FakeEngine(error_of(code, "ODD", "odd")), saying("b")), done=done)

    assert [(one.target, one.error_reason) for one in told(events)] == [
        ("local:t1", "ODD"), ("local:t1", "ODD"), ("local:t2", ""),
    ], "told when it began and when it failed; the same object, so read late it says the same"  # fmt: skip
    assert texts(events) == ["b"]
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

    assert texts(events) == ["b"]


async def test_a_whole_answer_falls_back_however_late() -> None:
    """Nothing has left while a caller waits for the whole: a target that breaks in the middle is no loss."""
    asked = request(streamed=False)
    first = FakeEngine([Delta(text="half")], Unavailable("BROKEN", "broken"))
    second = saying("b")
    events = await run(attempts(first, second), asked)

    assert texts(events) == ["b"]


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
    way = once(1, deadlines=DeadlineRule(**rule))
    error, done = await failed(attempts(engine), request(**wish), way)

    assert (error.code, error.reason) == (Code.DEADLINE_EXCEEDED, reason)
    assert engine.closed
    assert outcomes(done) == [("local:t1", AttemptOutcome.FAILED, reason)]


async def test_an_engine_that_does_not_stream_has_no_first_token_to_wait_for() -> None:
    """What comes in one piece may take the whole time, not just that to the first token."""
    gate = asyncio.Event()
    engine = FakeEngine(gate, [Delta(text="a"), STOP, DONE])
    engine.streams = False
    work = asyncio.create_task(run(attempts(engine), request(streamed=False), route(1, ttft_s=0.001)))
    await engine.waiting.wait()
    asyncio.get_running_loop().call_later(0.01, gate.set)

    assert texts(await work) == ["a"]


async def test_a_silent_target_leaves_time_for_the_next() -> None:
    """Within one time to the first token for both, whoever waits for the answer and however."""
    for streamed in (True, False):
        silent, done = FakeEngine(asyncio.Event()), receipt()
        way = once(2, deadlines=DeadlineRule(ttft_s=0.1))
        events = await run(attempts(silent, saying("b")), request(streamed=streamed), way, done)

        assert texts(events) == ["b"]
        assert silent.closed
        assert outcomes(done)[0] == ("local:t1", AttemptOutcome.FAILED, "TTFT_TIMEOUT")
        assert done.attempts[0].duration_s < 0.1


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
    error, _ = await failed(
        attempts(FakeEngine([Delta(text="a")], asyncio.Event()), late), None, route(2, total_s=SOON)
    )
    assert error.reason == "DEADLINE_EXCEEDED"
    assert late.prompts == []


async def test_the_calls_deadline_cuts_the_rules() -> None:
    """The engine is told the earlier of the two, less what the way back takes."""
    engine = saying("a")
    soon = time.monotonic() + 5
    await run(attempts(engine), request(deadline=soon), route(1, total_s=60.0))

    assert engine.deadlines == [pytest.approx(soon - 0.1, abs=0.01)]


async def test_closing_ends_the_engines_work() -> None:
    """A reader that leaves stops the engine, and the attempt says that it was cancelled."""
    engine, done = FakeEngine([Delta(text="a")], asyncio.Event()), receipt()
    batches: AsyncGenerator[Batch, None] = attempts(engine).run(request(), route(1), done)
    async with aclosing(batches):
        await anext(batches)
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
    made = Attempts(Targets(), lambda target: nullcontext(saying("a")), watcher.observe)
    await run(made, request(prompt=prompt()), route(1))

    assert watcher.seen == [Delta(text="a"), STOP, DONE]


async def test_the_same_target_is_asked_again() -> None:
    """A failure that may pass is tried once more, and each try stands in the receipt."""
    done = receipt()
    engine = FakeEngine(DOWN)
    engine.scripts = [(DOWN,), ([Delta(text="b")], [STOP], [DONE])]
    events = await run(attempts(engine), way=route(1), done=done)

    assert texts(events) == ["b"]
    assert [one[1] for one in outcomes(done)] == [AttemptOutcome.FAILED, AttemptOutcome.OK]


async def test_what_targets_did_is_known_afterwards() -> None:
    """Failures, answers and first tokens are counted, and nobody runs any more."""
    targets, way = Targets(), once(2)
    await run(attempts(FakeEngine(DOWN), saying("b"), targets=targets), way=way)
    first, second = (targets.of(one, way.rules) for one in way.targets)

    assert (first.call_count, first.failure_count, first.running_count, first.queue.running_count) == (1, 1, 0, 0)
    assert (second.call_count, second.failure_count, second.running_count) == (1, 0, 0)
    assert second.first_tokens.ewma_s is not None


async def test_five_failures_open_the_breaker() -> None:
    """Then the target is passed over, at once and without a call, and the error says when to come back."""
    targets, engine = Targets(), FakeEngine(DOWN)
    made = attempts(engine, targets=targets)
    for _ in range(5):
        await failed(made, None, once(1))
    error, done = await failed(made, None, once(1))

    assert (error.code, error.reason) == (Code.UNAVAILABLE, "BREAKER_OPEN")
    assert error.retry_after_ms
    assert outcomes(done) == [("local:t1", AttemptOutcome.SKIPPED, "BREAKER_OPEN")]
    assert len(engine.prompts) == 5


@pytest.mark.parametrize(
    "script",
    [[[Delta(text="a")], DOWN], [[Delta(text="a")]], [InvalidArgument("spec", "no")], [asyncio.Event()]],
    ids=["broken", "truncated", "refused", "left"],
)
async def test_what_opens_a_breaker_and_what_does_not(script: Sequence[Any]) -> None:
    """Failures after the first delta do; the caller's own mistakes and its leaving do not."""
    targets, engine, way = Targets(), FakeEngine(*script), once(1)
    made = attempts(engine, targets=targets)
    for _ in range(5):
        work = asyncio.create_task(run(made, way=way))
        if isinstance(script[0], asyncio.Event):
            await engine.waiting.wait()
            work.cancel()
        await asyncio.wait({work})
    opens = script[0] == [Delta(text="a")]

    assert targets.of(way.own[0], way.rules).breaker.state is (BreakerState.OPEN if opens else BreakerState.CLOSED)


class FullEngine(FakeEngine):
    """An engine whose places are all taken: its calls wait, and say so when they are left."""

    async def generate(self, prompt: Prompt, deadline: float | None) -> AsyncGenerator[Sequence[EngineEvent], None]:
        meter, came_at = metering.current(), time.monotonic()
        try:
            async for batch in super().generate(prompt, deadline):
                yield batch
        finally:
            meter.is_queued, meter.queue_s = True, time.monotonic() - came_at


@pytest.mark.parametrize(
    ("ttft_s", "own_s", "reason"),
    [(SOON, 60.0, "QUEUE_TIMEOUT"), (60.0, 1.0, "DEADLINE_EXCEEDED")],
    ids=["the route's time", "the caller's time"],
)
async def test_waiting_for_a_place_opens_no_breaker(ttft_s: float, own_s: float, reason: str) -> None:
    """A model with more to do than it has time for is well: who waits in vain comes back, and nobody else suffers."""
    targets = Targets()
    target = Target(engine="local", model="t1", breaker=BreakerRule(failures_in_a_row=1))
    rules = Rules(retries=RetryRule(retries_max=0), deadlines=DeadlineRule(ttft_s=ttft_s))
    way = Route("gpt", "chat", "", (RouteTarget(target, target.model),), rules)
    made = attempts(FullEngine(asyncio.Event()), targets=targets)
    error, _ = await failed(made, request(deadline=time.monotonic() + own_s), way)

    assert error.reason == reason
    assert error.code is (Code.RESOURCE_EXHAUSTED if reason == "QUEUE_TIMEOUT" else Code.DEADLINE_EXCEEDED)
    assert targets.of(way.own[0], way.rules).breaker.state is BreakerState.CLOSED


async def test_who_waits_for_a_place_is_answered_by_the_next() -> None:
    """The line before one target is no reason to refuse what another can do."""
    events = await run(
        attempts(FullEngine(asyncio.Event()), saying("b")), way=once(2, deadlines=DeadlineRule(ttft_s=0.1))
    )

    assert texts(events) == ["b"]


@pytest.mark.parametrize(("ttft_s", "is_open"), [(0.01, True), (60.0, False)])
async def test_a_hurried_caller_opens_no_breaker(ttft_s: float, is_open: bool) -> None:
    """A deadline of its own that nobody could keep says nothing about the target; the operator's does."""
    targets, way = Targets(), once(1, deadlines=DeadlineRule(ttft_s=ttft_s))
    made = attempts(FakeEngine(asyncio.Event()), targets=targets)
    for _ in range(5):
        await failed(made, request(deadline=time.monotonic() + 0.02), way)

    assert targets.of(way.own[0], way.rules).breaker.admits() is not is_open


async def test_a_cancelled_probe_gives_its_leave_back() -> None:
    """Even one that still waits for its place; or the target would never be asked again."""
    targets, engine = Targets(), FakeEngine(asyncio.Event())
    target = Target(
        engine="local", model="t1", queue=QueueRule(running_count_max=1),
        breaker=BreakerRule(failures_in_a_row=1, open_s=1e-6),
    )  # fmt: skip
    way = Route("gpt", "chat", "", (RouteTarget(target, "t1"),), once(1).rules)
    state = targets.of(way.own[0], way.rules)
    permit = state.breaker.enter()
    assert permit
    permit.failed()
    await state.queue.enter(0, float("inf"))
    work = asyncio.create_task(run(attempts(engine, targets=targets), way=way))
    async with asyncio.timeout(10):
        while not state.queue.waiting_count:  # noqa: ASYNC110 - the queue tells nobody
            await asyncio.sleep(0)
    assert not state.breaker.admits()
    work.cancel()
    await asyncio.wait({work})

    assert state.breaker.admits()
    assert engine.prompts == []


async def test_a_full_target_is_passed_over() -> None:
    """The next one answers, and the receipt says why."""
    targets, way, done = Targets(), once(2), receipt()
    full = Target(engine="local", model="t1", queue=QueueRule(running_count_max=1, queue_count_max=0))
    way = Route("gpt", "chat", "", (RouteTarget(full, "t1"), way.own[1]), way.rules)
    await targets.of(way.own[0], way.rules).queue.enter(0, float("inf"))
    events = await run(attempts(saying("a"), saying("b"), targets=targets), way=way, done=done)

    assert texts(events) == ["b"]
    assert outcomes(done)[0] == ("local:t1", AttemptOutcome.SKIPPED, "TARGET_FULL")
    assert targets.of(way.own[0], way.rules).breaker.state is BreakerState.CLOSED


QUICK = HedgeRule(enabled=True, delay_s=1e-9, share_max=1.0)
HEDGED = HedgeRule(enabled=True, delay_s=0.01, share_max=1.0)


@pytest.mark.parametrize("streamed", [True, False])
async def test_a_slow_target_is_raced(streamed: bool) -> None:
    """The quicker answers, the other is cancelled and says so, and the receipt names who answered."""
    slow, done = FakeEngine(asyncio.Event()), receipt()
    events = await run(attempts(slow, saying("b")), request(streamed=streamed), once(2, hedging=HEDGED), done)

    assert texts(events) == ["b"]
    assert slow.closed
    assert outcomes(done) == [
        ("local:t1", AttemptOutcome.CANCELLED, "HEDGE_LOST"), ("local:t2", AttemptOutcome.OK, ""),
    ]  # fmt: skip
    assert [one.hedged for one in done.attempts] == [False, True]
    assert done.target == "local:t2"
    assert not streamed or {one.target for one in told(events)} == {"local:t1", "local:t2"}


async def test_a_prompt_target_is_not_raced() -> None:
    """One that begins in time has no second."""
    done = receipt()
    await run(attempts(saying("a"), saying("b")), None, once(2, hedging=HedgeRule(enabled=True, delay_s=60)), done)

    assert outcomes(done) == [("local:t1", AttemptOutcome.OK, "")]


async def test_a_hedge_costs_what_the_second_target_costs() -> None:
    """Where that is more than the cap, the slow target is waited for."""
    gate, done = asyncio.Event(), receipt()
    rule = HedgeRule(enabled=True, delay_s=0.001, share_max=1.0, cost_usd_max=0.001)
    dear = Target(engine="local", model="t2", price=Price(prompt=0, completion=10))
    way = once(2, hedging=rule)
    way = Route("gpt", "chat", "", (way.own[0], RouteTarget(dear, "t2")), way.rules)
    slow = FakeEngine(gate, [Delta(text="a")], [STOP], [DONE])
    work = asyncio.create_task(run(attempts(slow, saying("b")), None, way, done))
    await slow.waiting.wait()
    asyncio.get_running_loop().call_later(0.05, gate.set)

    assert texts(await work) == ["a"]
    assert len(done.attempts) == 1


async def test_a_race_that_both_lose_goes_on() -> None:
    """With the third target, or ends with the last failure."""
    gate, done = asyncio.Event(), receipt()
    engines = FakeEngine(gate, DOWN), FakeEngine(gate, DOWN), saying("c")
    work = asyncio.create_task(run(attempts(*engines), None, once(3, hedging=HEDGED), done))
    await engines[1].waiting.wait()
    gate.set()

    assert texts(await work) == ["c"]
    assert [one[2] for one in outcomes(done)] == ["DOWN", "DOWN", ""]


async def test_leaving_a_race_stops_both() -> None:
    """Neither target works on for nobody."""
    engines = FakeEngine(asyncio.Event()), FakeEngine(asyncio.Event())
    work = asyncio.create_task(run(attempts(*engines), None, once(2, hedging=HEDGED)))
    await engines[1].waiting.wait()
    work.cancel()
    await asyncio.wait({work})

    assert [engine.closed for engine in engines] == [True, True]


async def test_an_answer_that_broke_half_way_gets_its_time_again() -> None:
    """A whole answer may begin anew after the time to the first token has long passed."""
    gate = asyncio.Event()
    first = FakeEngine([Delta(text="half")], gate, DOWN)
    work = asyncio.create_task(
        run(attempts(first, saying("b")), request(streamed=False), once(2, deadlines=DeadlineRule(ttft_s=0.05)))
    )
    await first.waiting.wait()
    asyncio.get_running_loop().call_later(0.06, gate.set)

    assert texts(await work) == ["b"]


async def test_operators_hear_of_breakers(caplog: pytest.LogCaptureFixture) -> None:
    """One line when a target is left alone, with the reason, and one when it answers again."""
    caplog.set_level("INFO")
    target = Target(engine="local", model="t1", breaker=BreakerRule(failures_in_a_row=1, open_s=1e-6))
    way = Route("gpt", "chat", "", (RouteTarget(target, "t1"),), once(1).rules)
    engine = FakeEngine(DOWN)
    engine.scripts = [(DOWN,), ([Delta(text="b")], [STOP], [DONE])]
    made = attempts(engine)
    await failed(made, None, way)
    await run(made, None, way)
    opened, closed = caplog.records

    assert (opened.message, opened.levelname, vars(opened)["reason"]) == ("target is left alone", "WARNING", "DOWN")
    assert (closed.message, vars(closed)["target"]) == ("target answers again", "local:t1")


async def test_a_whole_answer_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that never ends is ended before memory does; who reads along may read on."""
    monkeypatch.setattr("services.inference.attempts.attempt.WHOLE_SIZE_MAX", 100)
    long = [[Delta(text="x" * 40)]] * 3
    error, _ = await failed(attempts(FakeEngine(*long, [STOP], [DONE])), request(streamed=False), once(1))

    assert (error.code, error.reason) == (Code.RESOURCE_EXHAUSTED, "ANSWER_TOO_LARGE")
    assert len(texts(await run(attempts(FakeEngine(*long, [STOP], [DONE])), way=once(1)))) == 3


@pytest.mark.parametrize("hedging", [HedgeRule(), HEDGED], ids=["alone", "hedged"])
async def test_a_probe_of_a_caller_who_goes_at_once_is_given_back(hedging: HedgeRule) -> None:
    """Even one whose try has not begun: who leaves between two steps must not leave the target shut for ever."""
    targets = Targets()
    target = Target(engine="local", model="t1", breaker=BreakerRule(failures_in_a_row=1, open_s=1e-6))
    way = Route("gpt", "chat", "", (RouteTarget(target, "t1"),), once(1, hedging=hedging).rules)
    state, done = targets.of(way.own[0], way.rules), receipt()
    permit = state.breaker.enter()
    assert permit
    permit.failed()
    batches = attempts(FakeEngine(asyncio.Event()), targets=targets).run(request(), way, done)
    await anext(batches)
    assert not state.breaker.admits()
    await batches.aclose()

    assert state.breaker.admits()
    assert outcomes(done) == [("local:t1", AttemptOutcome.CANCELLED, "")]


async def test_cancelling_at_any_step_leaves_nothing_behind() -> None:
    """Whatever a caller interrupts, the leave, the place and the engine are given back."""
    for steps in range(60):
        targets = Targets()
        target = Target(engine="local", model="t1", breaker=BreakerRule(failures_in_a_row=1, open_s=1e-6))
        other = Target(engine="local", model="t2")
        way = Route(
            "gpt", "chat", "", (RouteTarget(target, "t1"), RouteTarget(other, "t2")), once(2, hedging=QUICK).rules
        )
        states = [targets.of(one, way.rules) for one in way.own]
        permit = states[0].breaker.enter()
        assert permit
        permit.failed()
        engines = FakeEngine(asyncio.Event()), FakeEngine(asyncio.Event())
        work = asyncio.create_task(run(attempts(*engines, targets=targets), None, way))
        for _ in range(steps):
            await asyncio.sleep(0)
        work.cancel()
        await asyncio.wait({work})

        assert states[0].breaker.admits(), steps
        assert [(state.running_count, state.queue.running_count) for state in states] == [(0, 0), (0, 0)], steps
