"""OpenAI's /v1/files: what callers upload, and what their batches have answered.

Uploads are kept by inference. The output and error files of a batch are its items, written as OpenAI writes them when
they are read: they stand nowhere.
"""

from __future__ import annotations

import errno
import logging
import tempfile
from collections.abc import AsyncIterator
from typing import Annotated, Literal

from google.protobuf.duration_pb2 import Duration
from msgspec import UNSET, Meta, Struct, UnsetType
from starlette.datastructures import Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from millrace.inference.v1 import file_service_pb2, job_pb2, stored_file_pb2
from services.edge import query
from services.edge.exchange import Exchange
from services.edge.fault import Fault
from services.edge.jobs import batch_file
from services.edge.jobs.identifiers import BATCH, ERRORS, FILE, OUTPUT, bare
from services.edge.jobs.job_client import CHUNK_BYTES, JobClient

_log = logging.getLogger(__name__)

KIND = "batch"  # of the jobs that batches are
PURPOSES = ("batch", "user_data")
_TTL_S_MIN, _TTL_S_MAX = 3_600, 30 * 24 * 3_600  # as inference has it
_FORM = b"multipart/form-data"


class FileObject(Struct):
    """A file."""

    id: str
    bytes: int
    created_at: int
    filename: str
    purpose: str
    expires_at: int | UnsetType = UNSET
    object: Literal["file"] = "file"
    status: Literal["processed"] = "processed"


class FileList(Struct):
    """Files, newest first unless asked otherwise; `after` the last of them goes on."""

    data: list[FileObject]
    has_more: bool
    first_id: str | None
    last_id: str | None
    object: Literal["list"] = "list"


class FileQuery(Struct, forbid_unknown_fields=True):
    """Which files to list."""

    limit: Annotated[int, Meta(ge=1, le=10_000)] = 100
    after: Annotated[str, Meta(max_length=64)] = ""
    purpose: Annotated[str, Meta(max_length=64)] = ""
    order: Literal["asc", "desc"] = "desc"


class Deleted(Struct):
    """Something is forgotten."""

    id: str
    object: str
    deleted: bool = True


