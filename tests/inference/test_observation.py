"""Spans of attempts tell the truth: what was asked of whom, how it ended, and never what was said."""

from __future__ import annotations

from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import NoOpTracer, SpanKind, StatusCode

from kit import names
from millrace.inference.v1 import generation_pb2 as pb
from millrace.inference.v1 import inference_service_pb2 as service_pb
from services.inference.attempts.observation import AttemptObserver
from services.inference.events import Attempt
from tests.fakes.openai_upstream import OpenAIUpstream, Reply
from tests.inference.parts import DONE, request, route
from tests.inference.suite import Serve, Suite, failure, spec


@pytest.fixture
async def suite(serve: Serve) -> Suite:
    """Inference alone."""
    return await serve()


async def attempts(suite: Suite, count: int = 1) -> list[ReadableSpan]:
    """The spans of attempts, once so many have ended."""
    return await suite.spans.wait(lambda span: span.name.startswith(("chat ", "text_completion ")), count)


def attributes(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


@pytest.mark.parametrize("streamed", [True, False])
async def test_an_answer(suite: Suite, streamed: bool) -> None:
    """Model, parameters, tokens and finish reasons, by the GenAI conventions; no status, which means no error."""
    fields = {"sampling": pb.SamplingParams(temperature=0.5, top_p=0.9, seed=7, max_tokens=9, n=2)}
    asked = {"session_id": "s1", **fields}
    await (suite.stream(**asked) if streamed else suite.generate(**asked))
    (span,) = await attempts(suite)

    assert (span.name, span.kind, span.status.status_code) == ("chat gpt", SpanKind.CLIENT, StatusCode.UNSET)
    expected = {
        names.GEN_AI_OPERATION_NAME: "chat",
        names.GEN_AI_PROVIDER_NAME: "fake",
        names.GEN_AI_REQUEST_MODEL: "gpt",
        names.GEN_AI_RESPONSE_MODEL: "gpt-0613",
        names.GEN_AI_REQUEST_TEMPERATURE: 0.5,
        names.GEN_AI_REQUEST_TOP_P: 0.9,
        names.GEN_AI_REQUEST_SEED: 7,
        names.GEN_AI_REQUEST_MAX_TOKENS: 9,
        names.GEN_AI_REQUEST_CHOICE_COUNT: 2,
        names.GEN_AI_CONVERSATION_ID: "s1",
        names.GEN_AI_USAGE_INPUT_TOKENS: 11,
        names.GEN_AI_USAGE_OUTPUT_TOKENS: 8,
        names.GEN_AI_RESPONSE_FINISH_REASONS: ("stop", "stop"),
        names.ROUTE: "fake:gpt",
        names.ATTEMPT: 1,
    }
    assert {name: attributes(span).get(name) for name in expected} == expected
    assert names.ERROR_TYPE not in attributes(span)


async def test_a_raw_prompt(suite: Suite) -> None:
    """It is a text completion, and parameters that were not given are not there."""
    asked = service_pb.GenerateRequest(spec=pb.GenerationSpec(model="gpt", raw_prompt="Once"))
    await suite.stub.Generate(asked)
    (span,) = await attempts(suite)

    assert span.name == "text_completion gpt"
    assert names.GEN_AI_REQUEST_TEMPERATURE not in attributes(span)


async def test_failures(suite: Suite, upstream: OpenAIUpstream) -> None:
    """Each attempt has its own span: the first failed with its reason, the second answered."""
    upstream.replies["first"] = Reply(status=503)
    await suite.generate("spared")
    first, second = await attempts(suite, 2)

    assert (first.name, first.status.status_code) == ("chat first", StatusCode.ERROR)
    assert attributes(first)[names.ERROR_TYPE] == "UPSTREAM_INTERNAL_SERVER"
    assert (second.name, second.status.status_code) == ("chat second", StatusCode.UNSET)
    assert [attributes(span)[names.ATTEMPT] for span in (first, second)] == [1, 2]


async def test_a_stream_that_breaks(suite: Suite, upstream: OpenAIUpstream) -> None:
    """Half an answer is an error, with no usage."""
    upstream.replies["gpt"] = Reply(cut_after=2)
    await failure(suite.stream())
    (span,) = await attempts(suite)

    assert span.status.status_code is StatusCode.ERROR
    assert attributes(span)[names.ERROR_TYPE] == "UPSTREAM_TRUNCATED"
    assert names.GEN_AI_USAGE_OUTPUT_TOKENS not in attributes(span)


@pytest.mark.parametrize("after", [-1, 1])
async def test_a_cancelled_attempt(suite: Suite, upstream: OpenAIUpstream, after: int) -> None:
    """It says that it was cancelled, which is no error of anybody's."""
    upstream.replies["gpt"] = Reply(stall_after=after)
    call = suite.start()
    asked = await upstream.next()
    await asked.began.wait()
    call.cancel()
    (span,) = await attempts(suite)

    assert attributes(span)[names.ERROR_TYPE] == "cancelled"
    assert span.status.status_code is StatusCode.UNSET


async def test_the_upstream_is_called_within_the_attempt(suite: Suite, upstream: OpenAIUpstream) -> None:
    """The traceparent that the upstream gets is the attempt's, itself a child of the call's."""
    await suite.stub.Generate(service_pb.GenerateRequest(spec=spec()))
    (span,) = await attempts(suite)
    server = await suite.spans.one(SpanKind.SERVER)
    _, trace_id, parent_id, _ = upstream.asked[0].headers["traceparent"].split("-")

    assert (int(trace_id, 16), int(parent_id, 16)) == (span.context.trace_id, span.context.span_id)
    assert span.parent is not None
    assert span.parent.span_id == server.context.span_id


async def test_nothing_that_was_said_is_recorded(suite: Suite, upstream: OpenAIUpstream) -> None:
    """Neither the prompt nor the answer is in any span, however it ended."""
    upstream.replies["gpt"] = Reply(words=("top", "secret"))
    upstream.replies["any-1"] = Reply(status=400, error={"message": "topsecret"})
    await suite.generate(text="mysecret")
    await failure(suite.generate("any-1", text="mysecret"))
    await attempts(suite, 2)

    assert "secret" not in "".join(span.to_json() for span in suite.spans.spans)


def test_nobody_watches_where_nothing_is_recorded() -> None:
    """Without an exporter an attempt costs no attributes."""
    way = route()
    asked = request()
    observe = AttemptObserver(NoOpTracer()).observe
    with observe(asked, way.targets[0], Attempt(1, "local", "t")) as observation, observation.current():
        observation.see(DONE)
    assert not hasattr(observation, "_span")
