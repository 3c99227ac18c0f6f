"""Finds an entry that answers a similar question, and learns which do.

The steps of a semantic lookup: the text becomes a vector, the index names the nearest entries of the same partition,
the guards strike out those that differ in what matters, the store says whether the next one is still there, and the
tenant's verifier decides. What is near but is not given comes back as a comparison to make. This module never reads an
answer; where a step fails or takes too long, there is no similar entry.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from kit.errors import MillraceError
from services.cache.entry import Entry, parse_entry_id
from services.cache.key import Address
from services.cache.query import Acceptance, Found, Hit, HitKind, Miss, MissReason, Query, Shadow, ShadowVerdict, judge
from services.cache.semantic.candidates import TRIED_MAX, WATCHED_MAX, unopposed
from services.cache.semantic.comparisons import Comparison, Comparisons
from services.cache.semantic.encoding import TextEncoder, to_bytes
from services.cache.semantic.features import Surroundings, describe
from services.cache.semantic.index import VectorIndex
from services.cache.semantic.index_partitions import Neighbour
from services.cache.semantic.records import Record, Records, partition
from services.cache.semantic.verifier import Decision, Outcome
from services.cache.semantic.verifiers import Verifiers
from services.cache.semantic.words import parse
from services.cache.store import EntryStore

log = logging.getLogger(__name__)

# Entries that are looked at around a question.
NEIGHBOURS: Final = 12
# How near an entry must be to one that was reported for its neighbourhood to become stricter, and how strict at most.
STRUCK_COSINE: Final = 0.8
STRIKES_MAX: Final = 10
# What is further away is of another field, where what was learned says nothing: eight such questions have nothing
# nearer than 0.42 in BANKING77, and of the right neighbours there 0.2 % are.
FAR_COSINE: Final = 0.5


@dataclass(frozen=True, slots=True)
class Bounds:
    """What the operator allows; callers may only be stricter."""

    error_max: float
    similarity_min: float
    timeout_s: float
    guarded: bool = True


@dataclass(frozen=True, slots=True)
class _Candidate:
    """An entry that may answer, its record, and where it stands among its neighbours."""

    entry: Entry
    record: Record
    neighbour: Neighbour
    at: int
    hit: Hit


class Matcher:
    """Semantic lookups over one index.

    Args:
        encoder: Turns texts into vectors.
        index: Finds the nearest.
        records: What is known of the entries in the index.
        verifiers: Decide, tenant by tenant.
        store: Where the entries are.
        bounds: What the operator allows.
    """

    def __init__(
        self,
        encoder: TextEncoder,
        index: VectorIndex,
        records: Records,
        verifiers: Verifiers,
        store: EntryStore,
        bounds: Bounds,
    ) -> None:
        self._encoder, self._index, self._store = encoder, index, store
        self._bounds = bounds
        self._comparisons = Comparisons()
        self.records, self.verifiers = records, verifiers

    async def find(self, query: Query, address: Address, missed: Miss, arrived_ms: int) -> Found:
        """Looks for an answer to a similar question, after the exact one was missed.

        Returns:
            A hit, the miss with a comparison to make, or the miss as it was.
        """
        if query.semantic is None or not query.key.context_digest:
            return missed
        try:
            async with asyncio.timeout(self._bounds.timeout_s):
                return await self._find(query, address, missed, arrived_ms)
        except (MillraceError, TimeoutError) as error:
            log.info("no similar entry could be looked for", extra={"reason": getattr(error, "reason", "TIMEOUT")})
            return missed

    async def complete(self, entry: Entry, verdict: ShadowVerdict | None) -> Entry:
        """Adds to an entry what makes it findable, and learns from the comparison that came with it."""
        meaning = "" if verdict is None else await self._settle(verdict, entry.address.tenant)
        if not entry.compare_text or not entry.context_digest:
            return entry
        try:
            vector = await self._encoder.vector(entry.compare_text)
        except MillraceError:
            return entry
        if vector is None:
            return entry
        return msgspec.structs.replace(
            entry, embedding=to_bytes(vector), embedding_version=self._encoder.version, meaning=meaning
        )

    async def note(self, entry: Entry) -> None:
        """Takes an entry that was just stored here into the index, so that its producer's next lookup can find it."""
        item = self.records.add(entry) if entry.embedding else None
        if item is not None:
            with contextlib.suppress(MillraceError):  # the store tells of it once more
                await self._index.add([item])

    async def report(self, tenant: bytes, entry_id: str, text: str | None) -> None:
        """Learns that an entry was given and did not fit: what is near it must be surer from now on."""
        digest, nonce = parse_entry_id(entry_id) or (b"", "")
        record = self.records.get(digest)
        if record is None or record.nonce != nonce or record.address.tenant != tenant:
            return
        try:
            neighbours = await self._near(record.home.key, record.text)
        except MillraceError:
            return
        for neighbour in neighbours:
            near = self.records.get(neighbour.entry)
            if near is not None and neighbour.cosine >= STRUCK_COSINE:
                near.strikes = min(STRIKES_MAX, near.strikes + 1)
        if text:
            await self._learn_report(tenant, record, text)

    async def _settle(self, verdict: ShadowVerdict, tenant: bytes) -> str:
        """Learns from a comparison; returns the meaning of the entry that was compared if it fits, else none."""
        comparison = self._comparisons.close(verdict.shadow_id, tenant)
        if comparison is None:
            return ""
        verifier = await self.verifiers.get(tenant)
        verifier.learn(comparison.decision, fits=verdict.fits)
        self.verifiers.refit(verifier)
        return comparison.meaning if verdict.fits else ""

    async def _near(self, home: bytes, text: str) -> list[Neighbour]:
        """The nearest entries to a text in a partition; none where the text is too long to compare."""
        vector = await self._encoder.vector(text)
        return [] if vector is None else await self._index.search(home, vector, NEIGHBOURS)

    async def _find(self, query: Query, address: Address, missed: Miss, arrived_ms: int) -> Found:
        assert query.semantic is not None, "only semantic lookups come here"
        text, key = query.semantic.compare_text, query.key
        home = partition(address.namespace, key.model, key.canonical_version, key.context_digest, query.schema_tag)
        if self.records.home(home) is None:
            return missed
        neighbours = await self._near(home, text)
        similarity_min = max(self._bounds.similarity_min, query.semantic.similarity_min)
        candidate = await self._candidate(query, neighbours, similarity_min, arrived_ms)
        if candidate is None:
            return missed
        error_max = min(self._bounds.error_max, query.semantic.error_max)
        return await self._decide(candidate, neighbours, text, error_max, missed)

    async def _candidate(
        self, query: Query, neighbours: Sequence[Neighbour], similarity_min: float, arrived_ms: int
    ) -> _Candidate | None:
        """The nearest entry that nothing speaks against and that the store still has."""
        assert query.semantic is not None, "only semantic lookups come here"
        ours = parse(query.semantic.compare_text)
        near = [(neighbour, self.records.get(neighbour.entry)) for neighbour in neighbours]
        told = [None if record is None else parse(record.text) for _, record in near[:WATCHED_MAX]]
        for at in unopposed(ours, told) if self._bounds.guarded else range(len(near[:TRIED_MAX])):
            neighbour, record = near[at]
            if record is None or neighbour.cosine < similarity_min:
                continue
            entry = await self._store.get(record.address)
            hit = judge(entry, query, arrived_ms)
            if entry is not None and entry.nonce == record.nonce and isinstance(hit, Hit):
                return _Candidate(entry, record, neighbour, at, hit)
        return None

    async def _decide(
        self, candidate: _Candidate, neighbours: Sequence[Neighbour], text: str, error_max: float, missed: Miss
    ) -> Found:
        record, verifier = candidate.record, await self.verifiers.get(candidate.record.address.tenant)
        ours, theirs = parse(text), parse(record.text)
        seen = describe(ours, theirs, record.home.frequencies, self._surroundings(neighbours), candidate.at)
        restated, is_far = ours.tokens == theirs.tokens, candidate.neighbour.cosine < FAR_COSINE
        decision = verifier.decide(seen, error_max, restated=restated, strikes=record.strikes, is_far=is_far)
        reason = "same words" if restated else "calibrated" if decision.probability else "similar"
        acceptance = Acceptance(candidate.neighbour.cosine, decision.probability, error_max, reason)
        if decision.outcome is Outcome.ACCEPTED:
            return Hit(HitKind.SEMANTIC, candidate.entry, candidate.hit.age_ms, acceptance=acceptance)
        reason_missed = MissReason.SHADOW if decision.outcome is Outcome.HELD_BACK else MissReason.UNSURE
        shadow = Shadow(self._open(record, decision), candidate.entry, acceptance)
        return Miss(reason_missed, missed.lease, shadow)

    def _open(self, record: Record, decision: Decision) -> str:
        return self._comparisons.open(Comparison(record.address.tenant, decision, record.meaning))

    def _surroundings(self, neighbours: Sequence[Neighbour]) -> Surroundings:
        records = [self.records.get(neighbour.entry) for neighbour in neighbours]
        meanings = [record.meaning if record else at for at, record in enumerate(records)]
        return Surroundings([neighbour.cosine for neighbour in neighbours], meanings)

    async def _learn_report(self, tenant: bytes, record: Record, text: str) -> None:
        verifier = await self.verifiers.get(tenant)
        try:
            neighbours = await self._near(record.home.key, text)
        except MillraceError:
            return
        at = next((at for at, near in enumerate(neighbours) if near.entry == record.address.entry), None)
        if at is None:
            return
        seen = describe(parse(text), parse(record.text), record.home.frequencies, self._surroundings(neighbours), at)
        probability = verifier.calibration.fitted.probability(seen)
        verifier.learn(Decision(Outcome.UNSURE, seen, probability, self._bounds.error_max), fits=False, drawn=False)
        self.verifiers.refit(verifier)
