"""The verifiers of all tenants: made when first needed, fitted in a thread, and kept over a restart.

What a tenant's comparisons taught is kept in the store as an entry of that tenant, at an address that no request can
have; it holds numbers and no texts. Several replicas learn each for itself, and the one that saves last is remembered.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import secrets
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain
from typing import Final

import msgspec

from services.cache.entry import Entry, Savings
from services.cache.key import Address
from services.cache.semantic import features
from services.cache.semantic.calibration import Saved, fit
from services.cache.semantic.estimate import Estimate, estimate
from services.cache.semantic.verifier import Verifier
from services.cache.store import Clock, EntryStore, StoreUnavailable

log = logging.getLogger(__name__)

# Tenants whose verifiers are in memory, some 2 MB each once they have learned much.
TENANTS_MAX: Final = 256
# Raise it when what is kept of them changes its form: what was kept before is then forgotten.
FORM: Final = 3
SAVED_FOR_MS: Final = 30 * 86_400_000
# Worth more than any answer, so that it is the last to be evicted.
WORTH: Final = Savings(generation_ms=86_400_000, completion_token_count=2**31 - 1)


@dataclass(slots=True)
class _Kept:
    """A tenant's verifier and how many labels of it are saved."""

    verifier: Verifier
    saved_count: int = 0


class Verifiers:
    """One verifier for each tenant.

    Args:
        store: Where they are kept.
        version: Of the vector space; what was learned in another is not read.
        held_share_max: Most would-be hits that are held back.
        clock: Milliseconds since the epoch.
        random: Numbers in [0, 1).
    """

    def __init__(
        self,
        store: EntryStore,
        version: str,
        *,
        held_share_max: float,
        clock: Clock,
        random: Callable[[], float],
    ) -> None:
        self._store, self._clock, self._random = store, clock, random
        self._held_share_max = held_share_max
        self._schema_tag = f"millrace.calibration.{FORM}.{features.VERSION}.{version}"
        self._kept: OrderedDict[bytes, _Kept] = OrderedDict()
        self._fitting: dict[Verifier, asyncio.Task[None]] = {}

    async def get(self, tenant: bytes) -> Verifier:
        """A tenant's verifier, with what is remembered of it."""
        kept = self._kept.get(tenant)
        if kept is None:
            saved = await self._load(tenant)
            kept = self._kept.get(tenant)  # another may have been quicker
        if kept is None:
            verifier = Verifier(self._held_share_max, self._random, saved)
            kept = self._kept[tenant] = _Kept(verifier, verifier.calibration.label_count)
            self.refit(verifier)
            if len(self._kept) > TENANTS_MAX:
                self._kept.popitem(last=False)
        self._kept.move_to_end(tenant)
        return kept.verifier

    def refit(self, verifier: Verifier) -> None:
        """Fits in a thread to what was learned, if enough is new."""
        if verifier.calibration.due and verifier not in self._fitting:
            task = self._fitting[verifier] = asyncio.create_task(self._refit(verifier))
            task.add_done_callback(lambda done: self._fitting.pop(verifier))

    def estimate(self, tenant: bytes | None) -> Estimate | None:
        """The share of wrong answers among semantic hits of one tenant, or of all together."""
        chosen = [kept.verifier.held_back.samples for name, kept in self._kept.items() if tenant in (None, name)]
        return estimate(chain.from_iterable(chosen))

    @property
    def alarm_count(self) -> int:
        """How often the hits of those in memory were found to have become wrong."""
        return sum(kept.verifier.alarm_count for kept in list(self._kept.values()))

    async def save(self) -> None:
        """Keeps what has changed since the last time; what cannot be kept now stays to be kept."""
        for tenant, kept in list(self._kept.items()):
            label_count = kept.verifier.calibration.label_count
            if label_count == kept.saved_count:
                continue
            try:
                await self._store.put(self._entry(tenant, kept.verifier.save()))
            except StoreUnavailable:
                return
            kept.saved_count = label_count

    async def close(self) -> None:
        """Ends what is being fitted, and keeps what was learned."""
        for task in list(self._fitting.values()):
            task.cancel()
        if self._fitting:
            await asyncio.wait(list(self._fitting.values()))
        await self.save()

    async def _refit(self, verifier: Verifier) -> None:
        calibration, alarm_count = verifier.calibration, verifier.alarm_count
        fitted = await asyncio.to_thread(fit, calibration.snapshot(), calibration.fitted)
        if verifier.alarm_count == alarm_count:  # else it rests on labels that were forgotten meanwhile
            calibration.fitted = fitted

    async def _load(self, tenant: bytes) -> Saved | None:
        try:
            entry = await self._store.get(_address(tenant))
            if entry is None or entry.schema_tag != self._schema_tag:
                return None
            return msgspec.msgpack.decode(entry.chunks[0], type=Saved)
        except (StoreUnavailable, msgspec.DecodeError):
            return None

    def _entry(self, tenant: bytes, saved: Saved) -> Entry:
        now_ms = self._clock()
        return Entry(
            address=_address(tenant),
            nonce=secrets.token_hex(8),
            schema_tag=self._schema_tag,
            model="",
            chunks=(msgspec.msgpack.encode(saved),),
            created_ms=now_ms,
            expires_ms=now_ms + SAVED_FOR_MS,
            gone_ms=now_ms + SAVED_FOR_MS,
            savings=WORTH,
        )


def _address(tenant: bytes) -> Address:
    """Where a tenant's calibration is kept: a digest of another purpose than those of requests."""
    namespace = hashlib.sha256(b"millrace calibration" + tenant).digest()
    return Address(tenant, namespace, hashlib.sha256(namespace).digest())
