"""JobService: translate in, call, translate out. It decides nothing but how much a caller may send."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from typing import Any

from kit import identity
from kit.errors import InvalidArgument
from kit.identity import Caller
from millrace.inference.v1 import job_pb2, job_service_pb2_grpc
from millrace.inference.v1 import job_service_pb2 as pb2
from services.inference import limits, translate
from services.inference.access.permission import check_method, check_model, check_named, check_route
from services.inference.jobs import job_wire
from services.inference.jobs.job import JobEvent, NewItem, NewJob, State
from services.inference.jobs.job_store import ALL_STATES, JobStore
from services.inference.jobs.queue import Queue
from services.inference.jobs.worker import Workers
from services.inference.routing.router import Router
from services.inference.translate import seconds

CREATE_COUNT_MAX = 100
UPLOAD_COUNT_MAX = 50_000  # OpenAI's bound of a batch
UPLOAD_BYTES_MAX = 256 << 20  # all of it is in memory until it is whole
ATTACHMENT_BYTES_MAX = 1 << 20
EVENT_COUNT = 200  # to a page
FOLLOW_POLL_S = 0.1  # as often as workers tell
KIND = re.compile(r"[a-z0-9_.-]{1,64}")
TIME_MAX_S = 7 * 24 * 3600.0
TIME_DEFAULT_S = 24 * 3600.0


class JobServicer(job_service_pb2_grpc.JobServiceServicer):
    """Serves the jobs of one store.

    Args:
        store: Keeps them.
        queue: Tells workers of them.
        workers: Those of this process.
        router: Knows the models.
    """

    def __init__(self, store: JobStore, queue: Queue, workers: Workers, router: Router) -> None:
        self._store, self._queue, self._workers, self._router = store, queue, workers, router

    async def CreateJob(self, request: pb2.CreateJobRequest, context: Any) -> pb2.CreateJobResponse:
        """Accepts a job."""
        if not 1 <= len(request.items) <= CREATE_COUNT_MAX:
            raise InvalidArgument("items", f"must have 1 to {CREATE_COUNT_MAX} items; more go through UploadJob")
        given = [_new_item(one, index) for index, one in enumerate(request.items)]
        if len(request.items) == 1:
            self._check_model(request.items[0])
        return pb2.CreateJobResponse(job=await self._accept(request.request_id, request.options, given))

    def _check_model(self, work: job_pb2.JobWork) -> None:
        """Refuses what no try could do: a model that is unknown, or out of the caller's scope."""
        call = identity.current()
        with self._router.hold():
            if work.HasField("generation"):
                asked = translate.request(work.generation, call, call.request_id, streamed=False)
                check_named(asked)
                check_route(asked, self._router.choose(asked))
            elif work.HasField("embedding"):
                check_model(call.caller, [work.embedding.model])
                self._router.choose_embedding(work.embedding.model)

    async def UploadJob(self, requests: AsyncIterator[pb2.UploadJobRequest], context: Any) -> pb2.UploadJobResponse:
        """Accepts a job of many items."""
        given: list[NewItem] = []
        first, size = None, 0
        async for piece in requests:
            first = first or piece
            size += piece.ByteSize()
            if len(given) + len(piece.items) > UPLOAD_COUNT_MAX:
                raise InvalidArgument("items", f"must have at most {UPLOAD_COUNT_MAX} items over all pieces")
            if size > UPLOAD_BYTES_MAX:
                raise InvalidArgument("items", f"must have at most {UPLOAD_BYTES_MAX} bytes over all pieces")
            given += [_uploaded(one, len(given) + index) for index, one in enumerate(piece.items)]
        if first is None or not given:
            raise InvalidArgument("items", "must have at least 1 item")
        return pb2.UploadJobResponse(job=await self._accept(first.request_id, first.options, given))

    async def _accept(self, request_id: str, options: pb2.JobOptions, given: Sequence[NewItem]) -> job_pb2.Job:
        if options.keep_events and len(given) > CREATE_COUNT_MAX:
            raise InvalidArgument("options.keep_events", f"is for jobs of up to {CREATE_COUNT_MAX} items")
        # Only an id that was given for this makes two calls one: a call's own may come again with something else.
        request_id = limits.check_request_id(request_id, identity.new_request_id())
        new = _new_job(request_id, options)
        made = await self._store.create(new, given)
        await self._queue.announce(len(given))
        return job_wire.job(made)

    async def GetJob(self, request: pb2.GetJobRequest, context: Any) -> pb2.GetJobResponse:
        """Gets a job."""
        return pb2.GetJobResponse(job=job_wire.job(await self._store.get(me(), request.job_id)))

    async def ListJobs(self, request: pb2.ListJobsRequest, context: Any) -> pb2.ListJobsResponse:
        """Lists the caller's jobs."""
        count = page_size(request.page_size)
        found = await self._store.page(me(), request.kind, count + 1, request.page_token)
        token = found[count - 1].job_id if len(found) > count else ""
        return pb2.ListJobsResponse(jobs=[job_wire.job(one) for one in found[:count]], next_page_token=token)

    async def ReadJob(self, request: pb2.ReadJobRequest, context: Any) -> AsyncIterator[pb2.ReadJobResponse]:
        """Gets the items of a job."""
        try:
            states = [State(one) for one in request.states] or ALL_STATES
        except ValueError:
            raise InvalidArgument("states", "must be states of the contract") from None
        async for page in self._store.read(me(), request.job_id, max(0, request.start_index), states):
            yield pb2.ReadJobResponse(items=[job_wire.item(one) for one in page])

    async def CancelJob(self, request: pb2.CancelJobRequest, context: Any) -> pb2.CancelJobResponse:
        """Cancels a job."""
        made = await self._store.cancel(me(), request.job_id)
        self._workers.cancel(made.job_id)
        return pb2.CancelJobResponse(job=job_wire.job(made))

    async def DeleteJob(self, request: pb2.DeleteJobRequest, context: Any) -> pb2.DeleteJobResponse:
        """Forgets a job."""
        await self._store.delete(me(), request.job_id)
        self._workers.cancel(request.job_id)
        return pb2.DeleteJobResponse()

    async def StreamJob(self, request: pb2.StreamJobRequest, context: Any) -> AsyncIterator[pb2.StreamJobResponse]:
        """Follows a job until it ends."""
        after = request.after_sequence
        if after < 0:
            raise InvalidArgument("after_sequence", "must not be negative")
        while True:
            made = await self._store.get(me(), request.job_id)  # before the events: its last one is then among them
            happened = await self._store.events(made.job_id, after, EVENT_COUNT)
            for event in happened:
                yield await self._told(made.job_id, event)
                after = event.sequence
            if len(happened) == EVENT_COUNT:
                continue
            if made.state.is_ended:
                return
            await asyncio.sleep(FOLLOW_POLL_S)

    async def _told(self, job_id: str, event: JobEvent) -> pb2.StreamJobResponse:
        if event.payload is not None:
            return job_wire.step(event)
        if event.index is None:
            ended = job_wire.job(await self._store.get(me(), job_id))
            return pb2.StreamJobResponse(sequence=event.sequence, ended_job=ended)
        kept = await self._store.item(job_id, event.index)
        ended_item = None if kept is None else job_wire.item(kept)
        return pb2.StreamJobResponse(sequence=event.sequence, item_index=event.index, ended_item=ended_item)


