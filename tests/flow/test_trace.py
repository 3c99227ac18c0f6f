"""One trace from the edge through inference to cache, safety and the engine, over real processes and real OTLP."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator

import httpx
import pytest
import pytest_asyncio

from tests.fakes.otlp_receiver import OtlpReceiver, ReceivedSpan
from tests.flow.conftest import Suite

DEADLINE_S = 30.0
SAFETY = "millrace.safety.v1.SafetyService"
CACHE = "millrace.cache.v1.CacheService"
INFERENCE = "millrace.inference.v1.InferenceService"


pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def receiver() -> AsyncIterator[OtlpReceiver]:
    """The collector that every service exports to."""
    made = OtlpReceiver()
    await made.start()
    yield made
    await made.stop()


@pytest.fixture(scope="module")
def variables(receiver: OtlpReceiver) -> dict[str, str]:
    names = ("EDGE", "INFERENCE", "CACHE", "SAFETY")
    soon = {"OTEL_BSP_SCHEDULE_DELAY": "200"}  # ms
    soon |= {f"MILLRACE_{name}_OTLP_METRICS_INTERVAL_S": "0.5" for name in names}
    return {f"MILLRACE_{name}_OTLP_ENDPOINT": receiver.endpoint for name in names} | soon


def traceparent() -> tuple[str, str, dict[str, str]]:
    """A fresh trace id and parent id, and the header that carries them."""
    trace_id, parent_id = secrets.token_hex(16), secrets.token_hex(8)
    return trace_id, parent_id, {"traceparent": f"00-{trace_id}-{parent_id}-01"}


def tree(spans: list[ReceivedSpan], root: str) -> dict[str, str]:
    """Each span with its parent, as `SERVICE NAME`; the caller's own span is `caller`."""
    labels = {span.span_id: span.label for span in spans} | {root: "caller"}
    return {span.label: labels[span.parent_id] for span in spans}


def body(model: str, stream: bool) -> dict[str, object]:
    """A question of its own, so that the cache never has it."""
    content = f"question {secrets.token_hex(4)}"
    return {"model": model, "stream": stream, "messages": [{"role": "user", "content": content}]}


async def test_stream_is_one_trace(suite: Suite, receiver: OtlpReceiver) -> None:
    """A streamed chat gives one tree: edge, inference, safety both ways, cache both ways, and the attempt."""
    trace_id, parent_id, headers = traceparent()
    async with httpx.AsyncClient(timeout=DEADLINE_S) as client:
        answer = await client.post(f"{suite.url}/v1/chat/completions", json=body("fake", True), headers=headers)
    assert answer.text.endswith("data: [DONE]\n\n")
    edge = "edge POST /v1/chat/completions"
    inference = f"inference {INFERENCE}/StreamGenerate"
    expected = {edge: "caller", f"edge {INFERENCE}/StreamGenerate": edge}
    expected |= {inference: f"edge {INFERENCE}/StreamGenerate", "inference chat fake": inference}
    expected |= {f"inference {step}": inference for step in ("route", "admit")}
    expected |= {f"inference {phase}": "inference chat fake" for phase in ("prefill", "decode")}
    for service, path, rpcs in (
        ("safety", SAFETY, ("CheckInput", "StreamCheckOutput")),
        ("cache", CACHE, ("Lookup", "Store")),
    ):
        expected |= {f"inference {path}/{rpc}": inference for rpc in rpcs}
        expected |= {f"{service} {path}/{rpc}": f"inference {path}/{rpc}" for rpc in rpcs}
    spans = await receiver.trace(trace_id, parent_id, *expected)
    assert tree(spans, parent_id) == expected
    assert not [one.label for one in spans if one.is_error]
    attempt = next(one for one in spans if one.name == "chat fake")
    assert attempt.attributes["gen_ai.request.model"] == "fake"
    assert attempt.attributes["gen_ai.usage.output_tokens"] == 10
    assert attempt.attributes["gen_ai.response.finish_reasons"] == ["stop"]


async def test_failure_is_recorded_where_it_happened(suite: Suite, receiver: OtlpReceiver) -> None:
    """A target that fails marks its attempt, inference and the edge as failed, and nothing else."""
    trace_id, parent_id, headers = traceparent()
    asked = body("fake-error-500", False)
    async with httpx.AsyncClient(timeout=DEADLINE_S) as client:
        answer = await client.post(f"{suite.url}/v1/chat/completions", json=asked, headers=headers)
    assert answer.status_code == 503
    failed = {
        "edge POST /v1/chat/completions",
        f"edge {INFERENCE}/Generate",
        f"inference {INFERENCE}/Generate",
        "inference chat fake-error-500",
    }
    healthy = {f"safety {SAFETY}/CheckInput", f"cache {CACHE}/Lookup"}
    spans = await receiver.trace(trace_id, parent_id, *failed, *healthy)
    given_up = f"inference {CACHE}/StoreStream"  # begun where the tries took long, for those who wait for the answer
    assert {one.label for one in spans if one.is_error} - {given_up} == failed


