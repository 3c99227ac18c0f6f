"""Settings from the environment: read once, checked at start, frozen after.

Each service declares one subclass of `ServeSettings` and calls `load` in its `__main__`. A variable is named
MILLRACE_<SERVICE>_<FIELD>; with `_FILE` behind it, it names a file that holds the value (for secrets). An empty value
counts as unset, and some fields then take a variable that is standard elsewhere, such as OTEL_EXPORTER_OTLP_ENDPOINT.
Nothing else in the code base reads the environment, and building a settings object directly, as tests do, reads nothing
at all.
"""

from __future__ import annotations

import difflib
import json
import os
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, Self, TypeVar, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, FilePath, SecretStr, ValidationError, model_validator
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from kit.errors import ConfigError as ConfigError

FILE_SUFFIX = "_FILE"

LogLevel = Literal["debug", "info", "warning", "error"]


class Settings(BaseSettings):
    """Base of every settings class; a subclass sets `env_prefix` and gives each field a description."""

    model_config = SettingsConfigDict(frozen=True, extra="forbid")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Leaves only the arguments: `load` is the one way in from the environment."""
        return (init_settings,)


class ServeSettings(Settings):
    """What every server needs to know; see `kit.serve`."""

    host: str = Field(default="127.0.0.1", description="Address to listen on; 0.0.0.0 for every interface.")
    port: int = Field(default=0, ge=0, le=65535, description="Port to listen on; 0 picks a free one.")
    grace_s: float = Field(default=10.0, ge=0, description="Seconds that calls in flight get to finish after SIGTERM.")
    announce_s: float = Field(
        default=0.1, ge=0, description="Seconds between NOT_SERVING and the end of new calls, for clients to move on."
    )
    tls_cert_file: FilePath | None = Field(
        default=None, description="Certificate chain (PEM); turns TLS on. Renewed files are taken without a restart."
    )
    tls_key_file: FilePath | None = Field(default=None, description="Private key of the certificate (PEM).")
    tls_client_ca_file: FilePath | None = Field(
        default=None, description="Authorities (PEM) that sign clients; turns mutual TLS on: others are refused."
    )
    health_port: int | None = Field(
        default=None,
        ge=0,
        le=65535,
        description="Port for gRPC health alone, in plaintext, for probes that speak no TLS (not at the edge).",
    )
    max_message_bytes: int = Field(
        default=16 * 1024 * 1024, ge=1024, description="Largest message in either direction."
    )
    max_concurrent_streams: int | None = Field(default=None, ge=1, description="Most calls in flight per connection.")
    max_concurrent_calls: int | None = Field(
        default=None, ge=1, description="Most calls in flight in all; more are refused with RESOURCE_EXHAUSTED."
    )
    keepalive_time_s: float = Field(default=60.0, ge=1, description="Seconds of silence before a connection is probed.")
    keepalive_timeout_s: float = Field(default=20.0, ge=1, description="Seconds that a probe may stay unanswered.")
    keepalive_min_interval_s: float = Field(
        default=10.0, ge=1, description="Clients that probe more often are disconnected."
    )
    max_connection_age_s: float | None = Field(
        default=None, ge=1, description="Age at which clients are asked to reconnect, so that they find new servers."
    )
    max_connection_age_grace_s: float = Field(
        default=600.0, ge=1, description="Seconds that calls on such a connection get; longer than the longest stream."
    )
    reflection: bool = Field(default=True, description="Answer gRPC server reflection.")
    log_level: LogLevel = Field(default="info", description="Least severity that is logged.")
    otlp_endpoint: str | None = Field(
        default=None,
        pattern=r"^https?://",
        description="OTLP/gRPC collector of traces, metrics and logs, as http://host:4317; unset exports none.",
        json_schema_extra={"standard": "OTEL_EXPORTER_OTLP_ENDPOINT"},
    )
    otlp_headers: SecretStr | None = Field(
        default=None,
        description="Metadata for the collector, as key=value, comma separated.",
        json_schema_extra={"standard": "OTEL_EXPORTER_OTLP_HEADERS"},
    )
    otlp_delay_ms: int = Field(
        default=1000,
        ge=1,
        le=60_000,
        description="How long spans and logs gather before they are exported.",
        json_schema_extra={"standard": "OTEL_BSP_SCHEDULE_DELAY"},
    )
    otlp_metrics_interval_s: float = Field(default=15.0, ge=0.1, le=600, description="Seconds between metric exports.")
    trace_sample_ratio: float = Field(
        default=1.0, ge=0, le=1, description="Part of new traces that is sampled; a caller's decision is kept."
    )
    trace_slow_s: float = Field(
        default=10.0, gt=0, description="Traces that are not sampled are exported all the same where they last longer."
    )
    span_store: str | None = Field(
        default=None,
        description="host:port of the edge's own span store, which gets every span as well; `millrace up` sets it.",
    )
    metrics_port: int | None = Field(
        default=None, ge=0, le=65535, description="Port of the Prometheus page; unset has none."
    )

    @model_validator(mode="after")
    def _tls_is_whole(self) -> Self:
        if (self.tls_cert_file is None) != (self.tls_key_file is None):
            raise ValueError("TLS_CERT_FILE and TLS_KEY_FILE must be given together")
        if self.tls_client_ca_file is not None and self.tls_cert_file is None:
            raise ValueError("TLS_CLIENT_CA_FILE needs TLS_CERT_FILE and TLS_KEY_FILE")
        return self


class DialSettings(BaseModel):
    """How to reach another service; see `kit.dial`. A settings class may hold one as a field, per service it calls."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    target: str = Field(default="", description="gRPC target, as host:port or dns:///name:port.")
    tls_ca_file: FilePath | None = Field(
        default=None, description="Authorities (PEM) that sign the server; turns TLS on."
    )
    tls_cert_file: FilePath | None = Field(default=None, description="Our certificate chain (PEM), for mutual TLS.")
    tls_key_file: FilePath | None = Field(default=None, description="Our private key (PEM), for mutual TLS.")
    tls_server_name: str | None = Field(default=None, description="Name to expect in the server's certificate.")
    deadline_s: float = Field(
        default=60.0, gt=0, description="Deadline of a call that has neither its own nor a caller's."
    )
    max_message_bytes: int = Field(
        default=16 * 1024 * 1024, ge=1024, description="Largest message in either direction."
    )
    keepalive_time_s: float = Field(
        default=60.0, ge=10, description="Seconds of silence before the connection is probed."
    )
    keepalive_timeout_s: float = Field(default=10.0, ge=1, description="Seconds that a probe may stay unanswered.")

    @model_validator(mode="after")
    def _tls_is_whole(self) -> Self:
        if (self.tls_cert_file is None) != (self.tls_key_file is None):
            raise ValueError("TLS_CERT_FILE and TLS_KEY_FILE must be given together")
        if self.tls_cert_file is not None and self.tls_ca_file is None:
            raise ValueError("TLS_CERT_FILE needs TLS_CA_FILE")
        return self


