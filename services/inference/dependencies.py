"""The health of the services that inference leans on, as names in inference's own health service.

`dependency/cache` and `dependency/safety` tell an operator, and the edge's health page, what would degrade. They
never gate a call: calls find out by themselves.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

log = logging.getLogger(__name__)

CHECK_INTERVAL_S = 1.0
FIRST_INTERVAL_S = 0.1  # until it was up once: somebody waits for that
CHECK_TIMEOUT_S = 1.0


class DependencyWatch:
    """Asks each dependency for its health, once a second."""

    def __init__(self, channels: Mapping[str, grpc.aio.Channel], report: Callable[[str, bool], None]) -> None:
        self._stubs: dict[str, Any] = {name: health_pb2_grpc.HealthStub(channel) for name, channel in channels.items()}
        self._report = report
        self._tasks: list[asyncio.Task[None]] = []
        self._seen_up: dict[str, asyncio.Event] = {name: asyncio.Event() for name in self._stubs}

    async def start(self) -> None:
        """Asks once, then goes on in the background."""
        await asyncio.gather(*(self._check(name) for name in self._stubs))
        self._tasks = [asyncio.create_task(self._watch(name)) for name in self._stubs]

    async def up(self, wait_s: float) -> None:
        """Waits until each was up once, so that a suite that starts together does not begin with refusals."""
        try:
            async with asyncio.timeout(wait_s):
                for seen in self._seen_up.values():
                    await seen.wait()
        except TimeoutError:
            missing = sorted(name for name, seen in self._seen_up.items() if not seen.is_set())
            log.warning("serving without dependencies", extra={"missing": missing})

    async def close(self) -> None:
        """Stops asking."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _watch(self, name: str) -> None:
        while True:
            await asyncio.sleep(CHECK_INTERVAL_S if self._seen_up[name].is_set() else FIRST_INTERVAL_S)
            await self._check(name)

    async def _check(self, name: str) -> None:
        try:
            answer = await self._stubs[name].Check(health_pb2.HealthCheckRequest(), timeout=CHECK_TIMEOUT_S)
            is_up = answer.status == health_pb2.HealthCheckResponse.SERVING
        except grpc.aio.AioRpcError:
            is_up = False
        self._report(f"dependency/{name}", is_up)
        if is_up:
            self._seen_up[name].set()