async def test_cancelled_call_is_recorded_as_such(suite: Suite, receiver: OtlpReceiver) -> None:
    """A caller that leaves mid-stream ends every span of the tree, marked as cancelled."""
    trace_id, parent_id, headers = traceparent()
    asked = body("fake-slow", True)
    async with httpx.AsyncClient(timeout=DEADLINE_S) as client:
        request = client.build_request("POST", f"{suite.url}/v1/chat/completions", json=asked, headers=headers)
        answer = await client.send(request, stream=True)
        await anext(answer.aiter_bytes())
        await answer.aclose()
    server, attempt = f"inference {INFERENCE}/StreamGenerate", "inference chat fake-slow"
    edge = "edge POST /v1/chat/completions"
    spans = await receiver.trace(trace_id, parent_id, edge, server, attempt, f"safety {SAFETY}/StreamCheckOutput")
    by_label = {one.label: one for one in spans}
    assert by_label[attempt].attributes["error.type"] == "cancelled"
    assert not by_label[attempt].is_error
    assert by_label[server].attributes["rpc.response.status_code"] == "CANCELLED"
    assert not any(one.label.endswith("/Store") for one in spans)


async def test_spans_hold_no_content(suite: Suite, receiver: OtlpReceiver) -> None:
    """No word of a prompt or of an answer is in any span."""
    trace_id, parent_id, headers = traceparent()
    asked = body("fake", True) | {"messages": [{"role": "user", "content": "zanzibar@example.com quokka"}]}
    async with httpx.AsyncClient(timeout=DEADLINE_S) as client:
        await client.post(f"{suite.url}/v1/chat/completions", json=asked, headers=headers)
    everywhere = [f"cache {CACHE}/Store", f"safety {SAFETY}/StreamCheckOutput", "edge POST /v1/chat/completions"]
    spans = await receiver.trace(trace_id, parent_id, "inference chat fake", *everywhere)
    assert not [word for word in ("zanzibar", "quokka", "jumps") if word in repr(spans)]


async def test_one_request_is_told_by_traces_metrics_and_logs(suite: Suite, receiver: OtlpReceiver) -> None:
    """Its spans, the example of a latency bucket and the log of what went wrong carry one trace id."""
    trace_id, parent_id, headers = traceparent()
    async with httpx.AsyncClient(timeout=DEADLINE_S) as client:
        for _ in range(6):  # until the breaker opens, which is logged
            asked = body("fake-error-502", False)
            await client.post(f"{suite.url}/v1/chat/completions", json=asked, headers=headers)

    def examples() -> set[str]:
        metric = receiver.metrics.get("gen_ai_server_request_duration_seconds")
        points = metric.histogram.data_points if metric else ()
        return {one.trace_id.hex() for point in points for one in point.exemplars}

    def said() -> set[tuple[str, str]]:
        return {(record.body.string_value, record.trace_id.hex()) for record in receiver.logs}

    await receiver.trace(trace_id, parent_id, "inference chat fake-error-502")
    await receiver.until(lambda: trace_id in examples())
    await receiver.until(lambda: ("target is left alone", trace_id) in said())


async def test_nothing_that_is_exported_holds_content(suite: Suite, receiver: OtlpReceiver) -> None:
    """No prompt, answer, key or personal datum is in any span, log line or metric that was exported."""
    secret, text = (
        "sk-" + secrets.token_hex(20),
        "zanzibar quokka, write to ann.example@mail.example or 4111111111111111",
    )
    async with httpx.AsyncClient(timeout=DEADLINE_S) as client:
        for model, stream in (("fake", True), ("fake", False), ("fake-error-500", False), ("no-such-model", False)):
            asked = body(model, stream) | {"messages": [{"role": "user", "content": text}], "user": "ann"}
            trace_id, parent_id, headers = traceparent()
            shown = headers | {"authorization": f"Bearer {secret}"}
            await client.post(f"{suite.url}/v1/chat/completions", json=asked, headers=shown)
            await receiver.trace(trace_id, parent_id, "edge POST /v1/chat/completions")
    count = len(receiver.exports)
    await receiver.until(lambda: len(receiver.exports) > count + 8)  # a further round of every service
    everything = b"".join(receiver.exports)
    hidden = (secret, "zanzibar", "quokka", "ann.example", "4111111111111111", "quick brown", "jumps")
    assert [word for word in hidden if word.encode() in everything] == []
