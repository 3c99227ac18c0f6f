"""A replica of inference dies before its callers were told anything: the edge asks another one, and nobody notices."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from tests.fakes.openai_upstream import OpenAIUpstream, Reply
from tests.flow.replicas import Replicas
from tests.flow.test_one_answer import DEADLINE_S, MODELS, TEXT, WORDS

pytestmark = pytest.mark.asyncio(loop_scope="module")

CALLERS = 12  # of each kind, over two replicas


@pytest_asyncio.fixture(loop_scope="module")
async def upstream() -> AsyncIterator[OpenAIUpstream]:
    """It says nothing until it is let on."""
    fake = OpenAIUpstream()
    fake.replies["model"] = Reply(words=WORDS, gate_after=0)
    await fake.start()
    yield fake
    await fake.stop()


@pytest_asyncio.fixture(loop_scope="module")
async def replicas(tmp_path_factory: pytest.TempPathFactory, upstream: OpenAIUpstream) -> AsyncIterator[Replicas]:
    """An edge over two inference services."""
    made = Replicas(tmp_path_factory.mktemp("dies"), MODELS.format(url=upstream.url), inference_count=2, cache_count=1)
    try:
        await made.start()
        await made.start_edge()
        yield made
    finally:
        await made.stop()


async def whole(http: aiohttp.ClientSession, number: int) -> str:
    """A complete answer."""
    async with http.post("/v1/chat/completions", json=_body(f"whole {number}")) as answer:
        told: dict[str, Any] = await answer.json()
        assert answer.status == 200, told
        text: str = told["choices"][0]["message"]["content"]
        return text


async def streamed(http: aiohttp.ClientSession, number: int) -> str:
    """A streamed answer, which is whole only with its terminal event."""
    async with http.post("/v1/chat/completions", json=_body(f"streamed {number}") | {"stream": True}) as answer:
        data = await _data(answer)
    assert data.pop() == "[DONE]", data
    return "".join(json.loads(one)["choices"][0]["delta"].get("content") or "" for one in data)


async def responded(http: aiohttp.ClientSession, number: int) -> str:
    """A streamed response that is not kept, by its numbered events."""
    body = {"model": "model", "input": f"responded {number}", "stream": True, "store": False}
    async with http.post("/v1/responses", json=body) as answer:
        data = [json.loads(line) for line in await _data(answer)]
    assert [one["sequence_number"] for one in data] == list(range(len(data)))
    assert (data[0]["type"], data[-1]["type"]) == ("response.created", "response.completed")
    text: str = data[-1]["response"]["output"][0]["content"][0]["text"]
    return text


async def _data(answer: aiohttp.ClientResponse) -> list[str]:
    """What the events of an answer say."""
    told = await answer.text()
    assert answer.status == 200, told
    return [line[6:] for line in told.splitlines() if line.startswith("data: ")]


def _body(question: str) -> dict[str, Any]:
    return {"model": "model", "messages": [{"role": "user", "content": question}]}


async def test_callers_of_a_dead_replica_get_their_answer(replicas: Replicas, upstream: OpenAIUpstream) -> None:
    """Whole or streamed: each caller has one whole answer, and only what the dead replica had asked is asked again."""
    timeout = aiohttp.ClientTimeout(DEADLINE_S)
    async with aiohttp.ClientSession(replicas.url, timeout=timeout) as http:
        kinds = (whole, streamed, responded)
        callers = [asyncio.create_task(kind(http, number)) for kind in kinds for number in range(CALLERS)]
        await upstream.next(len(callers))
        upstream.replies["model"] = Reply(words=WORDS)
        await replicas.inferences[0].kill()
        for asked in upstream.asked:
            asked.gate.set()
        answers = await asyncio.gather(*callers)

    assert answers == [TEXT] * len(callers), replicas.logs()
    assert len(callers) < len(upstream.asked) < 2 * len(callers)
