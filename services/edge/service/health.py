"""GET /livez, /readyz, /ready, /health and /health/detailed.

Alive means the process answers; ready means that inference, the one thing the edge calls, serves. Cache, safety and
database are behind inference, which reports them, and whether it needs them: `needs/safety` serves where a model
refuses while safety is away. While inference is down nobody can say how they are.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection
from typing import Literal

from kit.errors import MillraceError
from services.edge.exchange import Exchange
from services.edge.fault import Fault
from services.edge.inference_client import InferenceClient
from services.edge.lifecycle import Lifecycle
from services.edge.openai.models import STATES
from services.edge.service.bodies import Dependency, DetailedHealth, Health, Probe

_WORDS: dict[str, Literal["up", "down"]] = {"SERVING": "up", "NOT_SERVING": "down", "UNREACHABLE": "down"}
_BEHIND = ("cache", "safety", "database")


class HealthEndpoints:
    """Probes and health.

    Args:
        inference: What is asked.
        timeout_s: Time for one question.
        lifecycle: Of this process.
    """

    def __init__(self, inference: InferenceClient, timeout_s: float, lifecycle: Lifecycle) -> None:
        self._inference = inference
        self._timeout_s = timeout_s
        self._lifecycle = lifecycle

    async def live(self, exchange: Exchange, _: None) -> Probe:
        """GET /livez."""
        return Probe("ok")

    async def ready(self, exchange: Exchange, _: None) -> Probe:
        """GET /readyz and /ready."""
        if self._lifecycle.draining:
            raise Fault(503, "This server is shutting down.", code="draining")
        state = await self._inference.health("", self._timeout_s)
        if state != "SERVING":
            raise Fault(503, f"Inference is {state}.", code="not_ready", headers=((b"retry-after", b"1"),))
        return Probe("ready")

    async def health(self, exchange: Exchange, _: None) -> Health:
        """GET /health."""
        lifecycle = self._lifecycle
        return Health("draining" if lifecycle.draining else "ok", lifecycle.version, lifecycle.uptime_s)

    async def detail(self, exchange: Exchange, _: None) -> None:
        """GET /health/detailed: 503 while one that is needed is down."""
        inference, *behind = await asyncio.gather(self._ask_inference(), *map(self._ask_behind, _BEHIND))
        up = inference.status == "up"
        if not up:
            behind = [Dependency("unknown", needed=False) for _ in _BEHIND]
        dependencies = {"inference": inference, **dict(zip(_BEHIND, behind, strict=True))}
        detail = DetailedHealth(
            status=_overall(dependencies.values()),
            version=self._lifecycle.version,
            uptime_s=self._lifecycle.uptime_s,
            dependencies=dependencies,
            models=await self._models(exchange) if up else {},
        )
        await exchange.answer_struct(503 if detail.status == "down" else 200, detail)

    async def _ask_inference(self) -> Dependency:
        started = time.perf_counter()
        state = await self._inference.health("", self._timeout_s)
        latency_ms = round((time.perf_counter() - started) * 1000, 3)
        return Dependency(_WORDS.get(state, "unknown"), needed=True, latency_ms=latency_ms)

    async def _ask_behind(self, name: str) -> Dependency:
        """What inference says of a service behind it; one whose need it does not report is not needed."""
        health, timeout_s = self._inference.health, self._timeout_s
        state, needed = await asyncio.gather(
            health(f"dependency/{name}", timeout_s), health(f"needs/{name}", timeout_s)
        )
        return Dependency(_WORDS.get(state, "unknown"), needed=needed == "SERVING")

    async def _models(self, exchange: Exchange) -> dict[str, str]:
        try:
            return {model.name: STATES[model.state] for model in await self._inference.models(exchange)}
        except MillraceError:
            return {}


def _overall(dependencies: Collection[Dependency]) -> Literal["ok", "degraded", "down"]:
    down = [one for one in dependencies if one.status == "down"]
    if any(one.needed for one in down):
        return "down"
    return "degraded" if down else "ok"
