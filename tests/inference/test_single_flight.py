"""Single flight: of many calls that ask the same at the same time one makes the answer, and all get it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from kit.errors import Code
from millrace.cache.v1 import cache_service_pb2, cache_service_pb2_grpc
from millrace.inference.v1 import event_pb2 as ev
from millrace.inference.v1 import inference_service_pb2 as pb
from tests.fakes.openai_upstream import OpenAIUpstream, Reply
from tests.inference.suite import Serve, Suite, failure, kinds, text_of

MODELS = """
  - name: open
    targets: [{engine: openai, upstream: fake, model: gpt}]
    safety: {profile: "off"}
    retries: {retries_max: 0}
  - name: apart
    targets: [{engine: openai, upstream: fake, model: gpt}]
    safety: {profile: "off"}
    cache: {single_flight: false}
"""
COUNT = 20
HALF = Reply(gate_after=2)
TEXT = "Hello, world!"


@pytest.fixture
async def suite(serve: Serve) -> Suite:
    """Inference with cache and safety."""
    return await serve(MODELS, cache=True, safety=True)


class Caller:
    """One who reads a streamed answer."""

    def __init__(self, suite: Suite, model: str = "open") -> None:
        self.call = suite.start(model)
        self._coming = aiter(self.call)
        self.events: list[pb.StreamGenerateResponse] = []

    async def until(self, kind: str) -> Caller:
        """Reads on to an event of a kind."""
        while not self.events or kinds(self.events)[-1] != kind:
            self.events.append(await anext(self._coming))
        return self

    async def rest(self) -> Caller:
        """Reads to the end."""
        self.events += [event async for event in self._coming]
        return self

    @property
    def text(self) -> str:
        return text_of(self.events)

    @property
    def outcomes(self) -> list[int]:
        """What was told of the cache, in order: at the start, later, and in the receipt."""
        told = [event.cache.outcome for event in self.events if event.WhichOneof("event") == "cache"]
        return [self.events[0].started.cache.outcome, *told, self.events[-1].completed.receipt.cache.outcome]


async def begin(suite: Suite, count: int = COUNT, model: str = "open") -> list[Caller]:
    """Callers who have all seen the first words of one answer; the first one makes it."""
    leader = await Caller(suite, model).until("delta")
    others = [Caller(suite, model) for _ in range(count - 1)]
    return [leader, *await asyncio.gather(*(one.until("delta") for one in others))]


async def test_many_calls_are_one_upstream_call(suite: Suite, upstream: OpenAIUpstream) -> None:
    """Those who stream see it grow, the others get it at its end; it is paid once, and told as what it is."""
    upstream.replies["gpt"] = HALF
    leader, *others = await begin(suite)
    whole = [asyncio.create_task(suite.generate("open")) for _ in range(COUNT)]
    assert {one.text for one in others} <= {"Hello", "Hello,"}
    (await upstream.next()).gate.set()

    await asyncio.gather(*(one.rest() for one in (leader, *others)))
    answers = await asyncio.gather(*whole)

    assert len(upstream.asked) == 1
    assert {one.text for one in (leader, *others)} == {TEXT}
    assert {answer.choices[0].text for answer in answers} == {TEXT}
    assert leader.outcomes == [ev.CACHE_OUTCOME_MISS] * 2
    assert all(one.outcomes == [ev.CACHE_OUTCOME_EXACT] * 2 for one in others)
    assert {answer.receipt.cache.outcome for answer in answers} == {ev.CACHE_OUTCOME_EXACT}
    receipts = [one.events[-1].completed.receipt for one in others] + [answer.receipt for answer in answers]
    assert {(one.engine, one.cost_micro_usd, len(one.attempts)) for one in receipts} == {("cache", 0, 0)}
    assert {one.usage.completion_token_count for one in receipts} == {4}


@pytest.mark.parametrize("gate", [-1, 2], ids=["before its first token", "in the middle"])
async def test_a_caller_that_leaves_is_replaced_by_one(suite: Suite, upstream: OpenAIUpstream, gate: int) -> None:
    """Its call ends at the upstream, another one makes the answer, and nobody notices."""
    upstream.replies["gpt"] = Reply(gate_after=gate)
    leader = suite.start("open")
    asked = await upstream.next()
    others = [Caller(suite) for _ in range(COUNT)]
    await asyncio.gather(*(one.until("started" if gate < 0 else "delta") for one in others))
    whole = [asyncio.create_task(suite.generate("open")) for _ in range(COUNT)]
    leader.cancel()
    async with asyncio.timeout(10):
        await asked.hung_up.wait()
    (await upstream.next(2)).gate.set()

    await asyncio.gather(*(one.rest() for one in others))
    answers = await asyncio.gather(*whole)

    assert len(upstream.asked) == 2
    assert {one.text for one in others} == {answer.choices[0].text for answer in answers} == {TEXT}
    assert [kinds(one.events).count("completed") for one in others] == [1] * COUNT
    outcomes = [one.outcomes[-1] for one in others] + [answer.receipt.cache.outcome for answer in answers]
    assert outcomes.count(ev.CACHE_OUTCOME_MISS) == 1
    assert outcomes.count(ev.CACHE_OUTCOME_EXACT) == 2 * COUNT - 1


async def test_two_answers_are_never_mixed(suite: Suite, upstream: OpenAIUpstream) -> None:
    """Who has seen the beginning of another answer fails and says why; who has seen nothing gets the new one."""
    upstream.replies["gpt"] = HALF
    leader, *others = await begin(suite)
    whole = [asyncio.create_task(suite.generate("open")) for _ in range(COUNT)]
    upstream.replies["gpt"] = Reply(words=("Good", " bye"))
    leader.call.cancel()

    errors = await asyncio.gather(*(failure(one.rest()) for one in others))
    answers = await asyncio.gather(*whole)

    assert {(error.code, error.reason) for error in errors} == {(Code.UNAVAILABLE, "ANSWER_CHANGED")}
    assert {answer.choices[0].text for answer in answers} == {"Good bye"}
    assert len(upstream.asked) <= 3


async def test_a_failure_is_tried_again_by_another(suite: Suite, upstream: OpenAIUpstream) -> None:
    """One at a time; where the upstream stays down, all are told so in the end."""
    upstream.replies["gpt"] = Reply(gate_after=-1, status=500)
    calls = [asyncio.create_task(failure(suite.generate("open"))) for _ in range(COUNT)]
    async with asyncio.timeout(10):
        errors = await asyncio.gather(*calls)

    assert {error.code for error in errors} == {Code.UNAVAILABLE}


async def test_what_may_not_be_shared_is_made_for_each(suite: Suite, upstream: OpenAIUpstream) -> None:
    """An answer that the policy stops is stopped for every caller by its own judgement, and none of it is kept."""
    upstream.replies["gpt"] = Reply(words=("well, ", "kill yourself ", "you loser", ". bye"))
    calls = [suite.stream("gpt", "how are you?") for _ in range(5)]
    async with asyncio.timeout(20):
        answers = await asyncio.gather(*calls)

    for events in answers:
        finish = next(event.choice_finished for event in events if event.WhichOneof("event") == "choice_finished")
        assert finish.finish_reason == ev.FINISH_REASON_CONTENT_FILTER
        assert "loser" not in text_of(events)
        assert events[-1].completed.receipt.cache.outcome == ev.CACHE_OUTCOME_MISS


async def test_a_route_may_have_each_call_make_its_own(suite: Suite, upstream: OpenAIUpstream) -> None:
    """Then nobody waits for another."""
    upstream.replies["gpt"] = HALF
    calls = [Caller(suite, "apart") for _ in range(3)]
    await asyncio.gather(*(one.until("delta") for one in calls))
    assert len(upstream.asked) == 3
    for asked in upstream.asked:
        asked.gate.set()

    await asyncio.gather(*(one.rest() for one in calls))

    assert {one.text for one in calls} == {TEXT}


async def test_a_cache_that_goes_away_takes_nobody_with_it(suite: Suite, upstream: OpenAIUpstream) -> None:
    """The others go on with the answer that is made in their own process; they never all ask for one of their own."""
    upstream.replies["gpt"] = HALF
    callers = await begin(suite, 4)
    await suite.servers["cache"].stop(0)

    async def open_gates() -> None:
        for number in range(1, 5):
            (await upstream.next(number)).gate.set()

    opening = asyncio.create_task(open_gates())
    await asyncio.gather(*(one.rest() for one in callers))
    opening.cancel()

    assert {one.text for one in callers} == {TEXT}
    assert len(upstream.asked) <= 2


async def test_a_blocked_prompt_leaves_the_answer_to_others(suite: Suite, upstream: OpenAIUpstream) -> None:
    """What it was given to make it is given back."""
    text = "kill yourself you loser"
    assert (await failure(suite.generate("gpt", text))).reason == "CONTENT_BLOCKED"
    await suite.inference.cache.close()

    stub: Any = cache_service_pb2_grpc.CacheServiceStub(suite.inference.channels["cache"])
    counted = await stub.GetStats(cache_service_pb2.GetStatsRequest(), timeout=5)

    assert counted.stats.lease_count == 0
