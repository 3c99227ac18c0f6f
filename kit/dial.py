"""How one service reaches another: the only place where channels are made.

Every channel balances over the healthy servers behind its target, keeps its connection alive, finds a restarted server
within about a second, follows the files of its certificates, and never retries: retrying is decided where its cost is
known.
"""

from __future__ import annotations

import json

import grpc

from kit import telemetry as telemetry_module
from kit.certificates import Certificates, Pem
from kit.channel import Channel
from kit.config import ConfigError, DialSettings
from kit.telemetry import Telemetry

# grpc's own defaults, 1 s growing to 120 s, would leave a suite broken for minutes after a service came back.
_BACKOFF_MS_MIN = 100
_BACKOFF_MS_MAX = 2_000
_CONNECT_TIMEOUT_MS = 5_000
# A channel asks DNS again when a connection ends, but never sooner than this; with grpc's own default, 30 s, a replica
# that is new would wait that long for its first call.
_RESOLVE_INTERVAL_MS = 1_000
# Before another server is asked in place of one that went away: a call that is made before the channel has noticed may
# be given to the same one, and meet the same end.
REPLICA_WAITS_S = (0.02, 0.1)


def dial(
    target: str, settings: DialSettings | None = None, telemetry: Telemetry | None = None, service: str = ""
) -> Channel:
    """Opens a channel; it connects with the first call.

    Args:
        target: As host:port, or dns:///name:port for every server behind a name.
        settings: TLS, limits and the default deadline.
        telemetry: Records the calls; without it they carry trace context on all the same.
        service: Full name of the service whose health decides which servers are used; "" is the server as a whole.
    Raises:
        ConfigError: The certificates cannot be used.
    """
    settings = settings or DialSettings()
    telemetry = telemetry or telemetry_module.off()
    options = _options(settings, service)
    if settings.tls_ca_file is None:
        return Channel(grpc.aio.insecure_channel(target, options), target, telemetry, settings.deadline_s)
    files = Certificates(settings.tls_cert_file, settings.tls_key_file, settings.tls_ca_file)

    def connect(pem: Pem) -> grpc.aio.Channel:
        credentials = grpc.ssl_channel_credentials(pem.authorities, pem.key, pem.chain)
        return grpc.aio.secure_channel(target, credentials, options)

    def renew() -> grpc.aio.Channel | None:
        pem = files.renewed()
        return None if pem is None else connect(pem)

    try:
        inner = connect(files.read())
    except (OSError, ValueError) as error:
        raise ConfigError(f"the certificates to reach {target} with are of no use: {error}") from None
    return Channel(inner, target, telemetry, settings.deadline_s, renew)


def _options(settings: DialSettings, service: str) -> list[tuple[str, str | int]]:
    config = {"loadBalancingConfig": [{"round_robin": {}}], "healthCheckConfig": {"serviceName": service}}
    options: list[tuple[str, str | int]] = [
        ("grpc.service_config", json.dumps(config)),
        # What is decided here is not for whoever answers DNS.
        ("grpc.service_config_disable_resolution", 1),
        ("grpc.dns_min_time_between_resolutions_ms", _RESOLVE_INTERVAL_MS),
        ("grpc.enable_retries", 0),
        # A proxy that the environment names is for the way out; services are not behind it.
        ("grpc.enable_http_proxy", 0),
        # Else a channel takes over from any other to the same address, its wait before the next try included.
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.max_send_message_length", settings.max_message_bytes),
        ("grpc.max_receive_message_length", settings.max_message_bytes),
        ("grpc.keepalive_time_ms", int(settings.keepalive_time_s * 1000)),
        ("grpc.keepalive_timeout_ms", int(settings.keepalive_timeout_s * 1000)),
        # The kernel answers for a frozen process: only the ping itself tells, and grpc gives that a minute.
        ("grpc.http2.ping_timeout_ms", int(settings.keepalive_timeout_s * 1000)),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),
        ("grpc.initial_reconnect_backoff_ms", _BACKOFF_MS_MIN),
        ("grpc.max_reconnect_backoff_ms", _BACKOFF_MS_MAX),
        ("grpc.min_reconnect_backoff_ms", _CONNECT_TIMEOUT_MS),
    ]
    if settings.tls_server_name is not None:
        options.append(("grpc.ssl_target_name_override", settings.tls_server_name))
    return options
