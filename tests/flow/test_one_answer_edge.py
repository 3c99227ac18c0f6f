"""500 callers of the edge who ask the same at once: one call upstream, whoever leaves or dies meanwhile."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import AsyncIterator

import aiohttp
import pytest
import pytest_asyncio

from tests.fakes.openai_upstream import OpenAIUpstream, Reply
from tests.flow.replicas import Replicas
from tests.flow.test_one_answer import COUNT, DEADLINE_S, HALF, MODELS, TEXT, WORDS

pytestmark = pytest.mark.asyncio(loop_scope="module")

HALF_TEXT = "".join(WORDS[:HALF])


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def upstream() -> AsyncIterator[OpenAIUpstream]:
    """It says half of its answer, and the rest when it is let on."""
    fake = OpenAIUpstream()
    fake.replies["model"] = Reply(words=WORDS, gate_after=HALF)
    await fake.start()
    yield fake
    await fake.stop()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def started(tmp_path_factory: pytest.TempPathFactory, upstream: OpenAIUpstream) -> AsyncIterator[Replicas]:
    """An edge over three inference services, on three caches that share a Redis."""
    made = Replicas(tmp_path_factory.mktemp("edge"), MODELS.format(url=upstream.url))
    try:
        await made.start()
        await made.start_edge()
        yield made
    finally:
        await made.stop()


@pytest_asyncio.fixture(loop_scope="module")
async def replicas(started: Replicas, upstream: OpenAIUpstream) -> Replicas:
    """All of them up, and asked nothing yet."""
    await started.mend()
    upstream.asked.clear()
    return started


@pytest_asyncio.fixture(loop_scope="module")
async def http(replicas: Replicas) -> AsyncIterator[aiohttp.ClientSession]:
    """A client of the edge with room for all."""
    connector, timeout = aiohttp.TCPConnector(limit=0), aiohttp.ClientTimeout(DEADLINE_S)
    async with aiohttp.ClientSession(replicas.url, connector=connector, timeout=timeout) as made:
        yield made


class Caller:
    """Someone who reads a stream, and asks again where it ends as an error."""

    def __init__(self, http: aiohttp.ClientSession, question: str) -> None:
        self._http = http
        self._body = {"model": "model", "stream": True, "messages": [{"role": "user", "content": question}]}
        self.text, self.cache, self.restart_count = "", "", 0
        self.half_told = asyncio.Event()
        self.task = asyncio.create_task(self._ask())

    async def _ask(self) -> str:
        while not await self._is_whole():
            self.restart_count += 1
        return self.text

    async def _is_whole(self) -> bool:
        """Reads one stream; only one that ends with [DONE] is an answer."""
        self.text = ""
        async with self._http.post("/v1/chat/completions", json=self._body) as answer:
            if answer.status == 503:
                return False
            assert answer.status == 200, await answer.text()
            self.cache = answer.headers["x-millrace-cache"]
            async for line in answer.content:
                if line == b"data: [DONE]\n":
                    return True
                if line.startswith(b"data: {"):
                    self._note(json.loads(line[6:]))
        return False

    def _note(self, chunk: dict[str, list[dict[str, dict[str, str]]]]) -> None:
        for choice in chunk.get("choices", ()):
            self.text += choice["delta"].get("content") or ""
        if len(self.text) >= len(HALF_TEXT):
            self.half_told.set()


async def half_way(http: aiohttp.ClientSession) -> list[Caller]:
    """Callers who have all been told half of one answer."""
    question = secrets.token_hex(8)
    callers = [Caller(http, question) for _ in range(COUNT)]
    async with asyncio.timeout(DEADLINE_S):
        await asyncio.gather(*(caller.half_told.wait() for caller in callers))
    assert {caller.text for caller in callers} == {HALF_TEXT}
    return callers


async def answers(callers: list[Caller]) -> list[str]:
    """What all are told in the end."""
    async with asyncio.timeout(DEADLINE_S):
        return await asyncio.gather(*(caller.task for caller in callers))


async def test_one_call_upstream(http: aiohttp.ClientSession, upstream: OpenAIUpstream) -> None:
    """500 streams of the edge are told one answer, as it is made; one of them is marked as a miss."""
    callers = await half_way(http)
    upstream.asked[0].gate.set()

    assert await answers(callers) == [TEXT] * COUNT
    assert sorted(caller.cache for caller in callers) == ["exact"] * (COUNT - 1) + ["miss"]
    assert len(upstream.asked) == 1


async def test_the_leader_hangs_up(http: aiohttp.ClientSession, upstream: OpenAIUpstream) -> None:
    """One call more, and nobody else notices."""
    callers = await half_way(http)
    (leader,) = (caller for caller in callers if caller.cache == "miss")
    callers.remove(leader)
    leader.task.cancel()
    (await upstream.next(2)).gate.set()

    assert await answers(callers) == [TEXT] * (COUNT - 1)
    assert {caller.restart_count for caller in callers} == {0}
    assert len(upstream.asked) == 2


async def test_an_inference_service_dies(
    replicas: Replicas, http: aiohttp.ClientSession, upstream: OpenAIUpstream
) -> None:
    """Whether or not it led: at most one call more; those whose streams it served are told so, and ask again."""
    callers = await half_way(http)
    await replicas.inferences[0].kill()
    upstream.asked[0].gate.set()
    upstream.replies["model"] = Reply(words=WORDS)

    assert await answers(callers) == [TEXT] * COUNT
    assert 0 < sum(caller.restart_count > 0 for caller in callers) < COUNT
    assert len(upstream.asked) <= 2
