"""Services of the contract that come later say so, over the wire, with a reason that programs can read."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest

from kit import telemetry
from kit.config import ServeSettings
from kit.dial import dial
from kit.errors import Code, MillraceError
from kit.serve import Registration, Server
from kit.status import from_rpc_error
from millrace.inference.v1 import job_service_pb2, job_service_pb2_grpc
from services.inference.later import JobServicer

JOBS = job_service_pb2.DESCRIPTOR.services_by_name["JobService"]
METHODS = list(JOBS.methods)


@pytest.fixture
async def channel() -> AsyncIterator[grpc.aio.Channel]:
    """A server with the service."""
    registrations = [Registration(JOBS.full_name, job_service_pb2_grpc.add_JobServiceServicer_to_server, JobServicer())]
    server = Server("later", ServeSettings(port=0), registrations, telemetry.off())
    port = await server.start()
    server.set_serving("", True)
    async with dial(f"127.0.0.1:{port}") as made:
        yield made
    await server.stop(0)


async def ask(channel: grpc.aio.Channel, method: Any) -> MillraceError:
    """The error that an empty request ends with."""
    request = getattr(job_service_pb2, method.input_type.name)()
    asked = iter([request]) if method.client_streaming else request
    call = getattr(job_service_pb2_grpc.JobServiceStub(channel), method.name)(asked, timeout=5)
    try:
        answer = [one async for one in call] if method.server_streaming else await call
    except grpc.aio.AioRpcError as error:
        return from_rpc_error(error)
    raise AssertionError(f"{method.full_name} answered {answer}")


@pytest.mark.parametrize("method", METHODS, ids=[method.name for method in METHODS])
async def test_what_comes_later_says_so(channel: grpc.aio.Channel, method: Any) -> None:
    """Every method of the contract, those that stream included."""
    error = await ask(channel, method)

    assert error.code is Code.UNIMPLEMENTED
    assert error.reason == "JOBS_NOT_AVAILABLE"
    assert "not served yet" in error.message
