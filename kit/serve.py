"""The one way to be a server: start, tell the truth about health, drain, stop.

`Server` is a gRPC server with the kit around it, for tests and for processes. `main` and `run` are the life of a
process: settings, logs, telemetry, warm-up, SIGTERM, drain. A server says NOT_SERVING until it is warm and from the
moment it is told to stop.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NoReturn, Protocol, TypeVar

import grpc
import uvloop
from grpc_health.v1 import health, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2_grpc

from kit import logs
from kit import telemetry as telemetry_module
from kit.certificates import Certificates, Pem
from kit.config import ServeSettings, load
from kit.errors import ConfigError
from kit.health import HealthServicer
from kit.interceptors import CallInterceptor, Identify, Registrar
from kit.process import calm_collector, leave, raise_open_files
from kit.telemetry import Telemetry

# As for a bad command line: nothing was done.
EXIT_CONFIG = 2
# Handlers that were cut off get this long to clean up before what they use is closed.
_CLEANUP_S = 2.0

SettingsT = TypeVar("SettingsT", bound=ServeSettings)

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Registration:
    """A servicer and how it is added.

    Attributes:
        full_name: As `millrace.cache.v1.CacheService`.
        add: The generated `add_..._to_server`.
        servicer: The servicer.
        identify: Finds out who calls it; None believes the metadata.
    """

    full_name: str
    add: Callable[[Any, Any], None]
    servicer: Any
    identify: Identify | None = None


class Service(Protocol):
    """What a service's wiring returns."""

    @property
    def registrations(self) -> Sequence[Registration]:
        """What it serves."""

    async def warm(self, server: Server) -> None:
        """Gets ready; the server listens and says NOT_SERVING until this returns."""

    async def close(self) -> None:
        """Lets go of everything; no handler runs any more."""


