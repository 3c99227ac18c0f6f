"""Waits until a service is ready, as its orchestrator would: by gRPC health, and by `/readyz` on the edge.

Retries for as long as it is left running; whoever calls decides how long that is.
"""

from __future__ import annotations

import asyncio
import http.client
import ssl
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from cli.child import Part
from cli.proxies import DIRECT

READYZ_INTERVAL_S = 0.1
READYZ_TIMEOUT_S = 2.0
# A service that is starting is tried again soon: gRPC's own first pause is a second, and it doubles.
CHANNEL_OPTIONS = [
    *DIRECT,
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 200),
]


async def until_serving(part: Part) -> None:
    """Returns when the server as a whole says SERVING on its health Watch."""
    async with grpc.aio.insecure_channel(part.address, CHANNEL_OPTIONS) as channel:
        # The stub's methods are made at run time; its published types do not name them.
        stub: Any = health_pb2_grpc.HealthStub(channel)
        while True:
            try:
                async for answer in stub.Watch(health_pb2.HealthCheckRequest(), wait_for_ready=True):
                    if answer.status == health_pb2.HealthCheckResponse.SERVING:
                        return
            except grpc.aio.AioRpcError:
                await asyncio.sleep(READYZ_INTERVAL_S)


async def until_listening(part: Part) -> None:
    """Returns when the service's port takes connections."""
    while True:
        try:
            _, writer = await asyncio.open_connection(part.host, part.port)
        except OSError:
            await asyncio.sleep(READYZ_INTERVAL_S)
        else:
            writer.close()
            return


async def until_readyz(part: Part) -> None:
    """Returns when `GET /readyz` answers 200."""
    while True:
        if await asyncio.to_thread(_answers_200, part.address, "/readyz", part.tls):
            return
        await asyncio.sleep(READYZ_INTERVAL_S)


def _answers_200(address: str, path: str, tls: bool) -> bool:
    # Asks our own child on this machine whether it is up: its certificate names another host.
    connection = (
        http.client.HTTPSConnection(address, timeout=READYZ_TIMEOUT_S, context=ssl._create_unverified_context())
        if tls
        else http.client.HTTPConnection(address, timeout=READYZ_TIMEOUT_S)
    )
    try:
        connection.request("GET", path)
        return connection.getresponse().status == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
