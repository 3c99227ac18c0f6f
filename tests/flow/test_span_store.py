"""Traces without a collector, and the live figures: a real suite whose edge keeps every service's spans."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from bench.ports import free_port
from tests.flow.conftest import Suite

DEADLINE_S = 20.0
SAFETY = "millrace.safety.v1.SafetyService"
CACHE = "millrace.cache.v1.CacheService"

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.fixture(scope="module")
def variables() -> dict[str, str]:
    port = free_port()
    to = {f"MILLRACE_{name}_SPAN_STORE": f"127.0.0.1:{port}" for name in ("EDGE", "INFERENCE", "CACHE", "SAFETY")}
    return {**to, "MILLRACE_EDGE_SPAN_STORE_PORT": str(port)}


async def chat(suite: Suite, model: str = "fake", stream: bool = True, **headers: str) -> str:
    """Asks something new and returns the request's id."""
    content = f"question {secrets.token_hex(4)}"
    body = {"model": model, "stream": stream, "messages": [{"role": "user", "content": content}]}
    async with httpx.AsyncClient(timeout=DEADLINE_S) as client:
        answer = await client.post(f"{suite.url}/v1/chat/completions", json=body, headers=headers)
    return answer.headers["x-request-id"]


async def events(url: str, **headers: str) -> AsyncIterator[tuple[str, Any]]:
    """The server-sent events of a stream, as kind and data."""
    async with httpx.AsyncClient(timeout=DEADLINE_S) as client, client.stream("GET", url, headers=headers) as answer:
        assert answer.status_code == 200
        kind = ""
        async for line in answer.aiter_lines():
            if line.startswith("event: "):
                kind = line.removeprefix("event: ")
            elif line.startswith("data: "):
                yield kind, json.loads(line.removeprefix("data: "))


async def test_the_whole_tree_of_a_request_is_told(suite: Suite) -> None:
    """The events end by themselves with every span of every service in one tree; the document says the same."""
    request_id = await chat(suite)
    url = f"{suite.url}/v1/traces/{request_id}"
    spans: dict[str, Any] = {}
    async with asyncio.timeout(DEADLINE_S):
        told = [one async for one in events(f"{url}/events")]
    assert told[-1][0] == "end"
    spans = {data["span_id"]: data for kind, data in told if kind == "span"}
    roots = [one for one in spans.values() if one["parent_span_id"] is None]
    assert [(one["service"], one["name"]) for one in roots] == [("edge", "POST /v1/chat/completions")]
    assert all(one["parent_span_id"] in spans for one in spans.values() if one not in roots)
    named = {(one["service"], one["name"]) for one in spans.values()}
    assert named >= {
        ("inference", "chat fake"),
        ("safety", f"{SAFETY}/StreamCheckOutput"),
        ("cache", f"{CACHE}/Lookup"),
        ("cache", f"{CACHE}/Store"),
    }
    assert all(one["duration_ms"] >= 0 and one["status"] != "error" for one in spans.values())
    async with httpx.AsyncClient(timeout=DEADLINE_S) as client:
        trace = (await client.get(url)).json()
    assert trace["request_id"] == request_id
    assert trace["complete"]
    assert {one["span_id"]: one for one in trace["spans"]} == spans


async def test_a_request_that_runs_has_an_open_root(suite: Suite) -> None:
    """While an answer comes the edge's own span is shown without a duration, under the id that it will have."""
    request_id = secrets.token_hex(8)
    body = {"model": "fake-slow", "stream": True, "messages": [{"role": "user", "content": "go on"}]}
    async with httpx.AsyncClient(timeout=DEADLINE_S) as client:
        request = client.build_request(
            "POST", f"{suite.url}/v1/chat/completions", json=body, headers={"x-request-id": request_id}
        )
        answer = await client.send(request, stream=True)
        chunks = answer.aiter_bytes()  # held, for its end would close the answer
        await anext(chunks)
        trace = (await client.get(f"{suite.url}/v1/traces/{request_id}")).json()
        await answer.aclose()
    root = next(one for one in trace["spans"] if one["parent_span_id"] is None)
    assert (root["service"], root["duration_ms"]) == ("edge", None)
    assert not trace["complete"]
    async with asyncio.timeout(DEADLINE_S):
        told = [data async for kind, data in events(f"{suite.url}/v1/traces/{request_id}/events") if kind == "span"]
    assert [one["span_id"] for one in told if one["parent_span_id"] is None and one["duration_ms"]] == [root["span_id"]]


async def test_an_unknown_request_has_no_trace(suite: Suite) -> None:
    """A request that nobody made is a 404 in the error envelope."""
    async with httpx.AsyncClient(timeout=DEADLINE_S) as client:
        answer = await client.get(f"{suite.url}/v1/traces/nobody")
    assert answer.status_code == 404
    assert answer.json()["error"]["code"] == "trace_not_found"


async def test_live_figures_come_once_a_second(suite: Suite) -> None:
    """A watcher sees the requests of the last seconds, by model and target, and who is there."""
    for _ in range(3):
        await chat(suite, "fake")
    async with asyncio.timeout(DEADLINE_S):
        stream = events(f"{suite.url}/admin/live")
        kind, first = await anext(stream)
        _, second = await anext(stream)
        await stream.aclose()  # type: ignore[attr-defined]
    assert kind == "snapshot"
    assert second["at_ms"] - first["at_ms"] > 500
    assert first["requests_per_s"] > 0
    assert first["latency_ms"]["p50"] <= first["latency_ms"]["p95"] <= first["latency_ms"]["p99"]
    assert first["tokens_per_s"] > 0
    model = next(one for one in first["models"] if one["model"] == "fake")
    assert model["targets"][0]["breaker"] == "closed"
    assert {one["service"]: one["status"] for one in first["services"]}["cache"] == "up"
    assert first["replica"]


async def test_the_command_line_shows_both(suite: Suite) -> None:
    """`millrace trace` prints every span of a request once it is whole, and `millrace top --once` the figures."""
    request_id = await chat(suite)
    async with asyncio.timeout(DEADLINE_S):
        async for _ in events(f"{suite.url}/v1/traces/{request_id}/events"):
            pass
    printed = await run("trace", request_id, "--url", suite.url)
    for name in ("POST /v1/chat/completions", "InferenceService/StreamGenerate", "chat fake", "prefill", "decode"):
        assert name in printed
    printed = await run("top", "--once", "--url", suite.url)
    for word in ("requests/s", "first token", "fake", "safety up"):
        assert word in printed


async def run(*arguments: str) -> str:
    """What a command prints."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "cli", *arguments, stdout=PIPE, env={**os.environ, "COLUMNS": "160"}
    )
    async with asyncio.timeout(DEADLINE_S):
        output, _ = await process.communicate()
    assert process.returncode == 0
    return output.decode()
