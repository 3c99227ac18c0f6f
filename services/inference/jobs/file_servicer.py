"""FileService: translate in, call, translate out."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from kit.errors import InvalidArgument
from millrace.inference.v1 import file_service_pb2 as pb2
from millrace.inference.v1 import file_service_pb2_grpc, stored_file_pb2
from services.inference.jobs.file_store import CHUNK_BYTES, FileStore, StoredFile
from services.inference.jobs.job_servicer import KIND, me, page_size
from services.inference.jobs.job_wire import timestamp
from services.inference.translate import seconds

TTL_MIN_S, TTL_MAX_S = 3600.0, 30 * 24 * 3600.0


class FileServicer(file_service_pb2_grpc.FileServiceServicer):
    """Serves the files of one store."""

    def __init__(self, store: FileStore) -> None:
        self._store = store

    async def UploadFile(self, requests: AsyncIterator[pb2.UploadFileRequest], context: Any) -> pb2.UploadFileResponse:
        """Keeps a file."""
        pieces = aiter(requests)
        head = await anext(pieces, None)
        if head is None:
            raise InvalidArgument("filename", "must not be empty")
        if not 1 <= len(head.filename) <= 255 or "\0" in head.filename:
            raise InvalidArgument("filename", "must have 1 to 255 characters, none of them NUL")
        if not KIND.fullmatch(head.purpose):
            raise InvalidArgument("purpose", "must be 1 to 64 of a to z, 0 to 9, _, . and -")
        ttl_s = seconds(head.ttl) if head.HasField("ttl") else TTL_MAX_S
        if not TTL_MIN_S <= ttl_s <= TTL_MAX_S:
            raise InvalidArgument("ttl", "must be 1 hour to 30 days")
        kept = await self._store.keep(me(), head.filename, head.purpose, ttl_s, _data(head, pieces))
        return pb2.UploadFileResponse(file=_file(kept))

    async def GetFile(self, request: pb2.GetFileRequest, context: Any) -> pb2.GetFileResponse:
        """Gets what is known of a file."""
        return pb2.GetFileResponse(file=_file(await self._store.get(me(), request.file_id)))

    async def ListFiles(self, request: pb2.ListFilesRequest, context: Any) -> pb2.ListFilesResponse:
        """Lists the caller's files."""
        count = page_size(request.page_size)
        found = await self._store.page(
            me(), request.purpose, count + 1, request.page_token, oldest_first=request.oldest_first
        )
        token = found[count - 1].file_id if len(found) > count else ""
        return pb2.ListFilesResponse(files=[_file(one) for one in found[:count]], next_page_token=token)

    async def ReadFile(self, request: pb2.ReadFileRequest, context: Any) -> AsyncIterator[pb2.ReadFileResponse]:
        """Reads a file."""
        async for data in self._store.read(me(), request.file_id):
            yield pb2.ReadFileResponse(data=data)

    async def DeleteFile(self, request: pb2.DeleteFileRequest, context: Any) -> pb2.DeleteFileResponse:
        """Forgets a file."""
        await self._store.delete(me(), request.file_id)
        return pb2.DeleteFileResponse()


async def _data(head: pb2.UploadFileRequest, rest: AsyncIterator[pb2.UploadFileRequest]) -> AsyncIterator[bytes]:
    """The bytes of a file, in chunks that fit a row."""
    held = bytearray(head.data)
    async for piece in rest:
        held += piece.data
        while len(held) >= CHUNK_BYTES:
            yield bytes(held[:CHUNK_BYTES])
            del held[:CHUNK_BYTES]
    if held:
        yield bytes(held)


def _file(kept: StoredFile) -> stored_file_pb2.StoredFile:
    return stored_file_pb2.StoredFile(
        file_id=kept.file_id,
        filename=kept.filename,
        purpose=kept.purpose,
        size_bytes=kept.size_bytes,
        created_time=timestamp(kept.created_ms),
        expire_time=timestamp(kept.expire_ms),
    )
