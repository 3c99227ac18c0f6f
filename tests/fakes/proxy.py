"""An environment that names an HTTP proxy, as many a company's does."""

from __future__ import annotations

import pytest


def name_a_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Names one that nobody listens at for whatever goes out."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "grpc_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # nobody listens there
    for name in ("no_proxy", "NO_PROXY", "no_grpc_proxy"):
        monkeypatch.delenv(name, raising=False)
