"""Drives a cache service as its callers do: looks questions up, and stores an answer for each that missed.

The answers are empty words; whether a hit was right is told by the questions' groups. Where the service asks for a
comparison with a fresh answer, the groups make that comparison too.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from cli.bench_cache.data import Lookup, Pair
from cli.bench_cache.policy import Policy
from cli.bench_cache.tally import Tally
from millrace.cache.v1.cache_service_pb2 import LookupRequest, LookupResponse, StoreRequest
from millrace.cache.v1.entry_pb2 import EntryDraft, EntryKey, Namespace
from millrace.cache.v1.lookup_pb2 import (
    HIT_KIND_SEMANTIC,
    MISS_REASON_SHADOW,
    MISS_REASON_STORE_UNAVAILABLE,
    Acceptance,
    Query,
    SemanticQuery,
    ShadowVerdict,
)

if TYPE_CHECKING:  # Exists for type checkers only.
    from millrace.cache.v1.cache_service_pb2_grpc import CacheServiceAsyncStub

MODEL = "bench"
SCHEMA_TAG = "bench.v1"
CHUNKS = [b"an answer"]
CALL_DEADLINE_S = 60.0
ZEROS = bytes(32)


class CacheDriver:
    """Plays lookups to a service in a namespace of its own."""

    def __init__(self, stub: CacheServiceAsyncStub, policy: Policy, tenant: str) -> None:
        self._stub, self._policy, self._tenant = stub, policy, tenant
        self._groups: dict[str, str] = {}

    async def play(self, lookups: Iterable[Lookup], skip_count: int, on_lookup: Callable[[], None]) -> Tally:
        """Looks up every question in order; the first ones are played and not counted.

        Raises:
            grpc.aio.AioRpcError: The service refused a call or is gone.
        """
        tally = Tally()
        for at, lookup in enumerate(lookups):
            if at == skip_count:
                tally = Tally()
            await self._look_up(lookup, tally)
            on_lookup()
        return tally

    async def _look_up(self, lookup: Lookup, tally: Tally) -> None:
        key = self._key(lookup.text, ZEROS)
        begin = time.perf_counter()
        found = await self._find(key, lookup.text)
        tally.times_ms.append((time.perf_counter() - begin) * 1000)
        tally.lookup_count += 1
        if found.HasField("hit"):
            tally.hit_count += 1
            tally.wrong_count += self._groups[found.hit.entry.entry_id] != lookup.group
            return
        tally.shadow_count += found.miss.reason == MISS_REASON_SHADOW
        tally.failed_count += found.miss.reason == MISS_REASON_STORE_UNAVAILABLE
        verdict = None
        if found.miss.HasField("shadow"):
            shadow = found.miss.shadow
            fits = self._groups[shadow.entry.entry_id] == lookup.group
            verdict = ShadowVerdict(shadow_id=shadow.shadow_id, fits=fits)
        self._groups[await self._store(key, lookup.text, verdict)] = lookup.group

    async def find(self, text: str) -> str | None:
        """The entry whose answer the service gives to a question; None for a miss."""
        found = await self._find(self._key(text, ZEROS), text)
        return found.hit.entry.entry_id if found.HasField("hit") else None

    async def store(self, text: str) -> str:
        """Stores an answer to a question, and names its entry."""
        return await self._store(self._key(text, ZEROS), text, None)

    async def compare(self, pair: Pair, number: int) -> Acceptance:
        """Stores one question of a pair and looks the other up where nothing else is; answers a comparison.

        Returns:
            Why the service would take one for the other; all zero where it found no likeness at all.
        """
        context = hashlib.sha256(b"pair %d" % number).digest()
        await self._store(self._key(pair.a, context), pair.a, None)
        found = await self._find(self._key(pair.b, context), pair.b)
        if not found.HasField("hit"):
            if found.miss.HasField("shadow"):
                verdict = ShadowVerdict(shadow_id=found.miss.shadow.shadow_id, fits=pair.same)
                await self._store(self._key(pair.b, context), pair.b, verdict)
            return found.miss.shadow.acceptance
        if found.hit.kind == HIT_KIND_SEMANTIC:
            return found.hit.acceptance
        return Acceptance(similarity=1.0, fit_probability=1.0)

    async def _find(self, key: EntryKey, text: str) -> LookupResponse:
        policy, semantic = self._policy, None
        if policy.error_max is not None:
            semantic = SemanticQuery(
                compare_text=text, similarity_min=policy.similarity_min, error_max=policy.error_max
            )
        query = Query(key=key, schema_tag=SCHEMA_TAG, semantic=semantic)
        return await self._stub.Lookup(LookupRequest(query=query), timeout=CALL_DEADLINE_S)

    async def _store(self, key: EntryKey, text: str, verdict: ShadowVerdict | None) -> str:
        draft = EntryDraft(key=key, schema_tag=SCHEMA_TAG, compare_text=text)
        request = StoreRequest(draft=draft, chunks=CHUNKS, shadow_verdict=verdict)
        return (await self._stub.Store(request, timeout=CALL_DEADLINE_S)).entry_id

    def _key(self, text: str, context_digest: bytes) -> EntryKey:
        return EntryKey(
            namespace=Namespace(tenant=self._tenant),
            model=MODEL,
            request_digest=hashlib.sha256(text.encode()).digest(),
            canonical_version=1,
            context_digest=context_digest,
        )
