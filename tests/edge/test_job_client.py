"""What the edge asks for again, where a replica of inference is lost, is done once."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc

from millrace.inference.v1 import job_pb2, job_service_pb2
from millrace.inference.v1.job_service_pb2_grpc import JobServiceServicer, add_JobServiceServicer_to_server
from services.edge.exchange import Exchange
from services.edge.jobs.job_client import JobClient

SCOPE = {"method": "POST", "path": "/chat-async", "scheme": "http", "query_string": b"", "headers": []}


class Jobs(JobServiceServicer):
    """Accepts jobs; its first answer is lost on its way."""

    def __init__(self) -> None:
        self.request_ids: list[str] = []

    async def CreateJob(self, request: job_service_pb2.CreateJobRequest, context: Any) -> Any:
        self.request_ids.append(request.request_id)
        if len(self.request_ids) == 1:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "Socket closed")
        return job_service_pb2.CreateJobResponse(job=job_pb2.Job(job_id=request.request_id))


async def test_a_job_that_is_asked_for_again_is_the_same() -> None:
    """Both tries name one request, by which inference knows the job; another job has another name."""
    jobs, server = Jobs(), grpc.aio.server()  # type: ignore[abstract]
    add_JobServiceServicer_to_server(jobs, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            for _ in range(2):
                exchange = Exchange(SCOPE, asyncio.Event().wait, None)  # type: ignore[arg-type]
                exchange.timeout_s = 30.0
                made = await JobClient(channel, 30.0).create_job(
                    exchange, job_pb2.JobWork(), job_service_pb2.JobOptions()
                )
                assert made.job_id == jobs.request_ids[-1]
    finally:
        await server.stop(None)

    first, second, other = jobs.request_ids
    assert first
    assert first == second != other
