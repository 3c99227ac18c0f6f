"""What a caller sees while the only upstream is down, over the whole suite, and once it is back."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import grpc
import httpx
import pytest
import pytest_asyncio

from kit.status import from_rpc_error
from millrace.inference.v1 import event_pb2, generation_pb2, inference_service_pb2, inference_service_pb2_grpc
from tests.flow.conftest import Suite
from tests.flow.upstream import WORDS, Upstream

pytestmark = pytest.mark.asyncio(loop_scope="module")

DEADLINE_S = 20.0
MODELS = """
version: 1
upstreams:
  fake: {{base_url: "{url}"}}
models:
  - name: fake
    targets: [{{engine: openai, upstream: fake, model: fake, breaker: {{failures_in_a_row: 3, open_s: 1}}}}]
    cache: {{ttl_s: 1}}
    degrade: {{stale: true}}
defaults:
  retries: {{backoff_s: 0.01}}
"""


@pytest.fixture(scope="module")
def models() -> str:
    """One model whose answers are soon past their time."""
    return MODELS


@pytest_asyncio.fixture(loop_scope="module")
async def client() -> AsyncIterator[httpx.AsyncClient]:
    """A client that waits for a second or two, not more."""
    async with httpx.AsyncClient(timeout=DEADLINE_S) as made:
        yield made


async def ask(client: httpx.AsyncClient, suite: Suite, content: str, **fields: Any) -> httpx.Response:
    body = {"model": "fake", "messages": [{"role": "user", "content": content}], **fields}
    return await client.post(f"{suite.url}/v1/chat/completions", json=body)


async def until(client: httpx.AsyncClient, suite: Suite, cache: str) -> httpx.Response:
    """The first answer to the known question that came from where it should."""
    async with asyncio.timeout(DEADLINE_S):
        while (answer := await ask(client, suite, "known")).headers.get("x-millrace-cache") != cache:
            assert answer.status_code == 200, answer.text
    return answer


async def test_an_upstream_that_dies_and_returns(suite: Suite, upstream: Upstream, client: httpx.AsyncClient) -> None:
    """Known questions get old answers that say so, others 503 and a time; nothing is asked of it while it is down."""
    assert (await ask(client, suite, "known")).headers["x-millrace-cache"] == "miss"
    upstream.is_down = True
    stale = (await until(client, suite, "stale")).json()
    stream = await ask(client, suite, "known", stream=True, stream_options={"include_usage": True})
    events = [json.loads(line[6:]) for line in stream.text.splitlines() if line.startswith("data: {")]

    assert stale["choices"][0]["message"]["content"] == "".join(WORDS)
    for receipt in (stale["millrace"], events[-1]["millrace"]):
        assert (receipt["cache"]["outcome"], receipt["cost_usd"]) == ("stale", 0)
        assert receipt["cache"]["age_s"] >= 0.9
        assert {one["outcome"] for one in receipt["attempts"]} <= {"failed", "skipped"}
    assert stream.headers["x-millrace-cache"] == "stale"
    assert stream.text.endswith("data: [DONE]\n\n")

    for streamed in (False, True):
        refused = await ask(client, suite, "unknown", stream=streamed)
        assert refused.status_code == 503
        assert int(refused.headers["retry-after"]) >= 1
        assert "x-millrace-attempts" in refused.headers
        assert "x-should-retry" not in refused.headers
    (target,) = (await client.get(f"{suite.url}/stats")).json()["targets"]
    assert target["breaker"] in ("open", "half_open")
    assert (target["target"], target["failures"] >= 3, target["retries"] >= 1) == ("fake:fake", True, True)

    upstream.is_down = False
    assert (await until(client, suite, "miss")).json()["millrace"]["attempts"][-1]["outcome"] == "ok"


async def test_grpc_callers_are_told_the_same(suite: Suite, upstream: Upstream, client: httpx.AsyncClient) -> None:
    """A stub finds the reason in the status and the tries in the trailing metadata, once as text and once whole."""
    assert (await ask(client, suite, "asked once")).headers["x-millrace-cache"] == "miss"
    upstream.is_down = True
    part = generation_pb2.ContentPart(text="never asked")
    message = generation_pb2.Message(role=generation_pb2.ROLE_USER, parts=[part])
    spec = generation_pb2.GenerationSpec(model="fake", conversation=generation_pb2.Conversation(messages=[message]))
    async with grpc.aio.insecure_channel(suite.address("inference")) as channel:
        stub: Any = inference_service_pb2_grpc.InferenceServiceStub(channel)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.Generate(inference_service_pb2.GenerateRequest(spec=spec), timeout=DEADLINE_S)
    upstream.is_down = False

    error, trailers = from_rpc_error(caught.value), dict(caught.value.trailing_metadata() or ())
    receipt = event_pb2.Receipt.FromString(trailers["x-millrace-receipt-bin"])
    assert error.retry_after_ms
    assert trailers["x-millrace-target"] == "fake:fake"
    assert trailers["x-millrace-attempts"] == str(len(receipt.attempts)) == "3"
    assert {one.error_reason for one in receipt.attempts} == {"UPSTREAM_INTERNAL_SERVER"}
