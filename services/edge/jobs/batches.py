"""OpenAI's /v1/batches: a file of requests, answered within a day; `batch_file` knows its lines."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from msgspec import UNSET, Meta, Struct, UnsetType

from kit.errors import NotFound
from millrace.inference.v1 import job_pb2, job_service_pb2
from services.edge import query
from services.edge.exchange import Exchange
from services.edge.fault import Fault
from services.edge.jobs import batch_file
from services.edge.jobs.files import KIND, batch_of
from services.edge.jobs.identifiers import BATCH, ERRORS, FILE, OUTPUT, bare
from services.edge.jobs.job_client import JobClient

Status = Literal["in_progress", "completed", "expired", "cancelling", "cancelled"]
Metadata = Annotated[
    dict[Annotated[str, Meta(min_length=1, max_length=64)], Annotated[str, Meta(max_length=512)]], Meta(max_length=16)
]

WINDOW_S = 24 * 3600
METADATA = "metadata."
REFUSED = {"output_expires_after": "files of a batch are kept as long as the batch."}
_ENDED: dict[int, Status] = {
    job_pb2.JOB_STATE_COMPLETED: "completed",
    job_pb2.JOB_STATE_CANCELLED: "cancelled",
    job_pb2.JOB_STATE_EXPIRED: "expired",
}


class NewBatch(Struct, forbid_unknown_fields=True):
    """Asks for the answers to a file of requests."""

    input_file_id: Annotated[str, Meta(min_length=1, max_length=64)]
    endpoint: Literal["/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/responses"]
    completion_window: Literal["24h"]
    metadata: Metadata | None = None


class RequestCounts(Struct):
    """How far it is."""

    total: int
    completed: int
    failed: int


class Batch(Struct, kw_only=True):
    """A batch; times in seconds since the epoch."""

    id: str
    endpoint: str
    input_file_id: str
    status: Status
    created_at: int
    expires_at: int
    request_counts: RequestCounts
    metadata: dict[str, str] | None
    completion_window: Literal["24h"] = "24h"
    output_file_id: str | UnsetType = UNSET
    error_file_id: str | UnsetType = UNSET
    in_progress_at: int | UnsetType = UNSET
    completed_at: int | UnsetType = UNSET
    expired_at: int | UnsetType = UNSET
    cancelling_at: int | UnsetType = UNSET
    cancelled_at: int | UnsetType = UNSET
    object: Literal["batch"] = "batch"


class BatchList(Struct):
    """Batches, newest first; `after` the last of them goes on."""

    data: list[Batch]
    has_more: bool
    first_id: str | None
    last_id: str | None
    object: Literal["list"] = "list"


class BatchQuery(Struct, forbid_unknown_fields=True):
    """Which batches to list."""

    limit: Annotated[int, Meta(ge=1, le=100)] = 20
    after: Annotated[str, Meta(max_length=64)] = ""


class BatchEndpoints:
    """Makes batches and tells how far they are."""

    def __init__(self, inference: JobClient) -> None:
        self._inference = inference

    async def create(self, exchange: Exchange, body: NewBatch) -> Batch:
        """POST /v1/batches: reads the whole file first, so that a line that is no request refuses it."""
        await self._inference.jobs(exchange, KIND, 1, "")  # who may have no batch is told that, not which file it has
        file_id = bare(body.input_file_id, FILE, "file", "input_file_id")
        try:
            kept = await self._inference.file(exchange, file_id)
        except NotFound as error:
            raise Fault.of(error, "input_file_id") from error
        if kept.purpose != "batch":
            raise Fault.invalid("The file was not uploaded with the purpose `batch`.", "input_file_id")
        data = b"".join([piece async for piece in self._inference.read_file(exchange, file_id)])
        works = await batch_file.works(data, body.endpoint, exchange)
        labels = {"endpoint": body.endpoint, "input_file_id": body.input_file_id}
        labels |= {METADATA + key: value for key, value in (body.metadata or {}).items()}
        options = job_service_pb2.JobOptions(kind=KIND, labels=labels, time_max=Duration(seconds=WINDOW_S))
        return _batch(await self._inference.upload_job(exchange, works, options))

    async def list(self, exchange: Exchange, _: None) -> BatchList:
        """GET /v1/batches."""
        asked = query.read(exchange, BatchQuery)
        after = bare(asked.after, BATCH, "batch", "after") if asked.after else ""
        page = await self._inference.jobs(exchange, KIND, asked.limit, after)
        data = [_batch(job) for job in page.jobs]
        first, last = (data[0].id, data[-1].id) if data else (None, None)
        return BatchList(data, bool(page.next_page_token), first, last)

    async def get(self, exchange: Exchange, _: None) -> Batch:
        """GET /v1/batches/{batch_id}."""
        return _batch(await self._job(exchange))

    async def cancel(self, exchange: Exchange, _: None) -> Batch:
        """POST /v1/batches/{batch_id}/cancel."""
        job = await self._job(exchange)
        return _batch(await self._inference.cancel_job(exchange, job.job_id))

    async def _job(self, exchange: Exchange) -> job_pb2.Job:
        job_id = bare(exchange.params["batch_id"], BATCH, "batch")
        return await batch_of(self._inference, exchange, job_id)


def _batch(job: job_pb2.Job) -> Batch:
    ended = _ENDED.get(job.state)
    is_cancelling = job.HasField("cancel_time")
    end = _seconds(job, "end_time")
    times: dict[str, Any] = {f"{ended}_at": end} if ended else {}
    metadata = {key.removeprefix(METADATA): job.labels[key] for key in job.labels if key.startswith(METADATA)}
    return Batch(
        id=BATCH + job.job_id,
        endpoint=job.labels["endpoint"],
        input_file_id=job.labels["input_file_id"],
        status=ended or ("cancelling" if is_cancelling else "in_progress"),
        created_at=job.created_time.seconds,
        expires_at=job.deadline_time.seconds,
        in_progress_at=_seconds(job, "start_time"),
        cancelling_at=_seconds(job, "cancel_time"),
        request_counts=RequestCounts(job.item_count, job.completed_item_count, job.failed_item_count),
        metadata=metadata or None,
        output_file_id=OUTPUT + job.job_id if ended and job.completed_item_count else UNSET,
        error_file_id=ERRORS + job.job_id if ended and job.failed_item_count else UNSET,
        **times,
    )


def _seconds(job: job_pb2.Job, field: str) -> int | UnsetType:
    time: Timestamp = getattr(job, field)
    return time.seconds if job.HasField(field) else UNSET
