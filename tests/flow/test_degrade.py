"""What a caller sees while cache or safety dies, is away, and comes back."""

from __future__ import annotations

import asyncio
import json
import secrets
import signal
from typing import Any

import httpx
import pytest

from tests.flow.conftest import Suite

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def chat(suite: Suite, model: str = "fake", **fields: Any) -> httpx.Response:
    """Asks something that was never asked before, and waits for ten seconds at most: no model takes as long."""
    content = fields.pop("content", f"question {secrets.token_hex(4)}")
    async with httpx.AsyncClient(timeout=10) as client:
        messages = [{"role": "user", "content": content}]
        return await client.post(
            f"{suite.url}/v1/chat/completions", json={"model": model, "messages": messages, **fields}
        )


async def test_cache_dies_and_returns(suite: Suite) -> None:
    """Without the cache every request is answered as a miss that says so; with it back, hits return."""
    assert (await chat(suite, content="same")).headers["x-millrace-cache"] == "miss"
    assert (await chat(suite, content="same")).headers["x-millrace-cache"] == "exact"
    await suite.kill("cache")
    for stream in (False, True):
        answer = await chat(suite, content="same", stream=stream)
        assert answer.status_code == 200
        assert answer.headers["x-millrace-cache"] == "unavailable"
    await suite.until(lambda health: health["dependencies"]["cache"]["status"] == "down")
    await suite.start("cache")
    assert (await chat(suite, content="same")).headers["x-millrace-cache"] == "exact"


async def test_frozen_cache_costs_no_more_than_its_deadline(suite: Suite) -> None:
    """A cache that accepts and never answers is a miss after its own short deadline."""
    await chat(suite)
    await suite.signal("cache", signal.SIGSTOP)
    answer = await chat(suite)
    assert answer.status_code == 200
    assert answer.headers["x-millrace-cache"] == "unavailable"
    await suite.signal("cache", signal.SIGCONT)
    await suite.until(lambda health: health["status"] == "ok")


async def test_safety_dies_and_returns(suite: Suite) -> None:
    """A closed policy refuses while safety is away, an open one answers and says so; both recover."""
    await suite.kill("safety")
    for stream in (False, True):
        refused = await chat(suite, stream=stream)
        assert refused.status_code == 503
        assert refused.json()["error"]["code"] == "safety_unavailable"
        assert (await chat(suite, "open-fake", stream=stream)).status_code == 200
    await suite.until(lambda health: health["dependencies"]["safety"]["status"] == "down")
    await suite.start("safety")
    assert (await chat(suite)).status_code == 200


async def test_safety_dies_during_a_stream(suite: Suite) -> None:
    """A closed policy ends the stream as an error; an open one lets the whole answer through."""
    whole = (await chat(suite, "open-fake-slow", stream=True)).text
    assert whole.endswith("data: [DONE]\n\n")

    async def cut(model: str) -> str:
        async with (
            httpx.AsyncClient(timeout=30) as client,
            client.stream(
                "POST",
                f"{suite.url}/v1/chat/completions",
                json={"model": model, "stream": True, "messages": [{"role": "user", "content": secrets.token_hex(4)}]},
            ) as answer,
        ):
            parts = answer.aiter_text()
            text = await anext(parts)
            begun.release()
            return text + "".join([part async for part in parts])

    begun = asyncio.Semaphore(0)
    closed, opened = asyncio.create_task(cut("fake-slow")), asyncio.create_task(cut("open-fake-slow"))
    await begun.acquire()
    await begun.acquire()
    await suite.kill("safety")
    assert "[DONE]" not in await closed
    assert '"error"' in closed.result()
    assert contents(await opened) == contents(whole)
    await suite.start("safety")


def contents(stream: str) -> str:
    """The answer's text in a stream of chunks."""
    chunks = [json.loads(line[6:]) for line in stream.splitlines() if line.startswith("data: {")]
    return "".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks if chunk["choices"])
