from __future__ import annotations

from pathlib import Path
from typing import Literal

import pytest
from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import SettingsConfigDict

from kit.config import ConfigError, DialSettings, ServeSettings, load, table


class MillSettings(ServeSettings):
    """One field of each kind."""

    model_config = SettingsConfigDict(env_prefix="MILLRACE_MILL_")

    port: int = Field(default=50099, ge=0, le=65535, description="Port.")
    store: Literal["embedded", "redis"] = Field(default="embedded", description="Where entries live.")
    api_key: SecretStr | None = Field(default=None, description="Key of the upstream.", min_length=4)
    origins: list[str] = Field(default=["http://localhost"], description="Allowed origins.")
    limits: dict[str, int] = Field(default_factory=dict, description="Limits by tenant.")
    cache: DialSettings = Field(default_factory=DialSettings)


def test_defaults_hold_without_any_variable() -> None:
    """An empty environment is a valid one."""
    settings = load(MillSettings, {})

    assert (settings.host, settings.port, settings.store) == ("127.0.0.1", 50099, "embedded")


def test_variables_set_fields() -> None:
    """Each kind of field is read from text; other variables are none of ours."""
    settings = load(
        MillSettings,
        {
            "MILLRACE_MILL_PORT": "7",
            "MILLRACE_MILL_STORE": "redis",
            "MILLRACE_MILL_REFLECTION": "false",
            "MILLRACE_MILL_API_KEY": "k-123",
            "MILLRACE_MILL_ORIGINS": "http://a, http://b",
            "MILLRACE_MILL_LIMITS": '{"acme": 5}',
            "MILLRACE_MILL_CACHE_TARGET": "cache:1",
            "MILLRACE_CACHE_PORT": "nonsense",
            "PATH": "/bin",
        },
    )

    assert (settings.port, settings.store, settings.reflection) == (7, "redis", False)
    assert settings.api_key is not None
    assert settings.api_key.get_secret_value() == "k-123"
    assert settings.origins == ["http://a", "http://b"]
    assert settings.limits == {"acme": 5}
    assert settings.cache.target == "cache:1"


def test_a_list_may_be_json() -> None:
    """A value that holds commas needs brackets."""
    assert load(MillSettings, {"MILLRACE_MILL_ORIGINS": '["a,b", "c"]'}).origins == ["a,b", "c"]


def test_an_empty_variable_is_unset() -> None:
    """What `${VAR:-}` of a compose file leaves behind is no value."""
    assert load(MillSettings, {"MILLRACE_MILL_PORT": "", "MILLRACE_MILL_OTLP_ENDPOINT": ""}).port == 50099


def test_a_secret_comes_from_a_file(tmp_path: Path) -> None:
    """`_FILE` behind the name of a variable reads the file, without the line break at its end."""
    path = tmp_path / "key"
    path.write_text("from-file\n")

    settings = load(MillSettings, {"MILLRACE_MILL_API_KEY_FILE": str(path)})

    assert settings.api_key is not None
    assert settings.api_key.get_secret_value() == "from-file"
    assert "from-file" not in repr(settings)


