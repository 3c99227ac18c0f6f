"""Jobs and files of the edge's one peer, on behalf of HTTP requests."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import suppress
from typing import Any

import grpc

from kit.dial import REPLICA_WAITS_S
from kit.errors import MillraceError, Unavailable
from kit.identity import new_request_id
from millrace.inference.v1 import file_service_pb2, job_pb2, job_service_pb2, stored_file_pb2
from millrace.inference.v1.file_service_pb2_grpc import FileServiceStub
from millrace.inference.v1.job_service_pb2_grpc import JobServiceStub
from services.edge.credentials import metadata_of
from services.edge.exchange import Exchange
from services.edge.fault import Fault
from services.edge.inference_client import EventStream, InferenceClient, failure, is_lost, time_left_s

CHUNK_BYTES = 1 << 20
_CUT = "Internal error from Core"  # what grpc says where the peer ends a call while it is written
ABANDON_S = 5.0
ITEM_COUNT = 100  # to a piece of an upload


class JobClient(InferenceClient):
    """Calls inference for what the other client calls it for, and for jobs and files."""

    def __init__(self, channel: grpc.aio.Channel, heartbeat_s: float) -> None:
        super().__init__(channel, heartbeat_s)
        self._jobs: Any = JobServiceStub(channel)
        self._files: Any = FileServiceStub(channel)

    async def create_job(
        self, exchange: Exchange, work: job_pb2.JobWork, options: job_service_pb2.JobOptions
    ) -> job_pb2.Job:
        """Has one item done."""
        # By its id a job that is asked for again, of another replica, is the same one.
        request = job_service_pb2.CreateJobRequest(request_id=new_request_id(), items=[work], options=options)
        answer: job_service_pb2.CreateJobResponse = await self._call(exchange, self._jobs.CreateJob, request)
        return answer.job

    async def upload_job(
        self, exchange: Exchange, works: Sequence[job_pb2.JobWork], options: job_service_pb2.JobOptions
    ) -> job_pb2.Job:
        """Has many items done."""

        async def pieces() -> AsyncIterator[job_service_pb2.UploadJobRequest]:
            head = job_service_pb2.UploadJobRequest(options=options)
            for start in range(0, len(works), ITEM_COUNT):
                head.items.extend(works[start : start + ITEM_COUNT])
                yield head
                head = job_service_pb2.UploadJobRequest()

        answer: job_service_pb2.UploadJobResponse = await self._upload(exchange, self._jobs.UploadJob, pieces())
        return answer.job

    async def job(self, exchange: Exchange, job_id: str, kind: str, what: str, param: str = "") -> job_pb2.Job:
        """Gets a job of a kind; `param` says where its id was given, if not in the path.

        Raises:
            Fault: 404, in the caller's word for it: it has no such job.
        """
        request = job_service_pb2.GetJobRequest(job_id=job_id)
        try:
            answer: job_service_pb2.GetJobResponse = await self._call(exchange, self._jobs.GetJob, request)
        except MillraceError as error:
            if error.reason != "JOB_NOT_FOUND":
                raise
        else:
            if answer.job.kind == kind:
                return answer.job
        message = f"There is no such {what} of yours."
        raise Fault(404, message, param=param or f"{what}_id", code=f"{what}_not_found")

    async def jobs(self, exchange: Exchange, kind: str, limit: int, after: str) -> job_service_pb2.ListJobsResponse:
        """Lists jobs of a kind."""
        request = job_service_pb2.ListJobsRequest(page_size=limit, page_token=after, kind=kind)
        return await self._call(exchange, self._jobs.ListJobs, request)

    async def cancel_job(self, exchange: Exchange, job_id: str) -> job_pb2.Job:
        """Cancels a job."""
        request = job_service_pb2.CancelJobRequest(job_id=job_id)
        answer: job_service_pb2.CancelJobResponse = await self._call(exchange, self._jobs.CancelJob, request)
        return answer.job

    async def abandon_job(self, exchange: Exchange, job_id: str) -> None:
        """Cancels a job whose client has left; should that fail it goes on to its end."""
        request = job_service_pb2.CancelJobRequest(job_id=job_id)
        with suppress(grpc.aio.AioRpcError):
            await self._jobs.CancelJob(request, timeout=ABANDON_S, metadata=metadata_of(exchange))

    async def delete_job(self, exchange: Exchange, job_id: str) -> None:
        """Forgets a job."""
        await self._call(exchange, self._jobs.DeleteJob, job_service_pb2.DeleteJobRequest(job_id=job_id))

    async def items(
        self, exchange: Exchange, job_id: str, states: Sequence[job_pb2.JobState] = ()
    ) -> AsyncIterator[job_pb2.JobItem]:
        """Reads the items of a job."""
        request = job_service_pb2.ReadJobRequest(job_id=job_id, states=states)
        async with self._events(exchange, self._jobs.ReadJob, request) as pages:
            async for page in pages:
                for item in page.items:
                    yield item

    async def first_item(self, exchange: Exchange, job_id: str) -> job_pb2.JobItem:
        """Reads the one item of a job that has one."""
        found = [item async for item in self.items(exchange, job_id)]
        return found[0]

    async def follow_job(
        self, exchange: Exchange, job_id: str
    ) -> AsyncGenerator[job_service_pb2.StreamJobResponse, None]:
        """Follows a job to its end. Where the replica that tells of it goes away, another one tells the rest."""
        seen, lost_count = 0, 0  # a job outlives the replicas that tell of it, one after another
        while True:
            request = job_service_pb2.StreamJobRequest(job_id=job_id, after_sequence=seen)
            try:
                async with self._events(exchange, self._jobs.StreamJob, request) as events:
                    async for event in events:
                        seen, lost_count = event.sequence, 0
                        yield event
                return
            except MillraceError as error:
                if lost_count == len(REPLICA_WAITS_S) or not is_lost(error):
                    raise
            await asyncio.sleep(REPLICA_WAITS_S[lost_count])
            lost_count += 1

    async def upload_file(
        self, exchange: Exchange, head: file_service_pb2.UploadFileRequest, chunks: AsyncIterator[bytes]
    ) -> stored_file_pb2.StoredFile:
        """Keeps a file."""
        # A call that is refused while it is written loses its reason (grpc 1.85): so ask first whether it may be made.
        await self.files(exchange, "", 1, "")

        async def pieces() -> AsyncIterator[file_service_pb2.UploadFileRequest]:
            yield head
            async for chunk in chunks:
                yield file_service_pb2.UploadFileRequest(data=chunk)

        answer: file_service_pb2.UploadFileResponse = await self._upload(exchange, self._files.UploadFile, pieces())
        return answer.file

    async def file(self, exchange: Exchange, file_id: str) -> stored_file_pb2.StoredFile:
        """Gets what is known of a file."""
        request = file_service_pb2.GetFileRequest(file_id=file_id)
        answer: file_service_pb2.GetFileResponse = await self._call(exchange, self._files.GetFile, request)
        return answer.file

    async def files(
        self, exchange: Exchange, purpose: str, limit: int, after: str, *, oldest_first: bool = False
    ) -> file_service_pb2.ListFilesResponse:
        """Lists files."""
        request = file_service_pb2.ListFilesRequest(
            page_size=limit, page_token=after, purpose=purpose, oldest_first=oldest_first
        )
        return await self._call(exchange, self._files.ListFiles, request)

    async def read_file(self, exchange: Exchange, file_id: str) -> AsyncIterator[bytes]:
        """Reads a file."""
        request = file_service_pb2.ReadFileRequest(file_id=file_id)
        async with self._events(exchange, self._files.ReadFile, request) as pieces:
            async for piece in pieces:
                yield piece.data

    async def delete_file(self, exchange: Exchange, file_id: str) -> None:
        """Forgets a file."""
        await self._call(exchange, self._files.DeleteFile, file_service_pb2.DeleteFileRequest(file_id=file_id))

    def _events(self, exchange: Exchange, method: Any, request: object) -> Any:
        timeout_s, metadata = time_left_s(exchange), metadata_of(exchange)
        return EventStream(exchange, lambda: method(request, timeout=timeout_s, metadata=metadata), self._heartbeat_s)

    async def _upload(self, exchange: Exchange, method: Any, pieces: AsyncIterator[object]) -> Any:
        """Sends pieces, as fast as they are taken, and returns the answer to them all."""
        call = method(timeout=time_left_s(exchange), metadata=metadata_of(exchange))
        try:
            with suppress(asyncio.InvalidStateError):  # refused before it was whole: the answer says why
                async for piece in pieces:
                    await call.write(piece)
                await call.done_writing()
            return await call
        except grpc.aio.AioRpcError as error:
            if error.details() == _CUT:
                raise Unavailable("UPLOAD_CUT", "the upload was cut; send it again") from error
            raise failure(exchange, error) from error
        finally:
            call.cancel()
