"""Services of the contract whose capability comes later: every call says so, with a reason that programs can read."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from kit.errors import Unimplemented
from millrace.inference.v1 import job_service_pb2_grpc


async def _no_jobs(self: Any, request: Any, context: Any) -> Any:
    raise Unimplemented("JOBS_NOT_AVAILABLE", "jobs are not served yet; use BatchGenerate for up to 100 prompts")


async def _no_job_stream(self: Any, request: Any, context: Any) -> AsyncIterator[Any]:
    raise Unimplemented("JOBS_NOT_AVAILABLE", "jobs are not served yet; use StreamGenerate")
    yield


class JobServicer(job_service_pb2_grpc.JobServiceServicer):
    """Not served yet."""

    CreateJob = UploadJob = GetJob = ListJobs = CancelJob = DeleteJob = _no_jobs
    ReadJob = StreamJob = _no_job_stream
