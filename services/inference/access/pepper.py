"""The pepper: the server's own secret, under which keys are hashed and logins are signed."""

from __future__ import annotations

import hmac
import os
import secrets
from pathlib import Path

from kit.errors import ConfigError
from services.inference.access.settings import AccessSettings

_BYTES = 32


def pepper_of(settings: AccessSettings) -> bytes:
    """Returns the pepper that the settings give, or the one in their file, which is made where there is none.

    Raises:
        ConfigError: The file cannot be read or made, or is open to others.
    """
    if settings.pepper is not None:
        return settings.pepper.get_secret_value().encode()
    path = settings.pepper_path
    try:
        return _read(path) if path.exists() else _make(path)
    except OSError as error:
        raise ConfigError(f"MILLRACE_INFERENCE_ACCESS_PEPPER_PATH={str(path)!r}: {error.strerror}") from None


def derive(pepper: bytes, purpose: str) -> bytes:
    """Returns a key for one purpose, so that no secret serves two."""
    return hmac.digest(pepper, f"millrace {purpose}".encode(), "sha256")


def _read(path: Path) -> bytes:
    if path.stat().st_mode & 0o077:
        raise ConfigError(f"{path}: others may read the pepper; chmod 600 {path}")
    found = path.read_bytes().strip()
    if len(found) < _BYTES:
        raise ConfigError(f"{path}: is no pepper, 32 characters or more; remove it to get a new one and new keys")
    return found


def _make(path: Path) -> bytes:
    """Makes the file whole or not at all: of processes that start together one wins, and all read what it wrote."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f"{path.name}.{os.getpid()}")
    write_private(fresh, secrets.token_urlsafe(_BYTES))
    try:
        os.link(fresh, path)
    except FileExistsError:
        pass
    finally:
        fresh.unlink()
    return _read(path)


def write_private(path: Path, text: str) -> None:
    """Writes a new file that nobody else may read; raises FileExistsError where there is one."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text + "\n")
