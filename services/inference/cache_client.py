"""The cache service as the pipeline sees it: `CachePort` over gRPC."""

from __future__ import annotations

import grpc

from kit import identity, status
from kit.errors import Unavailable
from millrace.cache.v1 import cache_service_pb2, cache_service_pb2_grpc, entry_pb2, lookup_pb2
from services.inference.caching import CacheFound, CacheKey
from services.inference.events import CacheOutcome, Receipt
from services.inference.recording import CANONICALISATION_VERSION, CachePlan
from services.inference.translate import duration, seconds

OUTCOMES = {
    lookup_pb2.HIT_KIND_EXACT: CacheOutcome.EXACT,
    lookup_pb2.HIT_KIND_SEMANTIC: CacheOutcome.SEMANTIC,
    lookup_pb2.HIT_KIND_STALE: CacheOutcome.STALE,
}


class CacheClient:
    """Calls the cache within its own short deadlines, never longer than the call's."""

    def __init__(self, channel: grpc.aio.Channel, lookup_timeout_s: float, store_timeout_s: float) -> None:
        self._stub = cache_service_pb2_grpc.CacheServiceStub(channel)
        self._lookup_timeout_s, self._store_timeout_s = lookup_timeout_s, store_timeout_s

    async def lookup(
        self, key: CacheKey, schema_tag: str, age_max_s: float | None, allow_stale: bool = False
    ) -> CacheFound | None:
        """See `CachePort.lookup`."""
        query = lookup_pb2.Query(key=_key(key), schema_tag=schema_tag, allow_stale=allow_stale)
        if age_max_s is not None:
            query.age_max.CopyFrom(duration(age_max_s))
        try:
            request = cache_service_pb2.LookupRequest(query=query)
            answer = await self._stub.Lookup(request, timeout=identity.at_most_s(self._lookup_timeout_s))
        except grpc.aio.AioRpcError as error:
            raise status.from_rpc_error(error) from error
        if not answer.HasField("hit"):
            if answer.miss.reason == lookup_pb2.MISS_REASON_STORE_UNAVAILABLE:
                raise Unavailable("STORE_UNAVAILABLE", "the cache cannot reach its store")
            return None
        hit = answer.hit
        return CacheFound(
            OUTCOMES[hit.kind],
            b"".join(hit.entry.chunks),
            hit.entry.entry_id,
            seconds(hit.age),
            hit.acceptance.similarity if hit.HasField("acceptance") else None,
            hit.acceptance.reason,
        )

    async def store(
        self, key: CacheKey, schema_tag: str, payload: bytes, plan: CachePlan, tags: tuple[str, ...], receipt: Receipt
    ) -> None:
        """See `CachePort.store`; the caller of the generation may have gone, its answer is kept all the same."""
        savings = entry_pb2.Savings(
            prompt_token_count=receipt.usage.prompt_token_count,
            completion_token_count=receipt.usage.completion_token_count,
            cost_micro_usd=receipt.cost_micro_usd,
            generation_time=duration(receipt.duration_s),
        )
        ttl = duration(max(1.0, plan.ttl_s))  # the contract knows none shorter
        draft = entry_pb2.EntryDraft(key=_key(key), schema_tag=schema_tag, ttl=ttl, tags=tags)
        if plan.stale_for_s is not None:
            draft.stale_for.CopyFrom(duration(plan.stale_for_s))
        request = cache_service_pb2.StoreRequest(draft=draft, chunks=[payload], savings=savings)
        try:
            with identity.outlive():
                await self._stub.Store(request, timeout=self._store_timeout_s)
        except grpc.aio.AioRpcError as error:
            raise status.from_rpc_error(error) from error


def _key(key: CacheKey) -> entry_pb2.EntryKey:
    namespace = entry_pb2.Namespace(tenant=key.tenant, user=key.user or None)
    return entry_pb2.EntryKey(
        namespace=namespace, model=key.model, request_digest=key.digest, canonical_version=CANONICALISATION_VERSION
    )
