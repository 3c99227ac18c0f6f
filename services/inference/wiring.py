"""The one place where the parts of inference meet; tests hand in other parts."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
from prometheus_client import CollectorRegistry

from kit.config import ConfigError, DialSettings
from kit.dial import dial
from kit.serve import Registration, Server
from kit.telemetry import Telemetry
from millrace.cache.v1 import cache_service_pb2
from millrace.inference.v1 import (
    access_service_pb2,
    access_service_pb2_grpc,
    inference_service_pb2,
    inference_service_pb2_grpc,
    key_service_pb2,
    key_service_pb2_grpc,
    live_service_pb2,
    live_service_pb2_grpc,
    usage_service_pb2,
    usage_service_pb2_grpc,
)
from millrace.safety.v1 import safety_service_pb2
from services.inference.absent import AbsentCache, AbsentSafety
from services.inference.access import wiring as access_wiring
from services.inference.access.access_servicer import AccessServicer
from services.inference.access.key_servicer import KeyServicer
from services.inference.access.wiring import Access
from services.inference.accounting.serving_metrics import ServingMetrics, TargetMetrics
from services.inference.accounting.settlement import Settlement
from services.inference.accounting.usage_servicer import UsageServicer
from services.inference.admission import Admission
from services.inference.attempts.attempts import Attempts
from services.inference.attempts.observation import AttemptObserver
from services.inference.attempts.targets import Targets
from services.inference.caching.answer_cache import AnswerCache
from services.inference.caching.cache_client import CacheClient
from services.inference.caching.refreshing import Refreshing
from services.inference.config import EMBEDDED_MODELS_FILE, InferenceSettings
from services.inference.database.database import Database
from services.inference.database.watch import DatabaseWatch
from services.inference.dependencies import DependencyWatch
from services.inference.embedding import Embeddings
from services.inference.engine import Embedder, Engine
from services.inference.engines.local.metrics import LocalMetrics
from services.inference.jobs.wiring import Jobs
from services.inference.ledger.bookkeeping import Bookkeeping
from services.inference.ledger.history import History, Scope
from services.inference.live.figures import LiveFigures
from services.inference.live.live_servicer import LiveServicer
from services.inference.live.watching import Watching
from services.inference.pipeline import Pipeline
from services.inference.quota import wiring as quota_wiring
from services.inference.quota.opening import Account, LookUp, Used
from services.inference.quota.wiring import Limiting
from services.inference.routing.catalog import Target, Upstream
from services.inference.routing.fleet import Fleet
from services.inference.routing.reload import ModelsFile, Reload
from services.inference.routing.router import Router
from services.inference.screening.safety_client import SafetyClient
from services.inference.servicer import InferenceServicer

if TYPE_CHECKING:
    from services.inference.engines.local.on_demand import OnDemand
    from services.inference.engines.openai_engine import OpenAIEngine

NONE = "none"


class EngineMaker:
    """Makes the engine of a target; what an engine needs is imported only where one is used."""

    def __init__(self, settings: InferenceSettings, environ: Mapping[str, str], registry: CollectorRegistry) -> None:
        self._settings, self._environ = settings, environ
        self._local_metrics = LocalMetrics(registry)

    def engine(self, target: Target) -> Engine:
        """An engine that generates."""
        if target.engine == "openai":
            return self._upstream(target)
        from services.inference.engines.local.engine import LocalEngine

        settings = self._settings
        make = partial(
            LocalEngine,
            target.model,
            active_max=settings.local_active_max,
            queue_max=settings.local_queue_max,
            wait_s_max=settings.local_wait_s_max,
            threads=settings.torch_threads,
            cache_mib=settings.local_cache_mib,
            precision=settings.local_precision,
            drafts=settings.local_drafts,
            metrics=self._local_metrics,
        )
        return self._on_demand(make) or make()

    def embedder(self, target: Target) -> Embedder:
        """An engine that embeds."""
        if target.engine == "openai":
            return self._upstream(target)
        from services.inference.engines.local.embedder import LocalEmbedder

        make = partial(LocalEmbedder, target.model, threads=self._settings.torch_threads)
        return self._on_demand(make) or make()

    def _on_demand(self, make: Callable[[], Any]) -> OnDemand | None:
        """What loads a local model by need, where the settings say so."""
        settings = self._settings
        if settings.local_load == "start" and not settings.local_idle_s:
            return None
        from services.inference.engines.local.on_demand import OnDemand

        return OnDemand(make, idle_s=settings.local_idle_s, loads_at_start=settings.local_load == "start")

    def kv_cache_used(self) -> dict[str, float]:
        """Part of its KV cache that each local model uses, by its name."""
        return self._local_metrics.cache_used_by_model()

    def _upstream(self, target: Target) -> OpenAIEngine:
        from services.inference.engines.openai_engine import OpenAIEngine

        assert target.upstream
        assert target.settings
        api_key = _api_key(target.upstream, target.settings, self._environ)
        return OpenAIEngine(target.upstream, target.settings, api_key, self._settings.way_out)


@dataclass
class Inference:
    """The wired service, as `kit.serve.run` takes it."""

    registrations: list[Registration]
    pipeline: Pipeline
    router: Router
    fleet: Fleet
    reload: Reload
    cache: AnswerCache
    refreshing: Refreshing
    channels: Mapping[str, grpc.aio.Channel]
    database: Database
    books: Bookkeeping
    access: Access
    jobs: Jobs
    watching: Watching
    migrate: bool | None
    limiting: Limiting
    dependency_wait_s: float
    watch: DependencyWatch | None = field(default=None)
    database_watch: DatabaseWatch | None = field(default=None)

    async def warm(self, server: Server) -> None:
        """Loads the models; each is reported as `model/NAME` in the health service as soon as it answers."""
        server.on_stop(self.watching.end)

        def report(name: str, serving: bool) -> None:
            server.set_serving(name, serving)
            self.watching.tell(name, serving)

        self.watch = DependencyWatch(self.channels, report)
        await self.watch.start()
        self.database_watch = DatabaseWatch(self.database, self.migrate, report)
        await self.database_watch.start()
        self.books.start(self.database_watch.ready)
        await self.access.start()
        await self.limiting.start(report)
        await self.reload.start(server)
        await self.watch.up(self.dependency_wait_s)
        self.jobs.start(self.database_watch.ready)

    async def close(self) -> None:
        """Frees everything, in the reverse order of making."""
        await self.jobs.close()
        await self.watching.close()
        await self.reload.close()
        if self.watch:
            await self.watch.close()
        await self.refreshing.close()
        await self.cache.close()
        await self.fleet.close()
        await self.limiting.close()
        await self.access.close()
        await self.books.close()
        if self.database_watch:
            await self.database_watch.close()
        await self.database.close()
        for channel in self.channels.values():
            await channel.close()


async def build(
    settings: InferenceSettings, telemetry: Telemetry, environ: Mapping[str, str] = os.environ
) -> Inference:
    """Wires the service that the settings describe.

    Raises:
        ConfigError: The models file is bad; names file, line and field.
    """
    models_file = ModelsFile(settings.models_file or EMBEDDED_MODELS_FILE)
    catalog = models_file.read()
    channels = {
        name: dial(to.target, to, telemetry=telemetry, service=service)
        for name, to, service in _dependencies(settings)
        if to.target != NONE
    }
    maker = EngineMaker(settings, environ, telemetry.registry)
    fleet = Fleet(catalog, maker.engine, maker.embedder)
    database = Database(settings.database)
    books = Bookkeeping(settings.ledger, database, telemetry.registry)
    limiting = quota_wiring.wire(settings.quotas, _look_up(books.history))
    router, admission = Router(catalog), Admission(settings.running_count_max, limiting.quotas)
    settlement = Settlement(books.ledger)
    targets = Targets()
    lookup_s, store_s = settings.cache_lookup_timeout_ms / 1000, settings.cache_store_timeout_ms / 1000
    cache = AnswerCache(_cache_port(settings, channels), settings.cache_pending_count_max, lookup_s, store_s)
    safety = _safety_port(settings, channels)
    observer = AttemptObserver(telemetry.tracer)
    attempts = Attempts(targets, fleet.use, observer.observe, settlement.begin)
    embeddings = Embeddings(admission, router, targets, fleet.embedder_for, observer.observe_embedding, settlement)
    refreshing = Refreshing()
    pipeline = Pipeline(admission, router, cache, safety, attempts, settlement, refreshing)
    servicer = InferenceServicer(
        pipeline, embeddings, router, fleet, safety, cache, time.time(), settings.batch_concurrency
    )
    access = access_wiring.wire(settings.access, database, limiting.attempts, settings.way_out)
    jobs = Jobs(settings.jobs, database, pipeline, embeddings, access.keyring.is_good, router)
    usage = UsageServicer(settlement, admission, targets, books.history, access.store.count, cache.figures)
    figures = LiveFigures(lambda: router.catalog, targets.snapshot, maker.kv_cache_used)
    watching = Watching(figures, cache.figures)
    _count(settlement, targets, figures, watching, telemetry.registry)
    registrations = _registrations(servicer, usage, access, jobs, watching)
    reload = Reload(models_file, router, fleet)
    return Inference(
        registrations,
        pipeline,
        router,
        fleet,
        reload,
        cache,
        refreshing,
        channels,
        database,
        books,
        access,
        jobs,
        watching,
        settings.database.migrate,
        limiting,
        settings.dependency_wait_s,
    )


def _count(
    settlement: Settlement, targets: Targets, figures: LiveFigures, watching: Watching, registry: CollectorRegistry
) -> None:
    """Has every request counted for those that look on, and targets shown."""
    settlement.witnesses = (figures, ServingMetrics(registry))
    registry.register(TargetMetrics(targets, lambda: dict(watching.available)))


def _dependencies(settings: InferenceSettings) -> list[tuple[str, DialSettings, str]]:
    return [
        ("cache", settings.cache, cache_service_pb2.DESCRIPTOR.services_by_name["CacheService"].full_name),
        ("safety", settings.safety, safety_service_pb2.DESCRIPTOR.services_by_name["SafetyService"].full_name),
    ]


def _cache_port(settings: InferenceSettings, channels: Mapping[str, grpc.aio.Channel]) -> CacheClient | AbsentCache:
    if "cache" not in channels:
        return AbsentCache()
    lookup_s, store_s = settings.cache_lookup_timeout_ms / 1000, settings.cache_store_timeout_ms / 1000
    return CacheClient(channels["cache"], lookup_s, store_s, settings.cache_semantic_timeout_ms / 1000)


def _safety_port(settings: InferenceSettings, channels: Mapping[str, grpc.aio.Channel]) -> SafetyClient | AbsentSafety:
    if "safety" not in channels:
        return AbsentSafety()
    return SafetyClient(channels["safety"], settings.safety_timeout_ms / 1000)


def _look_up(history: History) -> LookUp:
    """What budgets ask the ledger."""

    async def look_up(account: Account, since_ms: int) -> Used:
        scope = Scope(account.tenant, account.principal, account.key_id, start_ms=since_ms)
        for line in await history.sums(scope):
            return Used(line["prompt_token_count"] + line["completion_token_count"], line["cost_micro_usd"])
        return Used(0, 0)

    return look_up


def _registrations(
    servicer: InferenceServicer, usage: UsageServicer, access: Access, jobs: Jobs, watching: Watching
) -> list[Registration]:
    """What is served, each behind the question who calls."""

    def full_name(module: object, name: str) -> str:
        return str(module.DESCRIPTOR.services_by_name[name].full_name)  # type: ignore[attr-defined]

    registrations = [
        Registration(
            full_name(inference_service_pb2, "InferenceService"),
            inference_service_pb2_grpc.add_InferenceServiceServicer_to_server,
            servicer,
        ),
        Registration(
            full_name(usage_service_pb2, "UsageService"),
            usage_service_pb2_grpc.add_UsageServiceServicer_to_server,
            usage,
        ),
        Registration(
            full_name(key_service_pb2, "KeyService"),
            key_service_pb2_grpc.add_KeyServiceServicer_to_server,
            KeyServicer(access.store, access.keyring),
        ),
        Registration(
            full_name(access_service_pb2, "AccessService"),
            access_service_pb2_grpc.add_AccessServiceServicer_to_server,
            AccessServicer(access.users),
        ),
        Registration(
            full_name(live_service_pb2, "LiveService"),
            live_service_pb2_grpc.add_LiveServiceServicer_to_server,
            LiveServicer(watching),
        ),
        *jobs.registrations,
    ]
    return [replace(one, identify=access.authenticator.identify) for one in registrations]


def _api_key(name: str, upstream: Upstream, environ: Mapping[str, str]) -> str | None:
    """The upstream's key, from where the models file says it is.

    Raises:
        ConfigError: It is not there.
    """
    at = f"models file: upstreams.{name}"
    if upstream.api_key_env:
        key = environ.get(upstream.api_key_env)
        if not key:
            raise ConfigError(f"{at}.api_key_env: the environment variable {upstream.api_key_env} is not set")
        return key
    if upstream.api_key_file:
        try:
            return Path(upstream.api_key_file).read_text(encoding="utf-8").strip()
        except OSError as error:
            raise ConfigError(f"{at}.api_key_file: cannot be read: {error}") from None
    return None
