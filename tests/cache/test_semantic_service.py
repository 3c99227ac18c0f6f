"""Semantic lookups over gRPC with the real model: what a caller sees, and that edited questions are never answered."""

import hashlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from kit import telemetry
from kit.serve import Server
from millrace.cache.v1.cache_service_pb2 import (
    GetStatsRequest,
    LookupRequest,
    LookupResponse,
    ReportFalseHitRequest,
    StoreRequest,
)
from millrace.cache.v1.cache_service_pb2_grpc import CacheServiceStub
from millrace.cache.v1.entry_pb2 import EntryDraft, EntryKey, Namespace
from millrace.cache.v1.lookup_pb2 import (
    HIT_KIND_EXACT,
    HIT_KIND_SEMANTIC,
    MISS_REASON_NOT_FOUND,
    MISS_REASON_UNSURE,
    Query,
    SemanticQuery,
    ShadowVerdict,
)
from services.cache.config import CacheSettings
from services.cache.wiring import build
from tests.cache.test_semantic_guards import EDITED, rows
from tests.cache.test_servicer import serving

ACME = Namespace(tenant="acme")
KEPT = "How do I reset my password?"
SIMILAR = "I forgot my password, how can I reset it?"


class Caller:
    """Looks up and stores as inference does."""

    def __init__(self, stub: CacheServiceStub) -> None:
        self.stub = stub

    async def ask(self, text: str) -> LookupResponse:
        semantic = SemanticQuery(compare_text=text)
        query = Query(key=key_of(text), schema_tag="test.v1", semantic=semantic)
        return await self.stub.Lookup(LookupRequest(query=query))

    async def keep(self, text: str, verdict: ShadowVerdict | None = None) -> str:
        draft = EntryDraft(key=key_of(text), schema_tag="test.v1", compare_text=text)
        stored = await self.stub.Store(StoreRequest(draft=draft, chunks=[b"answer"], shadow_verdict=verdict))
        return stored.entry_id


def key_of(text: str) -> EntryKey:
    """The key of a question, all in one context."""
    digest = hashlib.sha256(text.encode()).digest()
    return EntryKey(namespace=ACME, model="m", request_digest=digest, canonical_version=1, context_digest=b"c" * 32)


@pytest.fixture
async def static(tmp_path: Path) -> AsyncIterator[Caller]:
    """A service for which a cosine of 0.7 is enough: only the guards stand in the way."""
    async with serving(
        path=tmp_path / "entries", semantic=True, semantic_error_max=1.0, semantic_similarity_min=0.7
    ) as (stub, _):
        yield Caller(stub)


@pytest.fixture
async def bounded(tmp_path: Path) -> AsyncIterator[Caller]:
    """A service as it comes, with semantic lookups switched on."""
    async with serving(path=tmp_path / "entries", semantic=True) as (stub, _):
        yield Caller(stub)


async def test_a_paraphrase_is_a_hit(static: Caller):
    """The wire tells the kind of a hit, its age and why it was accepted."""
    entry_id = await static.keep(KEPT)
    hit = (await static.ask(SIMILAR)).hit

    assert (hit.kind, hit.entry.entry_id) == (HIT_KIND_SEMANTIC, entry_id)
    assert list(hit.entry.chunks) == [b"answer"]
    assert 0.7 <= hit.acceptance.similarity <= 1
    assert not hit.acceptance.HasField("fit_probability")
    assert hit.acceptance.error_max == 1.0
    assert (await static.ask(KEPT)).hit.kind == HIT_KIND_EXACT


async def test_edited_questions_are_misses(static: Caller):
    """However similar, a question with another number, unit, name, opposite, negation or direction gets no answer."""
    edits = rows(EDITED)
    for kept, _ in edits:
        await static.keep(kept)
    answered = [edited for _, edited in edits if (await static.ask(edited)).HasField("hit")]

    assert answered == []


async def test_a_new_service_asks_for_comparisons(bounded: Caller):
    """Without evidence a paraphrase is a miss that carries what to compare; the verdict is counted."""
    await bounded.keep(KEPT)
    miss = (await bounded.ask(SIMILAR)).miss
    assert miss.reason == MISS_REASON_UNSURE
    assert list(miss.shadow.entry.chunks) == [b"answer"]
    assert 0 < miss.shadow.acceptance.fit_probability < 1
    assert miss.shadow.acceptance.error_max == pytest.approx(0.02)
    await bounded.keep(SIMILAR, ShadowVerdict(shadow_id=miss.shadow.shadow_id, fits=True))
    stats = (await bounded.stub.GetStats(GetStatsRequest(tenant="acme"))).stats

    assert stats.semantic_enabled
    assert not stats.HasField("semantic_error")
    assert {miss.reason: miss.count for miss in stats.misses}[MISS_REASON_UNSURE] == 1


async def test_a_reported_entry_is_gone(static: Caller):
    """A report removes the entry, once."""
    entry_id = await static.keep(KEPT)
    report = ReportFalseHitRequest(namespace=ACME, entry_id=entry_id, compare_text=SIMILAR)

    assert (await static.stub.ReportFalseHit(report)).removed
    assert (await static.ask(SIMILAR)).miss.reason == MISS_REASON_NOT_FOUND
    assert not (await static.stub.ReportFalseHit(report)).removed


async def test_a_report_makes_its_neighbourhood_stricter(bounded: Caller):
    """After a report of one entry, those near it are given no more for the same words in another form."""
    kept = await bounded.keep(KEPT)
    near = await bounded.keep(SIMILAR)
    restated = "how do i RESET my password!"
    assert (await bounded.ask(restated)).hit.entry.entry_id == kept

    await bounded.stub.ReportFalseHit(ReportFalseHitRequest(namespace=ACME, entry_id=near))
    miss = (await bounded.ask(restated)).miss

    assert miss.reason == MISS_REASON_UNSURE
    assert miss.shadow.entry.entry_id == kept


async def test_a_text_too_long_to_compare_is_a_miss(static: Caller):
    """A page of text is kept and found exactly, and compared with nothing."""
    page = "many words " * 2000
    await static.keep(page)

    assert (await static.ask(page)).hit.kind == HIT_KIND_EXACT
    assert (await static.ask(page + "more")).miss.reason == MISS_REASON_NOT_FOUND


async def test_prometheus_reads_the_error(tmp_path: Path):
    """The metrics page has the entries found by similarity, and the share of wrong answers once it can be estimated."""
    settings = CacheSettings(port=0, path=tmp_path / "entries", semantic=True)
    service = await build(settings, telemetry.off())
    server = Server("cache", settings, service.registrations, telemetry.off())
    await server.start()
    await service.warm(server)
    matcher = service.cache.matcher
    assert matcher is not None
    (await matcher.verifiers.get(b"tenant")).held_back.add(1.0, fits=False)
    await service.metrics.measure()
    figures = {
        (sample.name, sample.labels.get("end")): sample.value
        for metric in service.metrics.collect()
        for sample in metric.samples
    }
    await server.stop(0)
    await service.close()

    assert figures["millrace_cache_semantic_entries", None] == 0
    assert figures["millrace_cache_semantic_drift_alarms_total", None] == 0
    assert figures["millrace_cache_semantic_error_ratio", "share"] == 1.0
    assert figures["millrace_cache_semantic_error_ratio", "low"] < 1.0
