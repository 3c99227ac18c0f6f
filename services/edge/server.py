"""Runs the gateway on uvicorn: readiness first to go, then the port, then what is in flight within the grace."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn

from kit.certificates import Certificates
from services.edge.config import EdgeSettings
from services.edge.gateway import Gateway
from services.edge.http_protocol import HttpProtocol
from services.edge.lifecycle import Lifecycle


class _Uvicorn(uvicorn.Server):
    """uvicorn without its own signal handlers: the entry point has them."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leaves signals alone."""
        yield


class EdgeServer:
    """Serves a gateway over HTTP.

    Args:
        gateway: The application.
        lifecycle: Is told when the process drains.
        settings: Where and how to listen.
    """

    def __init__(self, gateway: Gateway, lifecycle: Lifecycle, settings: EdgeSettings) -> None:
        self._lifecycle = lifecycle
        self._settings = settings
        config = _config(gateway, settings)
        config.load()
        if config.ssl is not None:
            config.ssl = _following(settings, config.ssl, lambda: _loaded(_config(gateway, settings)))
        self._server = _Uvicorn(config)
        self._socket: socket.socket | None = None
        self._serving: asyncio.Task[None] | None = None

    async def start(self) -> int:
        """Listens and serves.

        Returns:
            The bound port.
        Raises:
            OSError: The address cannot be bound.
        """
        self._socket = _listen(self._settings.host, self._settings.port)
        self._serving = asyncio.create_task(self._server.serve(sockets=[self._socket]))
        port: int = self._socket.getsockname()[1]
        return port

    async def wait(self) -> None:
        """Waits until the server has stopped."""
        assert self._serving is not None, "the server was not started"
        await asyncio.shield(self._serving)

    async def stop(self) -> None:
        """Turns `/readyz` to 503, closes the port, lets streams finish within the grace and then cancels them."""
        self._lifecycle.draining = True
        await asyncio.sleep(self._settings.drain_delay_s)
        self._server.should_exit = True
        if self._serving is not None:
            await asyncio.shield(self._serving)


def _following(settings: EdgeSettings, first: ssl.SSLContext, make: Callable[[], ssl.SSLContext]) -> ssl.SSLContext:
    """A context whose handshakes are made with the certificates as their files are then."""
    files = Certificates(settings.tls_cert_file, settings.tls_key_file, settings.tls_client_ca_file)
    files.read()
    current = first

    def follow(connection: ssl.SSLObject | ssl.SSLSocket, _name: str | None, _context: ssl.SSLContext) -> None:
        nonlocal current
        if files.renewed() is not None:
            current = make()
        connection.context = current

    # Called at every handshake, also where the client names no host.
    first.sni_callback = follow
    return first


def _loaded(config: uvicorn.Config) -> ssl.SSLContext:
    config.load()
    assert config.ssl is not None
    return config.ssl


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
    except OSError:
        listening.close()
        raise
    # Bound but not yet listening would refuse the first callers; uvicorn's own call to listen is harmless after this.
    listening.listen(2048)
    return listening


def _config(gateway: Gateway, settings: EdgeSettings) -> uvicorn.Config:
    client_ca = settings.tls_client_ca_file
    tls: dict[str, Any] = {}
    if settings.tls_cert_file is not None:
        tls = {
            "ssl_certfile": str(settings.tls_cert_file),
            "ssl_keyfile": str(settings.tls_key_file),
            "ssl_ca_certs": str(client_ca) if client_ca else None,
            "ssl_cert_reqs": ssl.CERT_REQUIRED if client_ca else ssl.CERT_NONE,
        }
    return uvicorn.Config(
        gateway,
        loop="none",  # the entry point has chosen it
        http=HttpProtocol,
        ws="none",
        lifespan="off",
        access_log=False,
        log_config=None,
        server_header=False,
        proxy_headers=bool(settings.proxies),
        forwarded_allow_ips=settings.proxies or "127.0.0.1",
        timeout_keep_alive=int(settings.keep_alive_s),
        timeout_graceful_shutdown=max(1, int(settings.grace_s)),
        backlog=2048,
        **tls,
    )
