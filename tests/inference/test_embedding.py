"""Embedding under the same door as generation: fallbacks, counts and spans."""

from __future__ import annotations

import pytest

from kit.errors import Code
from millrace.inference.v1 import inference_service_pb2 as pb
from millrace.inference.v1 import usage_service_pb2, usage_service_pb2_grpc
from tests.fakes.openai_upstream import OpenAIUpstream, Reply
from tests.inference.suite import Serve, Suite, failure

DEADLINE_S = 10.0
MODELS = """
  - name: spared-vectors
    kind: embedding
    targets:
      - {engine: openai, upstream: fake, model: first, price: {prompt: 3, completion: 0}}
      - {engine: openai, upstream: fake, model: second, price: {prompt: 3, completion: 0}}
"""


@pytest.fixture
async def suite(serve: Serve) -> Suite:
    """Inference with a model that has a spare target."""
    return await serve(MODELS)


async def embed(suite: Suite, *texts: str) -> pb.EmbedResponse:
    asked = pb.EmbedRequest(model="spared-vectors", texts=texts)
    answer: pb.EmbedResponse = await suite.stub.Embed(asked, timeout=DEADLINE_S)
    return answer


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


async def test_embeddings_are_counted(suite: Suite, upstream: OpenAIUpstream) -> None:
    """Requests, tokens and money, failures too."""
    await embed(suite, "a", "b")
    upstream.replies |= {"first": Reply(status=503), "second": Reply(status=503)}
    await failure(embed(suite, "a"))
    stub = usage_service_pb2_grpc.UsageServiceStub(suite.channel)
    totals = (await stub.GetStats(usage_service_pb2.GetStatsRequest(), timeout=DEADLINE_S)).totals

    assert (totals.request_count, totals.failed_request_count) == (2, 1)
    assert (totals.prompt_token_count, totals.cost_micro_usd) == (2, 6)
