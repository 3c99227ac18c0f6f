"""CacheService on the wire: reads a request, calls the cache, writes the answer. It decides nothing."""

from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator
from contextlib import aclosing
from typing import Any

from kit import names
from kit.errors import InvalidArgument
from kit.spans import current
from millrace.cache.v1 import cache_service_pb2 as service_pb
from millrace.cache.v1 import cache_service_pb2_grpc as service_grpc
from services.cache import request_wire as read
from services.cache import response_wire as write
from services.cache.cache import Cache, Finish
from services.cache.query import Hit, Miss
from services.cache.store import StoreUnavailable


class CacheServicer(service_grpc.CacheServiceServicer):
    """The RPCs of one cache."""

    def __init__(self, cache: Cache, limits: read.Limits) -> None:
        self._cache, self._limits = cache, limits

    async def Lookup(self, request: service_pb.LookupRequest, context: Any) -> service_pb.LookupResponse:
        """Finds an answer, or says who produces it."""
        request_id = read.read_request_id(request.request_id)
        found = await self._cache.lookup(read.read_query(request.query, self._limits))
        current().set_attribute(names.CACHE_OUTCOME, write.outcome(found))
        return write.write_lookup(found, request_id)

    async def LookupStream(
        self, request: service_pb.LookupStreamRequest, context: Any
    ) -> AsyncIterator[service_pb.LookupStreamResponse]:
        """Finds an answer and sends it chunk by chunk."""
        request_id = read.read_request_id(request.request_id)
        query = read.read_query(request.query, self._limits)
        async with aclosing(self._cache.lookup_stream(query)) as events:
            async for event in events:
                if isinstance(event, Hit | Miss):
                    current().set_attribute(names.CACHE_OUTCOME, write.outcome(event))
                response = write.write_event(event)
                response.request_id, request_id = request_id, ""
                yield response

    async def Store(self, request: service_pb.StoreRequest, context: Any) -> service_pb.StoreResponse:
        """Keeps a complete answer."""
        request_id = read.read_request_id(request.request_id)
        read.read_lease_id(request.lease_id)  # Any complete answer ends the flight under its key.
        draft = read.read_draft("draft", request.draft)
        chunks = read.read_chunks("chunks", request.chunks, self._limits)
        savings = read.read_savings("savings", request)
        verdict = read.read_shadow_verdict("shadow_verdict", request)
        entry = await self._cache.keep(draft, chunks, savings, verdict)
        expire_time = write.write_time(entry.expires_ms)
        return service_pb.StoreResponse(request_id=request_id, entry_id=entry.entry_id, expire_time=expire_time)

    async def StoreStream(
        self, request_iterator: AsyncIterator[service_pb.StoreStreamRequest], context: Any
    ) -> service_pb.StoreStreamResponse:
        """Keeps an answer while it is produced."""
        first = await anext(aiter(request_iterator), None)
        if first is None or first.WhichOneof("message") != "start":
            raise InvalidArgument("start", "must be the first message")
        request_id = read.read_request_id(first.start.request_id)
        lease_id = read.read_lease_id(first.start.lease_id)
        draft = read.read_draft("start.draft", first.start.draft)
        async with aclosing(self._chunks(request_iterator)) as chunks:
            entry = await self._cache.keep_stream(draft, chunks, lease_id, lambda: context.send_initial_metadata(()))
        expire_time = write.write_time(entry.expires_ms)
        return service_pb.StoreStreamResponse(request_id=request_id, entry_id=entry.entry_id, expire_time=expire_time)

    async def Release(self, request: service_pb.ReleaseRequest, context: Any) -> service_pb.ReleaseResponse:
        """Gives a lease back without an answer."""
        request_id = read.read_request_id(request.request_id)
        released = await self._cache.flights.release(read.read_lease_id(request.lease_id, required=True))
        return service_pb.ReleaseResponse(request_id=request_id, released=released)

    async def Delete(self, request: service_pb.DeleteRequest, context: Any) -> service_pb.DeleteResponse:
        """Removes entries of one tenant."""
        request_id = read.read_request_id(request.request_id)
        selector = read.read_selection(request, self._cache.keys)
        count = 0 if selector is None else await self._cache.delete(selector, dry_run=request.dry_run)
        return service_pb.DeleteResponse(request_id=request_id, entry_count=count)

    async def ReportFalseHit(
        self, request: service_pb.ReportFalseHitRequest, context: Any
    ) -> service_pb.ReportFalseHitResponse:
        """Says that an entry was served and did not fit."""
        request_id = read.read_request_id(request.request_id)
        namespace = read.read_namespace("namespace", request.namespace)
        entry_id = read.read_entry_id(request.entry_id)
        text = read.read_compare_text(request.compare_text)
        removed = await self._cache.report_false_hit(namespace, entry_id, text)
        return service_pb.ReportFalseHitResponse(request_id=request_id, removed=removed)

    async def GetStats(self, request: service_pb.GetStatsRequest, context: Any) -> service_pb.GetStatsResponse:
        """Reports what the cache holds and has done."""
        request_id = read.read_request_id(request.request_id)
        tenant = self._cache.keys.tenant(read.read_tenant(request.tenant)) if request.HasField("tenant") else None
        return service_pb.GetStatsResponse(request_id=request_id, stats=await self._stats(tenant))

    async def _chunks(
        self, requests: AsyncIterable[service_pb.StoreStreamRequest]
    ) -> AsyncGenerator[bytes | Finish, None]:
        """The chunks of a stream, then its end."""
        meter = read.ChunkMeter("chunk", self._limits)
        async for request in requests:
            match request.WhichOneof("message"):
                case "chunk":
                    meter.add(request.chunk)
                    yield request.chunk
                case "finish":
                    meter.finish()
                    verdict = read.read_shadow_verdict("finish.shadow_verdict", request.finish)
                    yield Finish(read.read_savings("finish.savings", request.finish), verdict)
                    return
                case "start":
                    raise InvalidArgument("start", "must be the first message only")
                case _:
                    raise InvalidArgument("message", "must hold a chunk or `finish`")

    async def _stats(self, tenant: bytes | None) -> service_pb.Stats:
        cache = self._cache
        stats = write.write_tally(cache.stats.tally(tenant))
        stats.start_time.CopyFrom(write.write_time(cache.stats.start_ms))
        stats.store, stats.store_available = cache.store.name, cache.store.available
        stats.lease_count = cache.flights.lease_count
        if cache.matcher is not None:
            write.write_error(stats, cache.matcher.verifiers.estimate(tenant))
        if tenant is None:
            write.write_evictions(stats, cache.store.evictions)
        try:
            write.write_size(stats, await cache.store.size(tenant))
        except StoreUnavailable:
            stats.store_available = False
        return stats
