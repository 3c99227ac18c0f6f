"""How one service reaches another: the only place where channels are made.

Every channel balances over the healthy servers behind its target, keeps its connection alive, finds a restarted server
within about a second, and never retries: retrying is decided where its cost is known.
"""

from __future__ import annotations

import json

import grpc

from kit import telemetry as telemetry_module
from kit.channel import Channel
from kit.config import DialSettings
from kit.telemetry import Telemetry

# grpc's own defaults, 1 s growing to 120 s, would leave a suite broken for minutes after a service came back.
_BACKOFF_MS_MIN = 100
_BACKOFF_MS_MAX = 2_000
_CONNECT_TIMEOUT_MS = 5_000


def dial(
    target: str, settings: DialSettings | None = None, telemetry: Telemetry | None = None, service: str = ""
) -> Channel:
    """Opens a channel; it connects with the first call.

    Args:
        target: As host:port, or dns:///name:port for every server behind a name.
        settings: TLS, limits and the default deadline.
        telemetry: Records the calls; without it they carry trace context on all the same.
        service: Full name of the service whose health decides which servers are used; "" is the server as a whole.
    """
    settings = settings or DialSettings()
    telemetry = telemetry or telemetry_module.off()
    options = _options(settings, service)
    credentials = _credentials(settings)
    inner = (
        grpc.aio.insecure_channel(target, options)
        if credentials is None
        else grpc.aio.secure_channel(target, credentials, options)
    )
    return Channel(inner, target, telemetry, settings.deadline_s)


def _options(settings: DialSettings, service: str) -> list[tuple[str, str | int]]:
    config = {"loadBalancingConfig": [{"round_robin": {}}], "healthCheckConfig": {"serviceName": service}}
    options: list[tuple[str, str | int]] = [
        ("grpc.service_config", json.dumps(config)),
        ("grpc.enable_retries", 0),
        ("grpc.max_send_message_length", settings.max_message_bytes),
        ("grpc.max_receive_message_length", settings.max_message_bytes),
        ("grpc.keepalive_time_ms", int(settings.keepalive_time_s * 1000)),
        ("grpc.keepalive_timeout_ms", int(settings.keepalive_timeout_s * 1000)),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),
        ("grpc.initial_reconnect_backoff_ms", _BACKOFF_MS_MIN),
        ("grpc.max_reconnect_backoff_ms", _BACKOFF_MS_MAX),
        ("grpc.min_reconnect_backoff_ms", _CONNECT_TIMEOUT_MS),
    ]
    if settings.tls_server_name is not None:
        options.append(("grpc.ssl_target_name_override", settings.tls_server_name))
    return options


def _credentials(settings: DialSettings) -> grpc.ChannelCredentials | None:
    if settings.tls_ca_file is None:
        return None
    key = settings.tls_key_file.read_bytes() if settings.tls_key_file else None
    chain = settings.tls_cert_file.read_bytes() if settings.tls_cert_file else None
    return grpc.ssl_channel_credentials(settings.tls_ca_file.read_bytes(), key, chain)