class Server:
    """A gRPC server with health, reflection, limits, TLS and the kit's interceptor.

    Attributes:
        health_port: Where health alone is answered, once started; None where that was not asked for.
    """

    def __init__(
        self, name: str, settings: ServeSettings, registrations: Sequence[Registration], telemetry: Telemetry
    ) -> None:
        self.health_port: int | None = None
        self._name = name
        self._settings = settings
        self._registrations = tuple(registrations)
        self._interceptor = CallInterceptor(telemetry)
        self._health = HealthServicer()
        self._on_stop: list[Callable[[], None]] = []
        self._server = grpc.aio.server(
            options=_options(settings),
            maximum_concurrent_rpcs=settings.max_concurrent_calls,
        )
        self._probed = grpc.aio.server(options=[("grpc.so_reuseport", 0)]) if settings.health_port is not None else None

    async def start(self) -> int:
        """Listens, NOT_SERVING as yet, and returns the port.

        Raises:
            ConfigError: The address cannot be listened on, or the certificate cannot be used.
        """
        # To generated code a registrar is a server: it only adds handlers to it.
        for registration in self._registrations:
            recorded: Any = Registrar(self._server, self._interceptor, registration.identify)
            registration.add(registration.servicer, recorded)
            self.set_serving(registration.full_name, False)
        plain: Any = Registrar(self._server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, plain)
        if self._settings.reflection:
            self._reflect()
        port = self._listen()
        await self._server.start()
        if self._probed is not None:
            await self._start_probed(self._probed)
        return port

    async def _start_probed(self, server: grpc.aio.Server) -> None:
        """Answers health alone, in plaintext: what probes that cannot speak TLS may ask."""
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        self.health_port = self._bind("HEALTH_PORT", self._settings.health_port or 0, server.add_insecure_port)
        await server.start()

    def _reflect(self) -> None:
        """Answers reflection, to those whom the services let in where they ask who calls."""
        full_names = [registration.full_name for registration in self._registrations]
        servicer = reflection.aio.ReflectionServicer([*full_names, health.SERVICE_NAME, reflection.SERVICE_NAME])
        identify = next((one.identify for one in self._registrations if one.identify is not None), None)
        registrar: Any = Registrar(self._server, self._interceptor if identify else None, identify)
        reflection_pb2_grpc.add_ServerReflectionServicer_to_server(servicer, registrar)

    def set_serving(self, name: str, serving: bool) -> None:
        """Sets the health of a full service name, of a name such as `model/x`, or, by "", of all that is served."""
        if not name:
            for registration in self._registrations:
                self._health.set_serving(registration.full_name, serving)
        self._health.set_serving(name, serving)

    def on_stop(self, act: Callable[[], None]) -> None:
        """Has something done when the stop begins: for streams that never end by themselves."""
        self._on_stop.append(act)

    def forget(self, name: str) -> None:
        """Takes a free name, such as `model/x`, out of the health service."""
        self._health.forget(name)

    async def stop(self, grace_s: float | None = None) -> None:
        """Says NOT_SERVING, refuses new calls, lets those in flight finish within the grace, then cancels them.

        A second call with a shorter grace cuts the first one short; with none there is no announcement either.
        """
        grace_s = self._settings.grace_s if grace_s is None else grace_s
        self._health.freeze()
        for act in self._on_stop:
            act()
        if grace_s:
            # A call that meets a server as it closes is CANCELLED by grpc and may have run or not. Clients that watch
            # our health go elsewhere first.
            await asyncio.sleep(self._settings.announce_s)
        self._health.release()
        await self._server.stop(grace_s)
        if self._probed is not None:
            await self._probed.stop(None)
        with suppress(TimeoutError):
            async with asyncio.timeout(_CLEANUP_S):
                await self._interceptor.idle()

    async def ended(self) -> None:
        """Returns once the server has stopped, for whatever reason."""
        # Unshielded, whoever cancels this wait cancels the very future that a graceful stop waits for (grpcio 1.85),
        # and the stop cuts every call.
        await asyncio.shield(self._server.wait_for_termination())

    def _listen(self) -> int:
        settings = self._settings
        if settings.tls_cert_file is None:
            return self._bind("PORT", settings.port, self._server.add_insecure_port)
        credentials = _credentials(settings)
        return self._bind("PORT", settings.port, lambda address: self._server.add_secure_port(address, credentials))

    def _bind(self, field: str, port: int, add: Callable[[str], int]) -> int:
        host = f"[{self._settings.host}]" if ":" in self._settings.host else self._settings.host
        address = f"{host}:{port}"
        try:
            return add(address)
        except RuntimeError:
            variable = f"{self._settings.model_config.get('env_prefix') or ''}{field}"
            raise ConfigError(
                f"{variable}={port}: {self._name} cannot listen on {address}: is the port in use?"
            ) from None


def main(
    name: str, settings_class: type[SettingsT], build: Callable[[SettingsT, Telemetry], Awaitable[Service]]
) -> NoReturn:
    """The whole of a service's `__main__`: reads its settings, runs it and exits."""
    try:
        settings = load(settings_class)
    except ConfigError as error:
        _refuse(name, error)
    run(name, settings, lambda telemetry: build(settings, telemetry))


def run(name: str, settings: ServeSettings, build: Callable[[Telemetry], Awaitable[Service]]) -> NoReturn:
    """Runs a service until SIGTERM or SIGINT and exits: 0 after a drain, 2 where start-up was refused."""
    try:
        logs.setup(name, settings.log_level)
        raise_open_files()
        uvloop.run(_Process(name, settings, build).live())
    except ConfigError as error:
        _refuse(name, error)
    leave(0)


def _refuse(name: str, error: ConfigError) -> NoReturn:
    print(f"{name}: {error.message}", file=sys.stderr)
    leave(EXIT_CONFIG)