@pytest.mark.parametrize(
    ("variable", "value", "complaint"),
    [
        ("PORT", "abc", "MILLRACE_MILL_PORT='abc': must be a valid integer"),
        ("PORT", "70000", "MILLRACE_MILL_PORT='70000': must be less than or equal to 65535"),
        ("STORE", "disk", "MILLRACE_MILL_STORE='disk': must be 'embedded' or 'redis'"),
        ("REFLECTION", "si", "MILLRACE_MILL_REFLECTION='si': must be true or false"),
        ("LOG_LEVEL", "loud", "must be 'debug', 'info', 'warning' or 'error'"),
        ("LIMITS", "{", "MILLRACE_MILL_LIMITS='{': must be JSON"),
        ("LIMITS", '{"acme": "x"}', 'MILLRACE_MILL_LIMITS=\'{"acme": "x"}\': must be a valid integer'),
        ("CACHE_DEADLINE_S", "0", "MILLRACE_MILL_CACHE_DEADLINE_S='0': must be greater than 0"),
        ("TLS_CERT_FILE", "/nowhere", "MILLRACE_MILL_TLS_CERT_FILE='/nowhere': path does not point to a file"),
        ("TLS_CERT_FILE", "/etc/hostname", "TLS_CERT_FILE and TLS_KEY_FILE must be given together"),
        ("TLS_CLIENT_CA_FILE", "/etc/hostname", "TLS_CLIENT_CA_FILE needs TLS_CERT_FILE"),
        ("API_KEY_FILE", "/nowhere", "MILLRACE_MILL_API_KEY_FILE='/nowhere': cannot be read"),
        ("PROT", "1", "MILLRACE_MILL_PROT: there is no such setting; did you mean MILLRACE_MILL_PORT?"),
    ],
)
def test_a_bad_value_names_variable_value_and_what_is_allowed(variable: str, value: str, complaint: str) -> None:
    """Each way to be wrong stops the start with one clear line."""
    with pytest.raises(ConfigError) as caught:
        load(MillSettings, {f"MILLRACE_MILL_{variable}": value})

    assert complaint in caught.value.message
    assert "\n" not in caught.value.message


def test_all_bad_values_are_named_at_once() -> None:
    """Nobody has to start a service three times to find three mistakes."""
    with pytest.raises(ConfigError) as caught:
        load(MillSettings, {"MILLRACE_MILL_PORT": "x", "MILLRACE_MILL_STORE": "y"})

    assert "MILLRACE_MILL_PORT" in caught.value.message
    assert "MILLRACE_MILL_STORE" in caught.value.message


def test_a_complaint_never_shows_a_secret(tmp_path: Path) -> None:
    """The variable is named, its value is not, whether it came directly or from a file."""
    path = tmp_path / "key"
    path.write_text("s3c")
    for environ in ({"MILLRACE_MILL_API_KEY": "s3c"}, {"MILLRACE_MILL_API_KEY_FILE": str(path)}):
        with pytest.raises(ConfigError) as caught:
            load(MillSettings, environ)
        assert "MILLRACE_MILL_API_KEY" in caught.value.message
        assert "s3c" not in caught.value.message


def test_a_value_and_its_file_exclude_each_other(tmp_path: Path) -> None:
    """Two sources for one setting are a mistake, not a matter of precedence."""
    with pytest.raises(ConfigError, match="both set"):
        load(MillSettings, {"MILLRACE_MILL_API_KEY": "k-123", "MILLRACE_MILL_API_KEY_FILE": "/x"})


def test_settings_are_frozen_and_read_no_environment_by_themselves(monkeypatch: pytest.MonkeyPatch) -> None:
    """An object made in code is what the code says."""
    monkeypatch.setenv("MILLRACE_MILL_PORT", "7")
    settings = MillSettings()

    assert settings.port == 50099
    with pytest.raises(ValidationError):
        settings.port = 8


def test_the_table_lists_every_variable_with_default_and_meaning() -> None:
    """The README's table is made of this."""
    lines = table(MillSettings).splitlines()

    assert lines[0] == "| Variable | Default | Meaning |"
    assert "| `MILLRACE_MILL_PORT` | `50099` | Port. |" in lines
    assert "| `MILLRACE_MILL_REFLECTION` | `true` | Answer gRPC server reflection. |" in lines
    assert "| `MILLRACE_MILL_API_KEY` |  | Key of the upstream. |" in lines
    assert "| `MILLRACE_MILL_ORIGINS` | `http://localhost` | Allowed origins. |" in lines
    assert any(line.startswith("| `MILLRACE_MILL_CACHE_TARGET` |") for line in lines)
    assert all(line.rsplit("|", 2)[1].strip() for line in lines[2:])
