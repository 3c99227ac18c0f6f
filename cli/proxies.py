"""Whether a proxy that the environment names stands between a command and the suite: never on one's own machine."""

from __future__ import annotations

from urllib.parse import urlsplit

# What is asked over gRPC is the service itself, near as a rule; gRPC would go to the proxy even for loopback.
DIRECT = (("grpc.enable_http_proxy", 0),)
LOOPBACK = ("localhost", "127.0.0.1", "::1")


def are_for(url: str) -> bool:
    """Whether the environment's proxies are for a URL."""
    return urlsplit(url).hostname not in LOOPBACK
