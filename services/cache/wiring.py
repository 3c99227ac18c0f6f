"""The one place where the cache's parts meet. Tests hand in other parts; nothing is decided here."""

from __future__ import annotations

import asyncio
import random
import secrets
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from redis.asyncio import Redis
from redis.asyncio.cluster import RedisCluster
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from kit.cancelling import cancel_all
from kit.serve import Registration, Server
from kit.telemetry import Telemetry
from millrace.cache.v1 import cache_service_pb2 as service_pb
from millrace.cache.v1 import cache_service_pb2_grpc as service_grpc
from services.cache.cache import Cache, Lifetime
from services.cache.config import CacheSettings
from services.cache.flight import FlightTable
from services.cache.key import KeySpace
from services.cache.metrics import CacheMetrics
from services.cache.redis_leases import RedisLeases
from services.cache.redis_link import RedisLink
from services.cache.redis_store import RedisStore
from services.cache.refresh import RefreshWatch
from services.cache.request_wire import Limits
from services.cache.servicer import CacheServicer
from services.cache.shared_flight import SharedFlightTable
from services.cache.sqlite_store import SqliteStore
from services.cache.stats import Stats
from services.cache.store import EntryStore

if TYPE_CHECKING:
    from services.cache.semantic.semantics import Model, Semantics

FULL_NAME = service_pb.DESCRIPTOR.services_by_name["CacheService"].full_name
# The health of Redis, apart from the service's own: without it the service goes on, and misses.
REDIS_HEALTH = "dependency/redis"


@dataclass(frozen=True, slots=True)
class CacheService:
    """The cache, ready to be served."""

    cache: Cache
    registrations: tuple[Registration, ...]
    link: RedisLink | None
    metrics: CacheMetrics
    semantics: Semantics | None = None
    tasks: set[asyncio.Task[None]] = field(default_factory=set)

    async def warm(self, server: Server) -> None:
        """Opens the store, and keeps the health of what it rests on up to date."""
        store, link = self.cache.store, self.link
        if link is not None:
            link.on_change(lambda available: server.set_serving(REDIS_HEALTH, available))
        await store.open()
        if self.semantics is not None:
            self.cache.matcher = await self.semantics.open()
        self.cache.flights.start()
        self.tasks.add(asyncio.create_task(self.metrics.keep_measuring()))
        if link is not None:
            server.set_serving(REDIS_HEALTH, link.available)
            self.tasks.add(asyncio.create_task(link.watch()))

    async def close(self) -> None:
        """Closes the store."""
        await cancel_all(self.tasks)
        await self.cache.flights.close()
        if self.semantics is not None:
            await self.semantics.close()
        await self.cache.store.close()


async def build(
    settings: CacheSettings, telemetry: Telemetry, store: EntryStore | None = None, model: Model | None = None
) -> CacheService:
    """Joins the parts that the settings name."""
    link = redis_link(settings) if settings.store == "redis" and store is None else None
    store = store or build_store(settings, link)
    cache = Cache(
        store,
        build_flights(settings, link, store),
        Stats(now_ms()),
        KeySpace(settings.key_secret.get_secret_value().encode() if settings.key_secret else b""),
        Lifetime(_ms(settings.ttl_default_s), settings.ttl_jitter, _ms(settings.stale_for_default_s)),
        RefreshWatch(settings.refresh_ahead, settings.refresh_hits_min),
        clock=now_ms,
        random=random.random,
    )
    servicer = CacheServicer(cache, Limits(settings.entry_bytes_max, settings.lease_ttl_default_s))
    registration = Registration(FULL_NAME, service_grpc.add_CacheServiceServicer_to_server, servicer)
    metrics = CacheMetrics(cache)
    telemetry.registry.register(metrics)
    semantics = build_semantics(settings, store, model) if settings.semantic else None
    return CacheService(cache, (registration,), link, metrics, semantics)


def build_semantics(settings: CacheSettings, store: EntryStore, model: Model | None) -> Semantics:
    """Makes what finds answers to similar questions; imported here, for its libraries take time and memory."""
    from services.cache.semantic.encoding import text_model
    from services.cache.semantic.matcher import Bounds
    from services.cache.semantic.semantics import Semantics, SemanticSettings

    bounds = Bounds(
        settings.semantic_error_max,
        settings.semantic_similarity_min,
        settings.semantic_timeout_s,
        settings.semantic_guards,
    )
    limits = SemanticSettings(bounds, settings.semantic_held_share_max, settings.semantic_entries_max)
    model = model or text_model(settings.embedding_model, threads=settings.embedding_threads)
    return Semantics(model, store, limits, now_ms, random.random)


def build_store(settings: CacheSettings, link: RedisLink | None) -> EntryStore:
    """Makes the store on a Redis, or the embedded one without."""
    if link is not None:
        return RedisStore(link, entries_max=settings.entries_max, bytes_max=settings.bytes_max, clock=now_ms)
    return SqliteStore(
        settings.path,
        entries_max=settings.entries_max,
        bytes_max=settings.bytes_max,
        hot_bytes_max=settings.hot_bytes_max,
        clock=now_ms,
    )


def build_flights(settings: CacheSettings, link: RedisLink | None, store: EntryStore) -> FlightTable:
    """Makes flights that all replicas on a Redis share, or those of one process without."""
    if link is None:
        return FlightTable(settings.leases_max)
    return SharedFlightTable(RedisLeases(link, secrets.token_hex(8)), store.get, settings.leases_max)


def redis_link(settings: CacheSettings) -> RedisLink:
    """Makes the way to Redis, with a client that never retries: a retry would outlive the deadline of who asks."""
    url, timeout_s = settings.redis_url.get_secret_value(), settings.redis_write_timeout_s
    kind = RedisCluster if settings.redis_cluster else Redis
    retry = Retry(NoBackoff(), 0)
    client = kind.from_url(url, socket_timeout=timeout_s, socket_connect_timeout=timeout_s, retry=retry)
    return RedisLink(client, read_timeout_s=settings.redis_read_timeout_s, write_timeout_s=timeout_s)


def now_ms() -> int:
    """Milliseconds since the epoch."""
    return time.time_ns() // 1_000_000


def _ms(seconds: float) -> int:
    return round(seconds * 1000)
