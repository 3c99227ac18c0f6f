"""The cache service as the pipeline sees it: `CachePort` over gRPC."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing, suppress
from typing import Any

import grpc

from kit import identity, status
from kit.dial import REPLICA_WAITS_S
from kit.errors import FailedPrecondition, Unavailable
from millrace.cache.v1 import cache_service_pb2 as pb
from millrace.cache.v1 import cache_service_pb2_grpc, lookup_pb2
from services.inference.caching import cache_wire as wire
from services.inference.caching.cache_port import (
    CacheDraft,
    CacheFigures,
    CacheFound,
    CacheKey,
    CacheMiss,
    CacheQuery,
    Comparison,
    FlightBegun,
    FlightLanded,
    FlightNews,
    FlightRestarted,
    FlightWaits,
)
from services.inference.events import Receipt

FIGURES_TIMEOUT_S = 1.0  # operators wait for them, not callers
# What gRPC raises where a message is sent on a call that is over.
CALL_IS_OVER = (asyncio.InvalidStateError, grpc.aio.UsageError)


class CacheClient:
    """Calls the cache within its own short deadlines, never longer than the call's.

    A lookup may take `lookup_timeout_s`, and `semantic_timeout_s` more where it also asks for similar questions.
    What keeps an answer outlives the call that made it: the caller may have gone, the answer is kept all the same.
    """

    def __init__(
        self,
        channel: grpc.aio.Channel,
        lookup_timeout_s: float,
        store_timeout_s: float,
        semantic_timeout_s: float = 0.0,
    ) -> None:
        self._stub = cache_service_pb2_grpc.CacheServiceStub(channel)
        self._lookup_timeout_s, self._store_timeout_s = lookup_timeout_s, store_timeout_s
        self._semantic_timeout_s = semantic_timeout_s

    async def lookup(self, query: CacheQuery) -> CacheFound | CacheMiss:
        """See `CachePort.lookup`."""
        limit_s = self._lookup_timeout_s + (self._semantic_timeout_s if query.semantic else 0.0)
        request = pb.LookupRequest(query=wire.query(query))
        answer = await self._call(self._stub.Lookup, request, identity.at_most_s(limit_s))
        if answer.HasField("hit"):
            return wire.found(answer.hit, tuple(answer.hit.entry.chunks))
        return wire.missed(answer.miss)

    async def follow(self, query: CacheQuery, wait_s: float) -> AsyncGenerator[FlightNews, None]:
        """See `CachePort.follow`; the reader bounds its waits."""
        lost_count, has_begun = 0, False
        while True:
            try:
                async with aclosing(self._follow_at_one(query, wait_s)) as told:
                    async for news in told:
                        lost_count, has_begun = 0, True
                        yield news
                return
            except Unavailable:
                if lost_count == len(REPLICA_WAITS_S):
                    raise
            if has_begun:
                yield FlightRestarted()
            await asyncio.sleep(REPLICA_WAITS_S[lost_count])
            lost_count += 1

    async def _follow_at_one(self, query: CacheQuery, wait_s: float) -> AsyncGenerator[FlightNews, None]:
        call = self._stub.LookupStream(pb.LookupStreamRequest(query=wire.query(query, wait_s)), timeout=math.inf)
        hit: lookup_pb2.Hit | None = None
        chunks: list[bytes] = []
        last: FlightNews | None = None
        try:
            async for response in call:
                match response.WhichOneof("event"):
                    case "chunk" if hit is not None:
                        chunks.append(response.chunk)
                    case "chunk":
                        yield response.chunk
                    case "hit":
                        hit = response.hit
                    case "completed" if hit is not None:
                        last = wire.found(hit, tuple(chunks))
                    case "completed":
                        last = FlightLanded(response.completed.entry.entry_id)
                    case "following":
                        yield FlightBegun()
                    case "waiting":
                        yield FlightWaits()
                    case "restarted":
                        yield FlightRestarted()
                    case "miss":
                        last = wire.missed(response.miss)
            if last is not None:  # not before the end of the stream: who hangs up sooner gives back the lease of a miss
                yield last
        except grpc.aio.AioRpcError as error:
            raise status.from_rpc_error(error) from error
        finally:
            call.cancel()

    async def store(
        self,
        draft: CacheDraft,
        chunks: Sequence[bytes],
        receipt: Receipt,
        lease_id: str = "",
        comparison: Comparison | None = None,
    ) -> None:
        """See `CachePort.store`."""
        request = pb.StoreRequest(
            lease_id=lease_id,
            draft=wire.draft(draft),
            chunks=chunks,
            savings=wire.savings(receipt),
            shadow_verdict=wire.verdict(comparison),
        )
        with identity.outlive():
            await self._call(self._stub.Store, request, self._store_timeout_s)

    def store_stream(self, draft: CacheDraft, lease_id: str, timeout_s: float) -> CacheStoreStream:
        """See `CachePort.store_stream`."""
        with identity.outlive():
            call = self._stub.StoreStream(timeout=timeout_s + self._store_timeout_s)
        return CacheStoreStream(call, wire.start(draft, lease_id))

    async def release(self, lease_id: str) -> None:
        """See `CachePort.release`."""
        with identity.outlive():
            await self._call(self._stub.Release, pb.ReleaseRequest(lease_id=lease_id), self._store_timeout_s)

    async def figures(self) -> CacheFigures:
        """See `CachePort.figures`."""
        limit_s = identity.at_most_s(FIGURES_TIMEOUT_S)
        return wire.figures((await self._call(self._stub.GetStats, pb.GetStatsRequest(), limit_s)).stats)

    async def report_false_hit(self, key: CacheKey, entry_id: str, text: str | None) -> bool:
        """See `CachePort.report_false_hit`."""
        request = pb.ReportFalseHitRequest(namespace=wire.namespace(key), entry_id=entry_id, compare_text=text)
        answer = await self._call(self._stub.ReportFalseHit, request, identity.at_most_s(self._store_timeout_s))
        return bool(answer.removed)

    async def _call(self, method: Any, request: Any, timeout_s: float) -> Any:
        try:
            return await method(request, timeout=timeout_s)
        except grpc.aio.AioRpcError as error:
            raise status.from_rpc_error(error) from error


class CacheStoreStream:
    """One StoreStream call; see `StoreStream`."""

    def __init__(self, call: Any, start: pb.StoreStreamRequest) -> None:
        self._call = call
        self._start: pb.StoreStreamRequest | None = start

    async def followed(self) -> None:
        """Returns when the service sends its metadata."""
        await self._call.initial_metadata()

    async def send(self, chunk: bytes) -> None:
        """Hands a chunk over; what is said of the answer goes before the first."""
        await self._begin()
        await self._write(pb.StoreStreamRequest(chunk=chunk))

    async def finish(self, receipt: Receipt, comparison: Comparison | None) -> None:
        """Ends the answer."""
        await self._begin()
        await self._write(wire.finish(receipt, comparison))
        await self._end()

    async def give_up(self) -> None:
        """Ends the call, which then fails as incomplete."""
        with suppress(FailedPrecondition):
            await self._end()

    def cancel(self) -> None:
        """Ends the call; harmless when it is over."""
        self._call.cancel()

    async def _begin(self) -> None:
        start, self._start = self._start, None
        if start is not None:
            await self._write(start)

    async def _end(self) -> None:
        try:
            await self._call.done_writing()
            await self._call
        except grpc.aio.AioRpcError as error:
            raise status.from_rpc_error(error) from error

    async def _write(self, request: pb.StoreStreamRequest) -> None:
        try:
            await self._call.write(request)
        except grpc.aio.AioRpcError as error:
            raise status.from_rpc_error(error) from error
        except CALL_IS_OVER as error:
            raise Unavailable("CACHE_ENDED", "the cache service ended its stream") from error
