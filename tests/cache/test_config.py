from pathlib import Path

import pytest

from kit.config import load
from kit.errors import ConfigError
from services.cache.config import CacheSettings


def test_defaults_need_nothing():
    """Without any variable the service uses a file, on its own port of the loopback."""
    settings = load(CacheSettings, {})

    assert (settings.store, settings.path, settings.host, settings.port) == (
        "embedded",
        Path(".millrace/cache.sqlite3"),
        "127.0.0.1",
        50052,
    )


def test_redis_url_is_a_secret(tmp_path: Path):
    """The URL of Redis, which may hold a password, is read from a file too and never printed."""
    (tmp_path / "url").write_text("rediss://user:hunter2@redis/0\n")
    settings = load(
        CacheSettings, {"MILLRACE_CACHE_STORE": "redis", "MILLRACE_CACHE_REDIS_URL_FILE": str(tmp_path / "url")}
    )

    assert settings.redis_url.get_secret_value() == "rediss://user:hunter2@redis/0"
    assert "hunter2" not in repr(settings)


@pytest.mark.parametrize(
    ("variable", "value", "allowed"),
    [
        ("STORE", "memcached", "'embedded' or 'redis'"),
        ("TTL_JITTER", "0.9", "less than or equal to 0.5"),
        ("ENTRIES_MAX", "0", "greater than or equal to 1"),
        ("ENTRY_BYTES_MAX", "16777216", "less than or equal to 8388608"),
    ],
)
def test_bad_setting_is_named(variable: str, value: str, allowed: str):
    """A bad value stops the start and names the variable, the value and what is allowed."""
    with pytest.raises(ConfigError) as caught:
        load(CacheSettings, {f"MILLRACE_CACHE_{variable}": value})

    assert f"MILLRACE_CACHE_{variable}={value!r}" in caught.value.message
    assert allowed in caught.value.message


def test_an_entry_must_fit():
    """A store that could not hold one answer of the largest size is refused."""
    with pytest.raises(ConfigError, match=r"ENTRY_BYTES_MAX.*must be below BYTES_MAX"):
        load(CacheSettings, {"MILLRACE_CACHE_BYTES_MAX": "1048576"})
