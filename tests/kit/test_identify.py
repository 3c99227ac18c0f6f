"""What finds out who calls, in front of every method of a service and of reflection."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from opentelemetry.trace import SpanKind

from kit import names, telemetry
from kit.config import ServeSettings
from kit.dial import dial
from kit.errors import Unauthenticated
from kit.identity import CallContext, Caller
from kit.serve import Server
from kit.status import from_rpc_error
from tests.fakes.echo_service import KINDS, NAME, EchoService, collect, start
from tests.fakes.span_sink import SpanSink

asked: list[str] = []


async def identify(method: str, context: CallContext, call: Any) -> CallContext:
    """Lets in whoever names itself, as a member of one tenant."""
    asked.append(method)
    shown = dict(call.invocation_metadata()).get("x-name")
    if shown is None:
        raise Unauthenticated("WHO_ARE_YOU", "name yourself")
    return replace(context, tenant="acme", principal=shown, caller=Caller(shown, "acme", "user"))


@pytest.fixture
async def door(sink: SpanSink) -> AsyncIterator[tuple[EchoService, Any]]:
    """A service that asks who calls."""
    asked.clear()
    settings = ServeSettings(port=0)
    service = EchoService()
    registration = replace(service.registration, identify=identify)
    server = Server("echo", settings, [registration], telemetry.setup("echo", settings, exporter=sink))
    port = await server.start()
    server.set_serving("", True)
    async with dial(f"127.0.0.1:{port}") as channel:
        yield service, channel
    await server.stop(0)


@pytest.mark.parametrize("kind", KINDS)
async def test_a_call_is_whose_the_service_finds_it_to_be(
    door: tuple[EchoService, Any], sink: SpanSink, kind: str
) -> None:
    """Whatever the metadata says: handler, log and span know the tenant that was found out."""
    service, channel = door
    metadata = [("x-name", "ada"), ("x-millrace-tenant", "victim")]
    await collect(start(channel, kind, b"ok", metadata=metadata))
    span = await sink.one(SpanKind.SERVER)

    assert asked == [f"{NAME}/{kind}"]
    assert {(one.tenant, one.principal, one.caller.role) for one in service.contexts} == {("acme", "ada", "user")}
    assert span.attributes is not None
    assert span.attributes[names.TENANT] == "acme"


@pytest.mark.parametrize("kind", KINDS)
async def test_a_call_that_is_refused_never_reaches_its_handler(
    door: tuple[EchoService, Any], sink: SpanSink, kind: str
) -> None:
    """The caller gets the reason, and the span has it."""
    service, channel = door
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await collect(start(channel, kind, b"ok"))
    span = await sink.one(SpanKind.SERVER)

    assert from_rpc_error(caught.value).reason == "WHO_ARE_YOU"
    assert service.contexts == []
    assert json.loads(span.to_json())["attributes"][names.ERROR_REASON] == "WHO_ARE_YOU"


async def test_reflection_is_behind_the_same_question_and_health_is_not(door: tuple[EchoService, Any]) -> None:
    """A balancer has no credential; who wants to see the contracts shows one."""
    _, channel = door
    answer = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(service=NAME))  # type: ignore[misc]

    async def reflect(*metadata: tuple[str, str]) -> list[str]:
        stub: Any = reflection_pb2_grpc.ServerReflectionStub(channel)
        request = reflection_pb2.ServerReflectionRequest(list_services="")
        answers = [one async for one in stub.ServerReflectionInfo(iter([request]), metadata=metadata)]
        return [one.name for one in answers[0].list_services_response.service]

    assert answer.status == health_pb2.HealthCheckResponse.SERVING
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await reflect()
    assert from_rpc_error(caught.value).reason == "WHO_ARE_YOU"
    assert NAME in await reflect(("x-name", "ada"))