class FileEndpoints:
    """Keeps, lists, reads and forgets files.

    Args:
        inference: Keeps them.
        bytes_max: Largest upload.
        body_timeout_s: Time for the body of an upload.
    """

    def __init__(self, inference: JobClient, bytes_max: int, body_timeout_s: float) -> None:
        self._inference, self._bytes_max, self._body_timeout_s = inference, bytes_max, body_timeout_s

    async def upload(self, exchange: Exchange, _: None) -> FileObject:
        """POST /v1/files."""
        form = await self._form(exchange)
        try:
            given, purpose = form.get("file"), form.get("purpose")
            if not isinstance(given, UploadFile):
                raise Fault.invalid("This field is required, as a file.", "file", "missing_required_parameter")
            if purpose not in PURPOSES:
                raise Fault.invalid(f"Expected one of {', '.join(PURPOSES)}.", "purpose")
            head = file_service_pb2.UploadFileRequest(filename=(given.filename or "file")[:255], purpose=purpose)
            if (seconds := form.get("expires_after[seconds]")) is not None:
                head.ttl.CopyFrom(_ttl(seconds))
            return _object(await self._inference.upload_file(exchange, head, _chunks(given)))
        finally:
            for value in form.values():
                if isinstance(value, UploadFile):
                    await value.close()

    async def _form(self, exchange: Exchange) -> dict[str, str | UploadFile]:
        content_type = exchange.headers.get(b"content-type", b"")
        if not content_type.lower().startswith(_FORM):
            raise Fault(415, "Send the file as multipart/form-data.", code="unsupported_media_type")
        body = exchange.chunks(self._bytes_max, self._body_timeout_s)
        parser = MultiPartParser(Headers(raw=[(b"content-type", content_type)]), body, max_files=1, max_fields=8)
        try:
            return dict((await parser.parse()).items())
        except (MultiPartException, KeyError, ValueError) as error:
            raise Fault.invalid(f"The form cannot be read: {error}.") from None
        except OSError as error:  # what is too large for memory waits in the folder for temporary files
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            _log.warning("the disk for uploads is full", extra={"folder": tempfile.gettempdir()})
            problem = "The disk for uploads is full; whoever runs this must make room there."
            raise Fault(503, problem, code="disk_full", headers=((b"retry-after", b"5"),)) from None

    async def list(self, exchange: Exchange, _: None) -> FileList:
        """GET /v1/files: what was uploaded; files of batches are found by their batch."""
        asked = query.read(exchange, FileQuery)
        after = bare(asked.after, FILE, "file", "after") if asked.after else ""
        page = await self._inference.files(
            exchange, asked.purpose, min(asked.limit, 100), after, oldest_first=asked.order == "asc"
        )
        data = [_object(one) for one in page.files]
        first, last = (data[0].id, data[-1].id) if data else (None, None)
        return FileList(data, bool(page.next_page_token), first, last)

    async def get(self, exchange: Exchange, _: None) -> FileObject:
        """GET /v1/files/{file_id}."""
        file_id = exchange.params["file_id"]
        if prefix := _derived(file_id):
            job = await batch_of(self._inference, exchange, bare(file_id, prefix, "file"), "file")
            size = sum([len(line) async for line in self._lines(exchange, job, prefix)])
            word = "output" if prefix == OUTPUT else "error"
            name = f"{BATCH}{job.job_id}_{word}.jsonl"
            end = job.end_time.seconds or job.created_time.seconds
            return FileObject(file_id, size, end, name, "batch_output", job.expire_time.seconds)
        return _object(await self._inference.file(exchange, bare(file_id, FILE, "file")))

    async def content(self, exchange: Exchange, _: None) -> None:
        """GET /v1/files/{file_id}/content."""
        file_id = exchange.params["file_id"]
        if prefix := _derived(file_id):
            job = await batch_of(self._inference, exchange, bare(file_id, prefix, "file"), "file")
            pieces = self._lines(exchange, job, prefix)
        else:
            pieces = self._inference.read_file(exchange, bare(file_id, FILE, "file"))
        await exchange.answer_pieces(pieces, b"application/octet-stream")

    def _lines(self, exchange: Exchange, job: job_pb2.Job, prefix: str) -> AsyncIterator[bytes]:
        return batch_file.lines(self._inference, exchange, job, with_errors=prefix == ERRORS)

    async def delete(self, exchange: Exchange, _: None) -> Deleted:
        """DELETE /v1/files/{file_id}; the files of a batch go with the batch."""
        file_id = exchange.params["file_id"]
        if _derived(file_id):
            raise Fault(400, "Files of a batch are forgotten with it.", param="file_id", code="invalid_value")
        await self._inference.delete_file(exchange, bare(file_id, FILE, "file"))
        return Deleted(file_id, "file")


async def batch_of(inference: JobClient, exchange: Exchange, job_id: str, what: str = "batch") -> job_pb2.Job:
    """The job that is a batch.

    Raises:
        Fault: 404, of `what` the caller asked for: it has no such batch.
    """
    return await inference.job(exchange, job_id, KIND, what)


def _derived(file_id: str) -> str:
    """The prefix of a file that a batch has written; empty for what was uploaded."""
    return next((prefix for prefix in (OUTPUT, ERRORS) if file_id.startswith(prefix)), "")


def _object(kept: stored_file_pb2.StoredFile) -> FileObject:
    return FileObject(
        FILE + kept.file_id,
        kept.size_bytes,
        kept.created_time.seconds,
        kept.filename,
        kept.purpose,
        kept.expire_time.seconds,
    )


def _ttl(seconds: object) -> Duration:
    """How long a file is to be kept; bounded here too, for a call refused while it is written may lose its reason."""
    is_number = isinstance(seconds, str) and seconds.isascii() and seconds.isdigit() and len(seconds) <= 9
    if not is_number or not _TTL_S_MIN <= int(str(seconds)) <= _TTL_S_MAX:
        raise Fault.invalid(f"Expected {_TTL_S_MIN} to {_TTL_S_MAX} seconds.", "expires_after[seconds]")
    return Duration(seconds=int(str(seconds)))


async def _chunks(given: UploadFile) -> AsyncIterator[bytes]:
    while chunk := await given.read(CHUNK_BYTES):
        yield chunk
