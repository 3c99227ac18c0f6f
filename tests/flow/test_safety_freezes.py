"""One of two replicas of safety freezes: it is found out, and the other one judges what it was asked, to the end."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from kit.dial import dial
from millrace.safety.v1.safety_service_pb2 import ListPoliciesRequest
from millrace.safety.v1.safety_service_pb2_grpc import SafetyServiceStub
from tests.fakes.openai_upstream import OpenAIUpstream, Reply
from tests.flow.conftest import READY_S, Suite
from tests.flow.replicas import ServiceProcess

pytestmark = pytest.mark.asyncio(loop_scope="module")

DEADLINE_S = 60.0
STREAM_COUNT = WHOLE_COUNT = 4
WORDS = tuple(f" {number}" for number in range(40))
MODELS = """
version: 1
upstreams:
  fake: {{base_url: "{url}"}}
models:
  - name: model
    targets: [{{engine: openai, upstream: fake, model: model}}]
    safety: {{profile: default, on_unavailable: closed}}
    cache: {{enabled: false}}
    deadlines: {{ttft_s: 60, inter_token_s: 60}}
"""


@pytest_asyncio.fixture(loop_scope="module")
async def upstream() -> AsyncIterator[OpenAIUpstream]:
    """It says half of its answer, and the rest when it is let on."""
    fake = OpenAIUpstream()
    fake.replies["model"] = Reply(words=WORDS, gate_after=len(WORDS) // 2)
    await fake.start()
    yield fake
    await fake.stop()


@pytest_asyncio.fixture(loop_scope="module")
async def replicas(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[list[ServiceProcess]]:
    """Two replicas of safety, both ready."""
    folder = tmp_path_factory.mktemp("safety")
    made = [ServiceProcess(folder, "safety", f"safety{number}") for number in range(2)]
    try:
        for one in made:
            await one.start()
        for one in made:
            async with dial(one.address) as channel:
                stub: Any = SafetyServiceStub(channel)
                await stub.ListPolicies(ListPoliciesRequest(), wait_for_ready=True, timeout=READY_S)
        yield made
    finally:
        for one in made:
            await one.kill()


@pytest_asyncio.fixture(loop_scope="module")
async def suite(
    tmp_path_factory: pytest.TempPathFactory, upstream: OpenAIUpstream, replicas: list[ServiceProcess]
) -> AsyncIterator[Suite]:
    """All the others, in front of them."""
    target = {"MILLRACE_INFERENCE_SAFETY_TARGET": "ipv4:" + ",".join(one.address for one in replicas)}
    made = Suite(tmp_path_factory.mktemp("suite"), MODELS.format(url=upstream.url), target)
    try:
        await made.start("cache", "inference", "edge")
        yield made
    finally:
        await made.stop()


async def ask(http: aiohttp.ClientSession, stream: bool) -> str:
    """An answer, which is whole."""
    body = {"model": "model", "stream": stream, "messages": [{"role": "user", "content": "Count."}]}
    async with http.post("/v1/chat/completions", json=body) as answer:
        text = await answer.text()
        assert answer.status == 200, text
    if not stream:
        whole: str = json.loads(text)["choices"][0]["message"]["content"]
        return whole
    assert text.endswith("data: [DONE]\n\n"), text
    chunks = [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: {")]
    return "".join(one["choices"][0]["delta"].get("content") or "" for one in chunks)


async def test_what_a_frozen_replica_was_asked_the_other_one_judges(
    suite: Suite, replicas: list[ServiceProcess], upstream: OpenAIUpstream
) -> None:
    """Streams that it judges, and whole texts that it is asked for meanwhile: each caller has one whole answer."""
    timeout = aiohttp.ClientTimeout(DEADLINE_S)
    async with aiohttp.ClientSession(suite.url, timeout=timeout) as http:
        callers = []
        for number in range(STREAM_COUNT):
            callers.append(asyncio.create_task(ask(http, stream=True)))
            await upstream.next(number + 1)
            # Calls go to the replicas by turns, two to a stream: with one more, streams do, too.
            async with http.post("/v1/moderations", json={"input": f"text {number}"}) as answer:
                assert answer.status == 200
        replicas[0].signal(signal.SIGSTOP)
        upstream.replies["model"] = Reply(words=WORDS)
        callers += [asyncio.create_task(ask(http, stream=False)) for _ in range(WHOLE_COUNT)]
        for asked in upstream.asked:
            asked.gate.set()

        assert await asyncio.gather(*callers) == ["".join(WORDS)] * len(callers), suite.logs()