class _Process:
    """The life of one service process."""

    def __init__(self, name: str, settings: ServeSettings, build: Callable[[Telemetry], Awaitable[Service]]) -> None:
        self._name = name
        self._settings = settings
        self._build = build
        self._server: Server | None = None
        self._cuts: set[asyncio.Task[None]] = set()

    async def live(self) -> None:
        """Builds, warms, serves, and undoes each in turn; returns normally after a signal."""
        telemetry = telemetry_module.setup(f"millrace-{self._name}", self._settings)
        try:
            self._on_signal(_current_task().cancel)
            service = await self._build(telemetry)
            try:
                await self._serve(service, telemetry)
            finally:
                await service.close()
        except asyncio.CancelledError:
            _log.info("stopped")
        finally:
            await asyncio.to_thread(telemetry.shutdown)

    async def _serve(self, service: Service, telemetry: Telemetry) -> None:
        server = self._server = Server(self._name, self._settings, service.registrations, telemetry)
        try:
            port = await server.start()
            _log.info("listening", extra={"host": self._settings.host, "port": port})
            await service.warm(server)
            calm_collector()
            server.set_serving("", True)
            _log.info("ready", extra={"port": port})
            await server.ended()
        finally:
            # A second signal must not cancel the drain half-way but cut its grace.
            self._on_signal(self._cut)
            _log.info("draining", extra={"grace_s": self._settings.grace_s})
            await server.stop()

    def _cut(self) -> None:
        """Ends the drain at once; a third signal kills the process."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)
        if self._server is not None:
            self._cuts.add(loop.create_task(self._server.stop(0)))

    def _on_signal(self, act: Callable[[], object]) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, act)


def _current_task() -> asyncio.Task[Any]:
    task = asyncio.current_task()
    assert task is not None
    return task


def _options(settings: ServeSettings) -> list[tuple[str, int]]:
    options = [
        # Two processes on one port would share its connections unevenly, and a mistake would go unnoticed.
        ("grpc.so_reuseport", 0),
        ("grpc.max_send_message_length", settings.max_message_bytes),
        ("grpc.max_receive_message_length", settings.max_message_bytes),
        ("grpc.keepalive_time_ms", int(settings.keepalive_time_s * 1000)),
        ("grpc.keepalive_timeout_ms", int(settings.keepalive_timeout_s * 1000)),
        ("grpc.http2.ping_timeout_ms", int(settings.keepalive_timeout_s * 1000)),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_ping_interval_without_data_ms", int(settings.keepalive_min_interval_s * 1000)),
    ]
    if settings.max_concurrent_streams is not None:
        options.append(("grpc.max_concurrent_streams", settings.max_concurrent_streams))
    if settings.max_connection_age_s is not None:
        options.append(("grpc.max_connection_age_ms", int(settings.max_connection_age_s * 1000)))
        options.append(("grpc.max_connection_age_grace_ms", int(settings.max_connection_age_grace_s * 1000)))
    return options


def _credentials(settings: ServeSettings) -> grpc.ServerCredentials:
    """Credentials that follow their files: each handshake is made with the certificates as they are then.

    Raises:
        ConfigError: The files are of no use now.
    """
    files = Certificates(settings.tls_cert_file, settings.tls_key_file, settings.tls_client_ca_file)
    try:
        first = _configuration(files.read())
    except (OSError, ValueError) as error:
        variable = f"{settings.model_config.get('env_prefix') or ''}TLS_CERT_FILE"
        raise ConfigError(f"{variable}={str(settings.tls_cert_file)!r}: is no certificate of use: {error}") from None

    def renewed() -> Any:  # or None, which the published types do not know of
        pem = files.renewed()
        return None if pem is None else _configuration(pem)

    mutual = settings.tls_client_ca_file is not None
    return grpc.dynamic_ssl_server_credentials(first, renewed, require_client_authentication=mutual)


def _configuration(pem: Pem) -> grpc.ServerCertificateConfiguration:
    assert pem.key is not None
    assert pem.chain is not None
    return grpc.ssl_server_certificate_configuration([(pem.key, pem.chain)], pem.authorities)
