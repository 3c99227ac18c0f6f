"""SIGTERM during a stream: the stream ends well, new calls are refused, the process exits by itself."""

from __future__ import annotations

import asyncio
import signal

import grpc
import httpx
import pytest

from millrace.inference.v1 import generation_pb2, inference_service_pb2, inference_service_pb2_grpc
from tests.flow.conftest import Suite

EXIT_S = 15.0
# The second is what grpc itself answers to a call that meets a closing server.
REFUSALS = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED}


pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.mark.parametrize("service", ["edge", "inference"])
async def test_stream_survives_sigterm(suite: Suite, service: str) -> None:
    """A stream that has begun is finished within the grace; the process then exits with 0."""
    asked = {"model": "fake-slow", "stream": True, "messages": [{"role": "user", "content": "hi"}]}
    async with (
        httpx.AsyncClient(timeout=30) as client,
        client.stream("POST", f"{suite.url}/v1/chat/completions", json=asked) as answer,
    ):
        parts = answer.aiter_text()
        text = await anext(parts)
        await suite.signal(service, signal.SIGTERM)
        async with asyncio.timeout(EXIT_S):
            while await ready(suite) == 200:  # noqa: ASYNC110 - another process is watched
                await asyncio.sleep(0.02)
        text += "".join([part async for part in parts])
    assert text.endswith("data: [DONE]\n\n")
    async with asyncio.timeout(EXIT_S):
        assert await suite.processes.pop(service).wait() == 0
    await suite.start(service)


async def ready(suite: Suite) -> int:
    """What /readyz says; 0 where nobody listens."""
    async with httpx.AsyncClient(timeout=5) as client:
        try:
            return (await client.get(f"{suite.url}/readyz")).status_code
        except httpx.HTTPError:
            return 0


async def test_draining_inference_refuses_new_calls(suite: Suite) -> None:
    """While a stream is finished, a new call is refused at once."""
    message = generation_pb2.Message(role=generation_pb2.ROLE_USER, parts=[generation_pb2.ContentPart(text="hi")])
    spec = generation_pb2.GenerationSpec(
        model="fake-slow", conversation=generation_pb2.Conversation(messages=[message])
    )
    async with grpc.aio.insecure_channel(suite.address("inference")) as channel:
        stub = inference_service_pb2_grpc.InferenceServiceStub(channel)
        stream = stub.StreamGenerate(inference_service_pb2.StreamGenerateRequest(spec=spec))
        events = aiter(stream)
        await anext(events)
        await suite.signal("inference", signal.SIGTERM)
        assert await refusal(stub) in REFUSALS
        last = [event async for event in events][-1]
    assert last.WhichOneof("event") == "completed"


async def refusal(stub: inference_service_pb2_grpc.InferenceServiceStub) -> grpc.StatusCode:
    """The status with which a new call is refused, as soon as one is."""
    async with asyncio.timeout(EXIT_S):
        while True:
            try:
                await stub.ListModels(inference_service_pb2.ListModelsRequest())
            except grpc.aio.AioRpcError as error:
                return error.code()
