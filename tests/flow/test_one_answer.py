"""500 callers who ask the same of three inference services at once: one call upstream, whatever dies meanwhile."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
import pytest_asyncio

from bench.cache_stand import CacheProcess
from millrace.cache.v1.cache_service_pb2 import GetStatsRequest
from millrace.inference.v1 import event_pb2, generation_pb2
from millrace.inference.v1.inference_service_pb2 import StreamGenerateRequest
from tests.fakes.openai_upstream import OpenAIUpstream, Reply
from tests.flow.replicas import Replicas

pytestmark = pytest.mark.asyncio(loop_scope="module")

COUNT = 500
DEADLINE_S = 90.0
WORDS = tuple(f" {number}" for number in range(40))
HALF = 20
TEXT = "".join(WORDS)
MODELS = """
version: 1
upstreams:
  fake: {{base_url: "{url}"}}
models:
  - name: model
    targets: [{{engine: openai, upstream: fake, model: model}}]
    safety: {{profile: "off"}}
    deadlines: {{ttft_s: 60, inter_token_s: 60}}
"""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def upstream() -> AsyncIterator[OpenAIUpstream]:
    """It says half of its answer, and the rest when it is let on."""
    fake = OpenAIUpstream()
    fake.replies["model"] = Reply(words=WORDS, gate_after=HALF)
    await fake.start()
    yield fake
    await fake.stop()


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=[3, 1], ids=["three caches", "one cache"])
async def started(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, upstream: OpenAIUpstream
) -> AsyncIterator[Replicas]:
    """Three inference services on three caches that share a Redis, or on one."""
    folder = tmp_path_factory.mktemp("replicas")
    made = Replicas(folder, MODELS.format(url=upstream.url), cache_count=request.param)
    try:
        await made.start()
        yield made
    finally:
        await made.stop()


@pytest_asyncio.fixture(loop_scope="module")
async def replicas(started: Replicas, upstream: OpenAIUpstream) -> Replicas:
    """All of them up, and asked nothing yet."""
    await started.mend()
    upstream.asked.clear()
    return started


class Caller:
    """A client that asks another replica where the one it asked is gone."""

    def __init__(self, replicas: Replicas, turn: int, question: str) -> None:
        self._replicas, self._turn, self._request = replicas, turn, request(question)
        self.text, self.outcomes, self.restart_count = "", list[int](), 0
        self.half_told = asyncio.Event()
        self.task = asyncio.create_task(self._ask())

    @property
    def replica(self) -> int:
        """The number of the replica that is asked."""
        return self._turn % len(self._replicas.stubs)

    async def _ask(self) -> str:
        while True:
            try:
                return await self._ask_once(self._replicas.stubs[self.replica])
            except grpc.aio.AioRpcError as error:
                if error.code() is not grpc.StatusCode.UNAVAILABLE:
                    raise
                self._turn, self.restart_count = self._turn + 1, self.restart_count + 1

    async def _ask_once(self, stub: Any) -> str:
        self.text, self.outcomes = "", []
        call = stub.StreamGenerate(self._request, timeout=DEADLINE_S)
        try:
            async for event in call:
                self._note(event)
            return self.text
        finally:
            call.cancel()

    def _note(self, event: Any) -> None:
        match event.WhichOneof("event"):
            case "started":
                self.outcomes.append(event.started.cache.outcome)
            case "cache":
                self.outcomes.append(event.cache.outcome)
            case "delta":
                self.text += event.delta.text
                if len(self.text) >= len("".join(WORDS[:HALF])):
                    self.half_told.set()


def request(question: str) -> StreamGenerateRequest:
    """A question to the one model there is."""
    part = generation_pb2.ContentPart(text=question)
    message = generation_pb2.Message(role=generation_pb2.ROLE_USER, parts=[part])
    conversation = generation_pb2.Conversation(messages=[message])
    return StreamGenerateRequest(spec=generation_pb2.GenerationSpec(model="model", conversation=conversation))


async def half_way(replicas: Replicas) -> tuple[Caller, list[Caller]]:
    """Who makes the answer, and all the others; each has been told half of it."""
    question = secrets.token_hex(8)  # that nobody has asked before
    callers = [Caller(replicas, number, question) for number in range(COUNT)]
    async with asyncio.timeout(DEADLINE_S):
        await asyncio.gather(*(caller.half_told.wait() for caller in callers))
    (leader,) = (one for one in callers if one.outcomes == [event_pb2.CACHE_OUTCOME_MISS])
    callers.remove(leader)
    return leader, callers


async def answers(callers: list[Caller]) -> list[str]:
    """What all are told in the end."""
    async with asyncio.timeout(DEADLINE_S):
        return await asyncio.gather(*(caller.task for caller in callers))


async def test_one_call_upstream(replicas: Replicas, upstream: OpenAIUpstream) -> None:
    """500 streams over three replicas are told one answer, as it is made."""
    leader, others = await half_way(replicas)
    assert {one.text for one in others} == {"".join(WORDS[:HALF])}
    upstream.asked[0].gate.set()

    assert await answers([leader, *others]) == [TEXT] * COUNT
    assert len(upstream.asked) == 1


async def test_the_leader_leaves(replicas: Replicas, upstream: OpenAIUpstream) -> None:
    """Its caller hangs up half-way: one call more, and nobody else notices."""
    leader, others = await half_way(replicas)
    leader.task.cancel()
    (await upstream.next(2)).gate.set()

    assert await answers(others) == [TEXT] * (COUNT - 1)
    assert [one.restart_count for one in others] == [0] * (COUNT - 1)
    assert len(upstream.asked) == 2


async def test_the_leading_inference_dies(replicas: Replicas, upstream: OpenAIUpstream) -> None:
    """One call more; only those who were connected to it ask again, elsewhere."""
    leader, others = await half_way(replicas)
    dead = leader.replica
    near = [one for one in others if one.replica == dead]
    far = [one for one in others if one.replica != dead]
    await replicas.inferences[dead].kill()
    (await upstream.next(2)).gate.set()

    assert await answers([leader, *others]) == [TEXT] * COUNT
    assert [one.restart_count for one in far] == [0] * len(far)
    assert all(one.restart_count for one in near)
    assert len(upstream.asked) == 2


@pytest.mark.parametrize("started", [3], indirect=True, ids=["three caches"])
async def test_the_cache_that_it_leads_through_dies(replicas: Replicas, upstream: OpenAIUpstream) -> None:
    """One call more, by one of those who are told through another one; the leader and all the others notice nothing."""
    leader, others = await half_way(replicas)
    (leading,) = [cache for cache in replicas.caches if await lease_count(cache)]
    await leading.kill()
    (await upstream.next(2)).gate.set()

    assert await answers(others) == [TEXT] * (COUNT - 1)
    upstream.asked[0].gate.set()
    assert await answers([leader]) == [TEXT]
    assert {one.restart_count for one in (leader, *others)} == {0}
    assert len(upstream.asked) == 2


@pytest.mark.parametrize("started", [3], indirect=True, ids=["three caches"])
async def test_a_leader_whose_cache_has_died_is_heard_in_the_end(replicas: Replicas, upstream: OpenAIUpstream) -> None:
    """Where its answer is complete before anybody took over, no call more is made."""
    leader, others = await half_way(replicas)
    (leading,) = [cache for cache in replicas.caches if await lease_count(cache)]
    await leading.kill()
    upstream.asked[0].gate.set()

    assert await answers([leader, *others]) == [TEXT] * COUNT
    assert len(upstream.asked) == 1


@pytest.mark.parametrize("started", [1], indirect=True, ids=["one cache"])
async def test_the_cache_freezes(replicas: Replicas, upstream: OpenAIUpstream) -> None:
    """One call more in each process that does not make the answer; all others there go on with that one's."""
    leader, others = await half_way(replicas)
    replicas.caches[0].freeze()
    try:
        for count in (2, 3):
            (await upstream.next(count)).gate.set()
        upstream.asked[0].gate.set()

        assert await answers([leader, *others]) == [TEXT] * COUNT
        assert {one.restart_count for one in (leader, *others)} == {0}
        assert len(upstream.asked) == 3
    finally:
        await replicas.caches[0].kill()


async def lease_count(cache: CacheProcess) -> int:
    """How many answers are made under its care."""
    return (await cache.stub.GetStats(GetStatsRequest(), timeout=DEADLINE_S)).stats.lease_count
