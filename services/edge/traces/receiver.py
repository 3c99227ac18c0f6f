"""Where the services of this machine send their spans: OTLP's TraceService on a loopback port of its own.

Not a server of the kit: whatever records a span for each call must not record the calls that carry spans.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2

from kit.errors import ConfigError

_HOST = "127.0.0.1"
_SERVICE = trace_service_pb2.DESCRIPTOR.services_by_name["TraceService"].full_name
_DONE = trace_service_pb2.ExportTraceServiceResponse().SerializeToString()


class SpanReceiver:
    """Takes exports of spans, as the bytes that they are: whether they can be read is seen by who looks for a trace.

    Args:
        take: Takes each.
        port: Port on loopback to listen on; 0 takes a free one.
    """

    def __init__(self, take: Callable[[bytes], None], port: int) -> None:
        self._take, self._port = take, port
        self._server: grpc.aio.Server | None = None

    async def start(self) -> int:
        """Listens; returns the port.

        Raises:
            ConfigError: The port is taken.
        """
        self._server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
        handlers: dict[str, Any] = {"Export": grpc.unary_unary_rpc_method_handler(self._export)}
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(_SERVICE, handlers),))
        try:
            port = self._server.add_insecure_port(f"{_HOST}:{self._port}")
        except RuntimeError:
            raise ConfigError(f"MILLRACE_EDGE_SPAN_STORE_PORT={self._port}: cannot listen on {_HOST}") from None
        await self._server.start()
        return port

    async def stop(self) -> None:
        """Stops listening."""
        if self._server is not None:
            await self._server.stop(0)

    async def _export(self, export: bytes, context: grpc.aio.ServicerContext[Any, Any]) -> bytes:
        self._take(export)
        return _DONE