SettingsT = TypeVar("SettingsT", bound=Settings)


def load(cls: type[SettingsT], environ: Mapping[str, str] = os.environ) -> SettingsT:
    """Reads a settings class from the environment.

    Raises:
        ConfigError: A variable is unknown or its value is bad; names each one, its value and what is allowed.
    """
    prefix = _prefix(cls)
    variables = {variable: (path, field) for variable, path, field in _variables(cls, prefix)}
    _refuse_unknown(prefix, variables.keys(), environ)
    values: dict[str, Any] = {}
    for variable, (path, field) in variables.items():
        text = _text(variable, environ) or environ.get(_given_elsewhere(field, environ), "") or None
        if text is not None:
            *outer, name = path
            group = values
            for part in outer:
                group = group.setdefault(part, {})
            group[name] = _decoded(variable, text, field)
    try:
        return cls(**values)
    except ValidationError as error:
        secret = {variable for variable, (_, field) in variables.items() if _is_secret(field)}
        elsewhere = {variable: _given_elsewhere(field, environ) for variable, (_, field) in variables.items()}
        complaints = (_complaint(prefix, e, environ, secret, elsewhere) for e in error.errors())
        raise ConfigError("; ".join(complaints)) from None


def table(cls: type[Settings]) -> str:
    """Returns a Markdown table of the variables, their defaults and meanings."""
    rows = ["| Variable | Default | Meaning |", "|---|---|---|"]
    for variable, _, field in _variables(cls, _prefix(cls)):
        standard = f" Else as `{names[0]}` says." if (names := _standards(field)) else ""
        rows.append(f"| `{variable}` | {_default(field)} | {field.description or ''}{standard} |")
    return "\n".join(rows) + "\n"


def _prefix(cls: type[Settings]) -> str:
    return cls.model_config.get("env_prefix") or ""


