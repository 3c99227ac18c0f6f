"""The health of the services that inference leans on, as names in inference's own health service.

`dependency/cache` and `dependency/safety` tell an operator, and the edge's health page, what would degrade. They
never gate a call: calls find out by themselves.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

CHECK_INTERVAL_S = 1.0
CHECK_TIMEOUT_S = 1.0


class DependencyWatch:
    """Asks each dependency for its health, once a second."""

    def __init__(self, channels: Mapping[str, grpc.aio.Channel], report: Callable[[str, bool], None]) -> None:
        self._stubs: dict[str, Any] = {name: health_pb2_grpc.HealthStub(channel) for name, channel in channels.items()}
        self._report = report
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Asks once, then goes on in the background."""
        await asyncio.gather(*(self._check(name) for name in self._stubs))
        self._tasks = [asyncio.create_task(self._watch(name)) for name in self._stubs]

    async def close(self) -> None:
        """Stops asking."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _watch(self, name: str) -> None:
        while True:
            await asyncio.sleep(CHECK_INTERVAL_S)
            await self._check(name)

    async def _check(self, name: str) -> None:
        try:
            answer = await self._stubs[name].Check(health_pb2.HealthCheckRequest(), timeout=CHECK_TIMEOUT_S)
            self._report(f"dependency/{name}", answer.status == health_pb2.HealthCheckResponse.SERVING)
        except grpc.aio.AioRpcError:
            self._report(f"dependency/{name}", False)
