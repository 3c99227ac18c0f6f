"""What the edge asks for again, where a replica of inference is lost, is done once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest

from kit.dial import REPLICA_WAITS_S
from kit.errors import Unavailable
from millrace.inference.v1 import job_pb2, job_service_pb2
from millrace.inference.v1.job_service_pb2_grpc import JobServiceServicer, add_JobServiceServicer_to_server
from services.edge import inference_client
from services.edge.exchange import Exchange
from services.edge.jobs.job_client import JobClient

LIMIT_S = 5.0
FOLLOW_TRIES = 1 + len(REPLICA_WAITS_S)
SCOPE = {"method": "POST", "path": "/chat-async", "scheme": "http", "query_string": b"", "headers": []}


class Jobs(JobServiceServicer):
    """Accepts jobs, and tells some steps of one at a time; as many of its answers are lost on their way."""

    def __init__(self, lost_count: int = 1, told_count: int = 2) -> None:
        self._lost_count, self._told_count = lost_count, told_count
        self.request_ids: list[str] = []
        self.told_after: list[int] = []

    async def CreateJob(self, request: job_service_pb2.CreateJobRequest, context: Any) -> Any:
        self.request_ids.append(request.request_id)
        if len(self.request_ids) <= self._lost_count:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "Socket closed")
        return job_service_pb2.CreateJobResponse(job=job_pb2.Job(job_id=request.request_id))

    async def StreamJob(self, request: job_service_pb2.StreamJobRequest, context: Any) -> AsyncIterator[Any]:
        self.told_after.append(request.after_sequence)
        for step in range(self._told_count):
            yield job_service_pb2.StreamJobResponse(sequence=request.after_sequence + step + 1)
        if len(self.told_after) <= self._lost_count:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "Socket closed")


@asynccontextmanager
async def client_of(jobs: Jobs) -> AsyncIterator[JobClient]:
    """A client of a server of them."""
    server = grpc.aio.server()
    add_JobServiceServicer_to_server(jobs, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield JobClient(channel, 30.0)
    finally:
        await server.stop(None)


def asked() -> Exchange:
    """A request whose client stays."""
    exchange = Exchange(SCOPE, asyncio.Event().wait, None)  # type: ignore[arg-type]
    exchange.timeout_s = 30.0
    return exchange


async def test_a_job_that_is_asked_for_again_is_the_same() -> None:
    """Both tries name one request, by which inference knows the job; another job has another name."""
    jobs = Jobs()  # type: ignore[abstract]
    async with client_of(jobs) as client:
        for _ in range(2):
            made = await client.create_job(asked(), job_pb2.JobWork(), job_service_pb2.JobOptions())
            assert made.job_id == jobs.request_ids[-1]

    first, second, other = jobs.request_ids
    assert first
    assert first == second != other


async def test_nobody_is_asked_when_time_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """A wait that would outlast the request is not begun: the loss is told at once."""
    monkeypatch.setattr(inference_client, "REPLICA_WAITS_S", (60.0,))
    jobs = Jobs()  # type: ignore[abstract]
    async with client_of(jobs) as client, asyncio.timeout(LIMIT_S):
        with pytest.raises(Unavailable):
            await client.create_job(asked(), job_pb2.JobWork(), job_service_pb2.JobOptions())

    assert len(jobs.request_ids) == 1


async def test_the_rest_of_a_job_is_told_by_another() -> None:
    """Each step is told once, in its order, however many go away one after another."""
    jobs = Jobs(lost_count=FOLLOW_TRIES + 1)  # type: ignore[abstract]
    async with client_of(jobs) as client:
        told = [event.sequence async for event in client.follow_job(asked(), "one")]

    assert told == list(range(1, 2 * (FOLLOW_TRIES + 2) + 1))
    assert jobs.told_after == [2 * number for number in range(FOLLOW_TRIES + 2)]


async def test_following_ends_where_all_go_away() -> None:
    """The last failure is told, where nobody told anything."""
    jobs = Jobs(lost_count=FOLLOW_TRIES, told_count=0)  # type: ignore[abstract]
    async with client_of(jobs) as client:
        with pytest.raises(Unavailable):
            async for _ in client.follow_job(asked(), "one"):
                pass

    assert len(jobs.told_after) == FOLLOW_TRIES
