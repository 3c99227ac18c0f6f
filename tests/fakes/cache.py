"""A cache service that speaks the contract and decides by the number of words that two texts share."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc

from millrace.cache.v1 import cache_service_pb2 as service_pb
from millrace.cache.v1 import cache_service_pb2_grpc as service_grpc
from millrace.cache.v1 import lookup_pb2
from millrace.cache.v1.entry_pb2 import Entry


class FakeCache(service_grpc.CacheServiceServicer):
    """Answers lookups of one tenant's entries; every `shadow_every`th would-be hit is held back for comparison."""

    def __init__(self, shadow_every: int = 0) -> None:
        self.shadow_every = shadow_every
        self.entries: dict[str, tuple[bytes, str]] = {}
        self.verdicts: list[tuple[str, bool]] = []
        self.semantic: list[lookup_pb2.SemanticQuery] = []
        self.texts: list[str] = []
        self._would_be = 0

    async def Lookup(
        self, request: service_pb.LookupRequest, context: grpc.aio.ServicerContext
    ) -> service_pb.LookupResponse:
        query = request.query
        text = query.semantic.compare_text
        self.texts.append(text)
        if query.HasField("semantic"):
            self.semantic.append(query.semantic)
        near = [
            (overlap(text, stored), entry_id)
            for entry_id, (place, stored) in self.entries.items()
            if place == query.key.context_digest
        ]
        similarity, entry_id = max(near, default=(0.0, ""))
        if not query.HasField("semantic") or similarity < query.semantic.similarity_min or not entry_id:
            return missed(lookup_pb2.Miss(reason=lookup_pb2.MISS_REASON_NOT_FOUND))
        acceptance = lookup_pb2.Acceptance(similarity=similarity, fit_probability=similarity**2, error_max=1, reason="")
        self._would_be += 1
        if self.shadow_every and self._would_be % self.shadow_every == 0:
            shadow = lookup_pb2.Shadow(shadow_id=entry_id, entry=Entry(entry_id=entry_id), acceptance=acceptance)
            return missed(lookup_pb2.Miss(reason=lookup_pb2.MISS_REASON_SHADOW, shadow=shadow))
        hit = lookup_pb2.Hit(kind=lookup_pb2.HIT_KIND_SEMANTIC, entry=Entry(entry_id=entry_id), acceptance=acceptance)
        return service_pb.LookupResponse(hit=hit)

    async def Store(
        self, request: service_pb.StoreRequest, context: grpc.aio.ServicerContext
    ) -> service_pb.StoreResponse:
        entry_id = f"e{len(self.entries)}"
        self.entries[entry_id] = (request.draft.key.context_digest, request.draft.compare_text)
        if request.HasField("shadow_verdict"):
            self.verdicts.append((request.shadow_verdict.shadow_id, request.shadow_verdict.fits))
        return service_pb.StoreResponse(entry_id=entry_id)


@asynccontextmanager
async def serve(fake: FakeCache) -> AsyncIterator[service_grpc.CacheServiceStub]:
    """Serves it on a free port and yields a stub to it."""
    server = grpc.aio.server()
    service_grpc.add_CacheServiceServicer_to_server(fake, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield service_grpc.CacheServiceStub(channel)
    finally:
        await server.stop(None)


def overlap(one: str, other: str) -> float:
    """Words in common over all words."""
    ours, theirs = set(one.split()), set(other.split())
    return len(ours & theirs) / len(ours | theirs)


def missed(miss: lookup_pb2.Miss) -> service_pb.LookupResponse:
    return service_pb.LookupResponse(miss=miss)
