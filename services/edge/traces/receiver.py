"""Where the services of this machine send their spans: OTLP's TraceService on a loopback port of its own.

Not a server of the kit: whatever records a span for each call must not record the calls that carry spans.
"""

from __future__ import annotations

from typing import Any

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc

from kit.errors import ConfigError
from services.edge.traces.store import TraceStore

_HOST = "127.0.0.1"
_UNNAMED = "unknown"


class SpanReceiver(trace_service_pb2_grpc.TraceServiceServicer):
    """Takes spans into a store.

    Args:
        store: Keeps them.
        port: Port on loopback to listen on; 0 takes a free one.
    """

    def __init__(self, store: TraceStore, port: int) -> None:
        self._store, self._port = store, port
        self._server: grpc.aio.Server | None = None

    async def start(self) -> int:
        """Listens; returns the port.

        Raises:
            ConfigError: The port is taken.
        """
        self._server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
        add: Any = trace_service_pb2_grpc.add_TraceServiceServicer_to_server
        add(self, self._server)
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

    async def Export(self, request: Any, context: Any) -> Any:
        """Takes a batch."""
        for group in request.resource_spans:
            service = next(
                (one.value.string_value for one in group.resource.attributes if one.key == "service.name"), ""
            )
            name = service.removeprefix("millrace-") or _UNNAMED
            for scope in group.scope_spans:
                for span in scope.spans:
                    self._store.add(name, span)
        return trace_service_pb2.ExportTraceServiceResponse()
