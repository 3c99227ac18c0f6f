"""Embedding under the same door and by the same attempts as generation: fallbacks, retries, breakers, counts, spans."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from kit.errors import Code
from millrace.inference.v1 import event_pb2, usage_pb2, usage_service_pb2, usage_service_pb2_grpc
from millrace.inference.v1 import inference_service_pb2 as pb
from tests.fakes.openai_upstream import OpenAIUpstream, Reply
from tests.inference.suite import Serve, Suite, failure

DEADLINE_S = 10.0
MODELS = """
  - name: spared-vectors
    kind: embedding
    targets:
      - {engine: openai, upstream: fake, model: first, price: {prompt: 3, completion: 0}}
      - {engine: openai, upstream: fake, model: second, price: {prompt: 3, completion: 0}}
  - name: fragile-vectors
    kind: embedding
    targets: [{engine: openai, upstream: fake, model: fragile, breaker: {failures_in_a_row: 2}}]
  - name: timely-vectors
    kind: embedding
    deadlines: {ttft_s: 0.4}
    targets: [{engine: openai, upstream: fake, model: silent}, {engine: openai, upstream: fake, model: second}]
  - name: full-vectors
    kind: embedding
    targets: [{engine: openai, upstream: fake, model: silent, queue: {running_count_max: 1, queue_count_max: 0}}]
"""


@pytest.fixture
async def suite(serve: Serve) -> Suite:
    """Inference with a model that has a spare target."""
    return await serve(MODELS)


def start(suite: Suite, *texts: str, model: str = "spared-vectors") -> Any:
    return suite.stub.Embed(pb.EmbedRequest(model=model, texts=texts), timeout=DEADLINE_S)


async def embed(suite: Suite, *texts: str, model: str = "spared-vectors") -> pb.EmbedResponse:
    answer: pb.EmbedResponse = await start(suite, *texts, model=model)
    return answer


async def targets_of(suite: Suite) -> dict[str, usage_pb2.TargetStats]:
    stub = usage_service_pb2_grpc.UsageServiceStub(suite.channel)
    answer = await stub.GetStats(usage_service_pb2.GetStatsRequest(), timeout=DEADLINE_S)
    return {one.target_model: one for one in answer.targets}


async def test_the_next_target_answers(suite: Suite, upstream: OpenAIUpstream) -> None:
    """When the first cannot; each attempt is a span of its own that says how it ended."""
    upstream.replies["first"] = Reply(status=503)

    assert len((await embed(suite, "a", "b")).embeddings) == 2
    assert [one.body["model"] for one in upstream.asked] == ["first", "second"]
    failed, done = await suite.spans.wait(lambda span: span.name.startswith("embeddings "), 2)
    assert not failed.status.is_ok
    assert (failed.name, done.name) == ("embeddings first", "embeddings second")
    assert (done.attributes or {})["gen_ai.usage.input_tokens"] == 2


async def test_what_is_wrong_everywhere_is_asked_once(suite: Suite, upstream: OpenAIUpstream) -> None:
    """A refused request is the caller's to mend."""
    upstream.replies["first"] = Reply(status=400)

    assert (await failure(embed(suite, "a"))).code is Code.INVALID_ARGUMENT
    assert len(upstream.asked) == 1


async def test_a_failure_that_passes_is_tried_again(suite: Suite, upstream: OpenAIUpstream) -> None:
    """The only target is asked once more, and the trailing metadata says so."""
    upstream.replies["fragile"] = Reply(status=503)
    call = start(suite, "a", model="fragile-vectors")
    await upstream.next()
    upstream.replies["fragile"] = Reply()
    answer, trailers = await call, dict(await call.trailing_metadata())
    receipt = event_pb2.Receipt.FromString(trailers["x-millrace-receipt-bin"])

    assert len(answer.embeddings) == 1
    assert [(one.target, one.outcome) for one in receipt.attempts] == [("fake:fragile", 2), ("fake:fragile", 1)]
    assert (trailers["x-millrace-attempts"], trailers["x-millrace-prompt-tokens"]) == ("2", "1")


async def test_a_target_that_keeps_failing_is_left_alone(suite: Suite, upstream: OpenAIUpstream) -> None:
    """Its breaker opens: the next call is refused at once and not sent there."""
    upstream.replies["fragile"] = Reply(status=503)
    await failure(embed(suite, "a", model="fragile-vectors"))
    asked_count = len(upstream.asked)
    error = await failure(embed(suite, "a", model="fragile-vectors"))

    assert (error.code, error.reason) == (Code.UNAVAILABLE, "BREAKER_OPEN")
    assert error.retry_after_ms
    assert len(upstream.asked) == asked_count == 2
    assert (await targets_of(suite))["fragile"].breaker_state == usage_pb2.BREAKER_STATE_OPEN


async def test_a_silent_target_leaves_time_for_the_next(suite: Suite, upstream: OpenAIUpstream) -> None:
    """It has half of the call's time where another one waits, and its connection is closed."""
    upstream.replies["silent"] = Reply(stall_after=-1)

    answer = await embed(suite, "a", model="timely-vectors")

    assert len(answer.embeddings) == 1
    assert [one.body["model"] for one in upstream.asked] == ["silent", "second"]
    async with asyncio.timeout(DEADLINE_S):
        await upstream.asked[0].hung_up.wait()


async def test_a_full_target_refuses(suite: Suite, upstream: OpenAIUpstream) -> None:
    """What its queue rule allows holds for texts too; the place is free again when the caller hangs up."""
    upstream.replies["silent"] = Reply(stall_after=-1)
    call = start(suite, "a", model="full-vectors")
    await (await upstream.next()).began.wait()

    error = await failure(embed(suite, "a", model="full-vectors"))
    call.cancel()
    await upstream.asked[0].hung_up.wait()

    assert (error.code, error.reason) == (Code.RESOURCE_EXHAUSTED, "TARGET_FULL")
    async with asyncio.timeout(DEADLINE_S):
        while (await targets_of(suite))["silent"].running_count:
            pass


async def test_embeddings_are_counted(suite: Suite, upstream: OpenAIUpstream) -> None:
    """Requests, tokens and money, failures too."""
    await embed(suite, "a", "b")
    upstream.replies |= {"first": Reply(status=503), "second": Reply(status=503)}
    await failure(embed(suite, "a"))
    stub = usage_service_pb2_grpc.UsageServiceStub(suite.channel)
    totals = (await stub.GetStats(usage_service_pb2.GetStatsRequest(), timeout=DEADLINE_S)).totals

    assert (totals.request_count, totals.failed_request_count) == (2, 1)
    assert (totals.prompt_token_count, totals.cost_micro_usd) == (2, 6)
