"""gRPC health (grpc.health.v1) whose Watch tells every change and ends when the server stops.

The reference servicer's Watch never ends, so that each watching client, as every load-balancing one is, would hold up
a graceful stop for its whole grace. Names are "" for the server, full service names, and free ones such as `model/x`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

Response = health_pb2.HealthCheckResponse
# The published stubs do not know of it yet.
_ListResponse: Any = getattr(health_pb2, "HealthListResponse")  # noqa: B009


class HealthServicer(health_pb2_grpc.HealthServicer):
    """Holds a status per name and answers for it. The server itself starts NOT_SERVING."""

    def __init__(self) -> None:
        self._statuses: dict[str, int] = {"": Response.NOT_SERVING}
        self._changed = asyncio.Event()
        self._frozen = False
        self._released = False

    def set_serving(self, name: str, serving: bool) -> None:
        """Sets the status of a name; without effect once the server stops."""
        if not self._frozen:
            self._statuses[name] = Response.SERVING if serving else Response.NOT_SERVING
            self._wake()

    def forget(self, name: str) -> None:
        """Knows nothing of a name any more; without effect once the server stops."""
        if not self._frozen and self._statuses.pop(name, None) is not None:
            self._wake()

    def freeze(self) -> None:
        """Turns every name NOT_SERVING, for good."""
        self._statuses = dict.fromkeys(self._statuses, Response.NOT_SERVING)
        self._frozen = True
        self._wake()

    def release(self) -> None:
        """Ends every Watch, now and from now on.

        Only for a server that takes no more calls: a balancing client opens its Watch again as soon as it ends.
        """
        self._released = True
        self._wake()

    async def Check(self, request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
        """Returns the status of a name; NOT_FOUND where there is none."""
        status = self._statuses.get(request.service)
        if status is None:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"nothing is known of {request.service!r}")
        return Response(status=status)

    async def List(self, request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
        """Returns the status of every name."""
        return _ListResponse(statuses={name: Response(status=status) for name, status in self._statuses.items()})

    async def Watch(self, request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> AsyncIterator[Any]:
        """Yields the status of a name at once and at each change; SERVICE_UNKNOWN while there is none."""
        last = None
        while True:
            changed, released = self._changed, self._released
            status = self._statuses.get(request.service, Response.SERVICE_UNKNOWN)
            if status != last:
                yield Response(status=status)
                last = status
            if released:
                return
            await changed.wait()

    def _wake(self) -> None:
        """Wakes every watcher; each change has an event of its own, so that none is missed while one is being sent."""
        self._changed.set()
        self._changed = asyncio.Event()
