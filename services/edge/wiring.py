"""Where the parts of the edge meet. Tests hand in other parts here."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

import grpc

from kit.dial import dial
from kit.telemetry import Telemetry
from services.edge.config import EdgeSettings
from services.edge.endpoints import Endpoints, table
from services.edge.gateway import Gateway, Limits
from services.edge.inference_client import InferenceClient
from services.edge.jobs.batches import BatchEndpoints
from services.edge.jobs.files import FileEndpoints
from services.edge.jobs.job_client import JobClient
from services.edge.jobs.tasks import TaskEndpoints
from services.edge.lifecycle import Lifecycle
from services.edge.live import LiveEndpoint
from services.edge.metrics import Metrics
from services.edge.observer import Observer
from services.edge.openai.endpoints import OpenAIEndpoints
from services.edge.openapi import document
from services.edge.page import PageEndpoints
from services.edge.responses.endpoints import ResponseEndpoints
from services.edge.routes import Router
from services.edge.server import EdgeServer
from services.edge.service.admin import AdminEndpoints
from services.edge.service.cache_report import CacheReportEndpoint
from services.edge.service.chat import ChatEndpoints, Defaults
from services.edge.service.health import HealthEndpoints
from services.edge.service.ledger import LedgerEndpoints
from services.edge.service.standing import LimitsEndpoint
from services.edge.service.stats import StatsEndpoint
from services.edge.service.text import TextEndpoints
from services.edge.traces.endpoints import TraceEndpoints
from services.edge.traces.noting import TraceNotes
from services.edge.traces.owners import Owners
from services.edge.traces.receiver import SpanReceiver
from services.edge.traces.store import TraceStore

INFERENCE_SERVICE = "millrace.inference.v1.InferenceService"


class Edge:
    """The running edge.

    Attributes:
        server: Serves HTTP.
        inference: Whom it calls.
        receiver: Takes spans; None where no traces are kept.
    """

    def __init__(
        self,
        server: EdgeServer,
        inference: InferenceClient,
        channel: grpc.aio.Channel,
        receiver: SpanReceiver | None = None,
    ) -> None:
        self.server = server
        self.inference = inference
        self.receiver = receiver
        self._channel = channel

    async def start(self) -> int:
        """Listens and serves; returns the bound port."""
        if self.receiver is not None:
            await self.receiver.start()
        return await self.server.start()

    async def stop(self) -> None:
        """Drains, stops and hangs up."""
        await self.server.stop()
        if self.receiver is not None:
            await self.receiver.stop()
        await self._channel.close()


def wire(settings: EdgeSettings, telemetry: Telemetry) -> Edge:
    """Puts the edge together."""
    channel = dial(settings.inference.target, settings.inference, telemetry, service=INFERENCE_SERVICE)
    inference = JobClient(channel, settings.heartbeat_s)
    lifecycle = Lifecycle(_version())
    metrics = Metrics(telemetry.registry)
    page = PageEndpoints(metrics)
    store = TraceStore() if settings.span_store_port is not None else None
    owners = Owners()
    routes = table(
        Endpoints(
            openai=OpenAIEndpoints(inference, settings.prompt_concurrency),
            chat=ChatEndpoints(inference, Defaults(settings.default_model, settings.auto_model, settings.safe_profile)),
            text=TextEndpoints(inference, settings.default_model),
            health=HealthEndpoints(inference, settings.health_timeout_s, lifecycle),
            stats=StatsEndpoint(inference),
            ledger=LedgerEndpoints(inference),
            limits=LimitsEndpoint(inference),
            cache_report=CacheReportEndpoint(inference),
            admin=AdminEndpoints(inference),
            tasks=TaskEndpoints(inference, settings.default_model),
            files=FileEndpoints(inference, settings.file_bytes_max, settings.request_timeout_s),
            batches=BatchEndpoints(inference),
            responses=ResponseEndpoints(inference, settings.store_responses),
            traces=TraceEndpoints(store, owners, inference, settings.heartbeat_s),
            live=LiveEndpoint(inference, lifecycle),
            page=page,
        )
    )
    page.openapi = document(routes, lifecycle.version)
    limits = Limits(
        body_bytes_max=settings.body_bytes_max,
        body_timeout_s=settings.body_timeout_s,
        timeout_s=settings.request_timeout_s,
        timeout_s_max=settings.request_timeout_s_max,
        active_requests_max=settings.active_requests_max,
        origins=settings.cors_origins,
    )
    notes = TraceNotes(store, owners) if store is not None else None
    gateway = Gateway(Router(routes), limits, Observer(telemetry, metrics, notes).observe)
    receiver = SpanReceiver(store.take, settings.span_store_port or 0) if store is not None else None
    return Edge(EdgeServer(gateway, lifecycle, settings), inference, channel, receiver)


def _version() -> str:
    try:
        return version("millrace")
    except PackageNotFoundError:
        return "0"
