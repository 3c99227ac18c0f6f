"""Joins the parts of quotas; what the store on Redis needs is imported only where it is used."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from kit.document_file import DocumentFile
from services.inference.quota.keeper import RENEWALS, Keeper
from services.inference.quota.memory_store import MemoryStore
from services.inference.quota.opening import LookUp, Opening
from services.inference.quota.quotas import Quotas
from services.inference.quota.reload import QuotasReload, Report
from services.inference.quota.settings import BUILT_IN_FILE, QuotaSettings
from services.inference.quota.store import QuotaStore
from services.inference.quota.tiers import QuotaRules

if TYPE_CHECKING:
    from services.inference.quota.redis_lane import RedisLane
    from services.inference.quota.redis_store import RedisStore
    from services.inference.quota.redis_watch import RedisWatch

log = logging.getLogger(__name__)

REDIS_HEALTH = "dependency/quotas-redis"


@dataclass
class Limiting:
    """Quotas, and what runs behind them; `attempts` counts attempts to log in, in this process if Redis is away."""

    quotas: Quotas
    keeper: Keeper
    reload: QuotasReload
    opening: Opening
    attempts: QuotaStore
    shared: tuple[RedisStore, RedisLane] | None
    _watch: RedisWatch | None = field(default=None)

    async def start(self, report: Report) -> None:
        """Opens the way to Redis, whether or not it answers, and begins to look after reservations and the file."""
        if self.shared:
            from services.inference.quota.redis_watch import RedisWatch

            self._watch = RedisWatch(*self.shared, partial(self._announce, report))
            await self._watch.start()
            report(REDIS_HEALTH, self._watch.counts)
        await self.keeper.start()
        self.reload.start(report)

    async def close(self) -> None:
        """Settles what has ended, and closes everything."""
        await self.reload.close()
        await self.opening.close()
        await self.keeper.close()
        if self._watch:
            await self._watch.close()

    def _announce(self, report: Report, counts: bool) -> None:
        """Tells health and log, once per change, whether Redis counts; what is owed is paid as soon as it does."""
        assert self._watch
        assert self.shared
        report(REDIS_HEALTH, counts)
        self.opening.forget()  # counts begin anew: those of this process, or those of a Redis that has come back empty
        if counts:
            self.keeper.wake()
            log.info("limits are counted on Redis again")
            return
        refusal, trouble = self._watch.refusal, self.shared[1].trouble
        what = "Redis refuses to count" if refusal else "Redis does not answer"
        log.warning(f"{what}: limits go by what is set for its loss", extra={"reason": refusal or trouble})


def wire(settings: QuotaSettings, look_up: LookUp) -> Limiting:
    """Joins the parts that the settings name; `look_up` asks the ledger what was used of budgets.

    Raises:
        ConfigError: The quotas file is bad; names file, line and field.
    """
    file = DocumentFile(settings.file or BUILT_IN_FILE, QuotaRules)
    rules = file.read()
    shared: tuple[RedisStore, RedisLane] | None = None
    store: QuotaStore = MemoryStore()
    attempts: QuotaStore = MemoryStore()
    if settings.store == "redis":
        from services.inference.quota.guarded_store import GuardedStore

        shared = _shared(settings)
        store = GuardedStore(shared[0], settings.on_loss, MemoryStore())
        attempts = GuardedStore(shared[0], "local", MemoryStore())
    keeper = Keeper(store, settings.hold_s / RENEWALS)
    opening = Opening(look_up, store)
    quotas = Quotas(rules, store, keeper, opening)
    return Limiting(quotas, keeper, QuotasReload(file, quotas), opening, attempts, shared)


def _shared(settings: QuotaSettings) -> tuple[RedisStore, RedisLane]:
    from services.inference.quota.redis_lane import RedisLane, redis_client
    from services.inference.quota.redis_store import RedisStore

    lane = RedisLane(
        redis_client(settings.redis_url.get_secret_value(), settings.redis_cluster), settings.redis_timeout_s
    )
    return RedisStore(lane, hold_ms=round(settings.hold_s * 1000)), lane