def me() -> Caller:
    """Who calls, under the tenant and the principal that the call goes by."""
    call = identity.current()
    return replace(call.caller, tenant=call.tenant, principal=call.principal)


def page_size(asked: int) -> int:
    """The rows of a page.

    Raises:
        InvalidArgument: Too many are asked for, or less than none.
    """
    if not 0 <= asked <= 100:
        raise InvalidArgument("page_size", f"must be 0 to 100; it is {asked}")
    return asked or 20


def _new_job(request_id: str, options: pb2.JobOptions) -> NewJob:
    kind = options.kind or "job"
    if not KIND.fullmatch(kind):
        raise InvalidArgument("options.kind", "must be 1 to 64 of a to z, 0 to 9, _, . and -")
    if len(options.labels) > 32:
        raise InvalidArgument("options.labels", f"must have at most 32 entries; it has {len(options.labels)}")
    for key, value in options.labels.items():
        if not 1 <= len(key) <= 128 or len(value) > 512 or "\0" in key + value:
            raise InvalidArgument(
                "options.labels", "must have keys of 1 to 128 and values of up to 512 characters, none of them NUL"
            )
    time_max_s = seconds(options.time_max) if options.HasField("time_max") else TIME_DEFAULT_S
    if not 1 <= time_max_s <= TIME_MAX_S:
        raise InvalidArgument("options.time_max", "must be 1 s to 7 days")
    return NewJob(request_id, me(), kind, dict(options.labels), time_max_s, options.keep_events)


def _uploaded(work: job_pb2.JobWork, index: int) -> NewItem:
    """An item among many: one that breaks a limit fails by itself, and does not take the others with it."""
    label, attachment = work.label, work.attachment
    try:
        return _new_item(work, index, "spec")
    except InvalidArgument as error:
        if error.field_violations[0].field.startswith("items["):
            raise
        return NewItem(label, b"", attachment, job_wire.refused(error))


def _new_item(work: job_pb2.JobWork, index: int, spec_at: str = "") -> NewItem:
    at = f"items[{index}]"
    if len(work.label) > 512 or "\0" in work.label:
        raise InvalidArgument(f"{at}.label", "must have at most 512 characters, none of them NUL")
    if len(work.attachment) > ATTACHMENT_BYTES_MAX:
        raise InvalidArgument(f"{at}.attachment", f"must have at most {ATTACHMENT_BYTES_MAX} bytes")
    attachment, work.attachment = work.attachment, b""
    kind = work.WhichOneof("work")
    if kind == "generation":
        check_method(me(), "generate")
        limits.check_spec(work.generation, spec_at or f"{at}.generation")
    elif kind == "embedding":
        check_method(me(), "embed")
        limits.check_texts(work.embedding.texts, 2_048, 1)
    elif kind == "refused":
        return NewItem(work.label, b"", attachment, job_pb2.JobItem(error=work.refused).SerializeToString())
    else:
        raise InvalidArgument(at, "must ask for a generation or an embedding")
    return NewItem(work.label, work.SerializeToString(), attachment)
