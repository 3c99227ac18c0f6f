"""GET /livez, /readyz, /ready, /health and /health/detailed.

Alive means the process answers; ready means that inference, the one thing the edge needs, serves. Cache and safety are
behind inference, which reports them: it degrades without the cache, and with safety down it serves or stops serving as
its policy says.
"""

from __future__ import annotations

import asyncio
import time
from typing import Literal

from kit.errors import MillraceError
from services.edge.exchange import Exchange
from services.edge.fault import Fault
from services.edge.inference_client import InferenceClient
from services.edge.lifecycle import Lifecycle
from services.edge.openai.models import STATES
from services.edge.service.bodies import Dependency, DetailedHealth, Health, Probe

_WORDS: dict[str, Literal["up", "down"]] = {"SERVING": "up", "NOT_SERVING": "down", "UNREACHABLE": "down"}
_BEHIND = ("cache", "safety")


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
        """GET /health/detailed: 503 while inference is down."""
        names = ("", *(f"dependency/{name}" for name in _BEHIND))
        inference, *behind = await asyncio.gather(*(self._ask(name, needed=not name) for name in names))
        dependencies = {"inference": inference, **dict(zip(_BEHIND, behind, strict=True))}
        up = inference.status == "up"
        detail = DetailedHealth(
            status="down" if not up else "degraded" if any(d.status == "down" for d in behind) else "ok",
            version=self._lifecycle.version,
            uptime_s=self._lifecycle.uptime_s,
            dependencies=dependencies,
            models=await self._models(exchange) if up else {},
        )
        await exchange.answer_struct(200 if up else 503, detail)

    async def _ask(self, name: str, needed: bool) -> Dependency:
        started = time.perf_counter()
        state = await self._inference.health(name, self._timeout_s)
        latency_ms = round((time.perf_counter() - started) * 1000, 3)
        word: Literal["up", "down", "unknown"] = _WORDS.get(state, "unknown")
        return Dependency(word, needed, latency_ms) if not name else Dependency(word, needed)

    async def _models(self, exchange: Exchange) -> dict[str, str]:
        try:
            return {model.name: STATES[model.state] for model in await self._inference.models(exchange)}
        except MillraceError:
            return {}
