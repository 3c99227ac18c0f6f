"""Joins the parts of quotas; what the store on Redis needs is imported only where it is used."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
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
    lane: RedisLane | None

    async def start(self, report: Report) -> None:
        """Opens the way to Redis, whether or not it answers, and begins to look after reservations and the file."""
        if self.lane:
            self.lane.on_change = _announcing(self.lane, report, self.keeper.wake, self.opening.forget)
            await self.lane.open()
            report(REDIS_HEALTH, self.lane.available)
        await self.keeper.start()
        self.reload.start(report)

    async def close(self) -> None:
        """Settles what has ended, and closes everything."""
        await self.reload.close()
        await self.opening.close()
        await self.keeper.close()
        if self.lane:
            await self.lane.close()


def wire(settings: QuotaSettings, look_up: LookUp) -> Limiting:
    """Joins the parts that the settings name; `look_up` asks the ledger what was used of budgets.

    Raises:
        ConfigError: The quotas file is bad; names file, line and field.
    """
    file = DocumentFile(settings.file or BUILT_IN_FILE, QuotaRules)
    rules = file.read()
    lane: RedisLane | None = None
    store: QuotaStore = MemoryStore()
    attempts: QuotaStore = MemoryStore()
    if settings.store == "redis":
        from services.inference.quota.guarded_store import GuardedStore

        shared, lane = _shared(settings)
        store = GuardedStore(shared, settings.on_loss, MemoryStore())
        attempts = GuardedStore(shared, "local", MemoryStore())
    keeper = Keeper(store, settings.hold_s / RENEWALS)
    opening = Opening(look_up, store)
    quotas = Quotas(rules, store, keeper, opening)
    return Limiting(quotas, keeper, QuotasReload(file, quotas), opening, attempts, lane)


def _shared(settings: QuotaSettings) -> tuple[RedisStore, RedisLane]:
    from services.inference.quota.redis_lane import RedisLane, redis_client
    from services.inference.quota.redis_store import RedisStore

    lane = RedisLane(
        redis_client(settings.redis_url.get_secret_value(), settings.redis_cluster), settings.redis_timeout_s
    )
    return RedisStore(lane, hold_ms=round(settings.hold_s * 1000)), lane


def _announcing(
    lane: RedisLane, report: Report, wake: Callable[[], None], forget: Callable[[], None]
) -> Callable[[bool], None]:
    """Tells health and log, once per change, whether Redis answers; what is owed is paid as soon as it does."""

    def announce(available: bool) -> None:
        report(REDIS_HEALTH, available)
        forget()  # counts begin anew: those of this process, or those of a Redis that has come back empty
        if available:
            wake()
            log.info("limits are counted on Redis again")
        else:
            log.warning("Redis does not answer: limits go by what is set for its loss", extra={"reason": lane.trouble})

    return announce
