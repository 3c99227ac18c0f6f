"""Asks a server whether it is well: the health check of the containers, which have no other tool for it.

    python -m kit.healthcheck HOST:PORT [SERVICE]    asks gRPC health
    python -m kit.healthcheck http://HOST:PORT/PATH  expects 200

Exits 0 when it is, else 1 with the reason. It never retries: that is the orchestrator's part.
"""

from __future__ import annotations

import sys
import urllib.error
import urllib.request
from collections.abc import Sequence
from typing import Any

TIMEOUT_S = 2.0


def main(argv: Sequence[str]) -> int:
    """Checks one server and returns the exit code."""
    if not argv or len(argv) > 2:
        print(__doc__, file=sys.stderr)
        return 2
    http = argv[0].startswith(("http://", "https://"))
    complaint = _ask_http(argv[0]) if http else _ask_grpc(argv[0], *argv[1:])
    if complaint:
        print(complaint, file=sys.stderr)
    return 1 if complaint else 0


def _ask_http(url: str) -> str:
    """Returns what is wrong, or nothing."""
    try:
        # Without the proxy that the environment may name: what is asked is in the same container.
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url, timeout=TIMEOUT_S):
            return ""
    except (OSError, urllib.error.HTTPError) as error:
        return f"{url}: {error}"


def _ask_grpc(address: str, service: str = "") -> str:
    """Returns what is wrong, or nothing."""
    import grpc
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    with grpc.insecure_channel(address, [("grpc.enable_http_proxy", 0)]) as channel:
        try:
            request = health_pb2.HealthCheckRequest(service=service)
            stub: Any = health_pb2_grpc.HealthStub(channel)  # its published types do not name the methods
            answer = stub.Check(request, timeout=TIMEOUT_S)
        except grpc.RpcError as error:
            return f"{address}: {error.code().name}: {error.details()}"
    name = health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)
    return "" if name == "SERVING" else f"{address}: {name}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