def _variables(
    cls: type[BaseModel], prefix: str, outer: tuple[str, ...] = ()
) -> Iterator[tuple[str, tuple[str, ...], FieldInfo]]:
    """Yields each variable with the path of its field; a field that is a model adds its name to the prefix."""
    for name, field in cls.model_fields.items():
        variable, path = prefix + name.upper(), (*outer, name)
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from _variables(field.annotation, f"{variable}_", path)
        else:
            yield variable, path, field


def _refuse_unknown(prefix: str, known: Collection[str], environ: Mapping[str, str]) -> None:
    """A misspelt variable would otherwise be a default that nobody notices."""
    for variable in environ:
        if variable.startswith(prefix) and variable not in known and variable.removesuffix(FILE_SUFFIX) not in known:
            close = difflib.get_close_matches(variable, known, n=1)
            hint = f"; did you mean {close[0]}?" if close else ""
            raise ConfigError(f"{variable}: there is no such setting{hint}")


def _text(variable: str, environ: Mapping[str, str]) -> str | None:
    """Returns the value of a variable, or what the file holds that it names; None where it is unset or empty."""
    text, path = environ.get(variable), environ.get(variable + FILE_SUFFIX)
    if not path:
        return text or None
    if text:
        raise ConfigError(f"{variable} and {variable}{FILE_SUFFIX} are both set: keep one")
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{variable}{FILE_SUFFIX}={path!r}: cannot be read: {error}") from None


def _decoded(variable: str, text: str, field: FieldInfo) -> Any:
    """Reads JSON, or a comma-separated list, where the field is a collection; pydantic parses the rest."""
    origins: list[Any] = [get_origin(alternative) for alternative in _alternatives(field.annotation)]
    kind = next((origin for origin in origins if origin in (list, tuple, set, dict)), None)
    if kind is None:
        return text
    if kind is not dict and not text.startswith("["):
        return [part.strip() for part in text.split(",") if part.strip()]
    try:
        return json.loads(text)
    except ValueError as error:
        raise ConfigError(f"{variable}={text!r}: must be JSON: {error}") from None


def _alternatives(annotation: Any) -> tuple[Any, ...]:
    """Returns the types that an annotation such as `list[str] | None` allows."""
    if get_origin(annotation) in (list, tuple, set, dict):
        return (annotation,)
    return get_args(annotation) or (annotation,)


def _standards(field: FieldInfo) -> tuple[str, ...]:
    """The variables that other programs read for the same thing, the first the one to be told of."""
    extra = field.json_schema_extra
    names = str(extra.get("standard", "")) if isinstance(extra, dict) else ""
    return tuple(names.split())


def _given_elsewhere(field: FieldInfo, environ: Mapping[str, str]) -> str:
    """The first of those variables that is set; empty where none is."""
    return next((name for name in _standards(field) if environ.get(name)), "")


def _is_secret(field: FieldInfo) -> bool:
    return SecretStr in _alternatives(field.annotation)


def _complaint(
    prefix: str, error: ErrorDetails, environ: Mapping[str, str], secret: set[str], elsewhere: Mapping[str, str]
) -> str:
    message = "must be true or false" if error["type"] == "bool_parsing" else error["msg"].removeprefix("Value error, ")
    message = message.replace("Input should be", "must be", 1).replace("String should", "must", 1)
    message = message[:1].lower() + message[1:] if message[1:2].islower() else message
    parts = [str(part).upper() for part in error["loc"]]
    # Of MILLRACE_X_LIST the loc goes on into the items; the variable is the longest name that is known.
    names = [prefix + "_".join(parts[:size]) for size in range(len(parts), 0, -1)]
    variable = next((name for name in names if name in environ or name + FILE_SUFFIX in environ), None)
    if variable is None:
        name = names[0] if names else prefix + "*"
        return (
            f"{other}, which {name} would override: {message}"
            if (other := elsewhere.get(name))
            else f"{name}: {message}"
        )
    if variable in secret:
        return f"{variable} (a secret): {message}"
    value = environ.get(variable) or Path(environ[variable + FILE_SUFFIX])
    return f"{variable}={str(value)!r}: {message}"


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "(required)"
    value = field.get_default(call_default_factory=True, validated_data={})
    if value is None or value in ("", [], {}, ()):
        return ""
    if isinstance(value, SecretStr):
        return "(secret)"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return f"`{','.join(map(str, value)) if isinstance(value, list | tuple | set | frozenset) else value}`"
