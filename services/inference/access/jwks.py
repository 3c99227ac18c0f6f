"""Public keys of whoever makes tokens (JWKS), from a file or an https URL.

They are read again when they are old, and when a token names a key that is not known, but never more often than every
few seconds: tokens are the callers' to invent. Where reading fails, what was read before goes on.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import aiohttp
import jwt
from yarl import URL

from kit.errors import ConfigError, Unavailable

log = logging.getLogger(__name__)

ALGORITHMS = ("RS256", "ES256")
FETCH_TIMEOUT_S = 5.0
BYTES_MAX = 1024 * 1024
LOOK_INTERVAL_S = 10.0  # between readings for a `kid` that is not known
RETRY_AFTER_MS = 2_000

Read = Callable[[], Awaitable[bytes]]


class Jwks:
    """Finds public keys by their id.

    Args:
        read: Reads the document.
        ttl_s: Age at which it is read again.
        clock: Seconds that never jump.
    """

    def __init__(self, read: Read, ttl_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._read, self._ttl_s, self._clock = read, ttl_s, clock
        self._keys: dict[str, jwt.PyJWK] = {}
        self._asked_time = self._read_time = -float("inf")
        self._asking = asyncio.Lock()
        self.generation = 0  # counts readings that changed the keys; what was verified under others is void

    async def find(self, kid: str) -> jwt.PyJWK | None:
        """Returns the key with this id, or None.

        Raises:
            Unavailable: No key could be read yet (JWKS_UNAVAILABLE).
        """
        await self.freshen()
        if kid not in self._keys:
            await self._refresh(LOOK_INTERVAL_S)
        if not self._keys:
            raise Unavailable("JWKS_UNAVAILABLE", "tokens cannot be checked now; retry", retry_after_ms=RETRY_AFTER_MS)
        return self._keys.get(kid)

    async def freshen(self) -> None:
        """Reads the keys again where they are old."""
        if self._clock() - self._read_time > self._ttl_s:
            await self._refresh(min(LOOK_INTERVAL_S, self._ttl_s))

    async def _refresh(self, interval_s: float) -> None:
        async with self._asking:
            if self._clock() - self._asked_time < interval_s:
                return
            self._asked_time = self._clock()
            try:
                keys = parse(await self._read())
            except (OSError, TimeoutError, aiohttp.ClientError, ConfigError) as error:
                log.warning("public keys could not be read", extra={"error": str(error) or type(error).__name__})
                return
            self._read_time = self._clock()
            if _thumbprints(keys) != _thumbprints(self._keys):
                self.generation += 1
            self._keys = keys


def parse(document: bytes) -> dict[str, jwt.PyJWK]:
    """Returns the keys that may sign tokens, by id; those of other kinds, and secrets, are left out.

    Raises:
        ConfigError: It is no JWKS, or has no key that can be used.
    """
    try:
        found = jwt.PyJWKSet.from_json(document.decode())
    except (jwt.PyJWTError, ValueError, AttributeError, TypeError):
        raise ConfigError("the JWKS is none, or holds no key that can be used") from None
    # A key says what it is for. An `oct` key among them is somebody's secret, published: it opens nothing here.
    keys = {key.key_id: key for key in found if key.key_id and key.algorithm_name in ALGORITHMS and _signs(key)}
    if not keys:
        raise ConfigError(f"the JWKS holds no key with a kid for {' or '.join(ALGORITHMS)}")
    return keys


def from_file(path: Path) -> Read:
    """Reads a file."""

    async def read() -> bytes:
        return await asyncio.to_thread(path.read_bytes)

    return read


def from_url(url: str, proxy: URL | None = None) -> Read:
    """Fetches a URL, through a proxy where one is named; it follows no redirect, which could lead anywhere."""

    async def read() -> bytes:
        timeout = aiohttp.ClientTimeout(total=FETCH_TIMEOUT_S)
        async with (
            aiohttp.ClientSession(timeout=timeout) as session,
            session.get(url, allow_redirects=False, proxy=proxy) as answer,
        ):
            if answer.status != 200:
                raise ConfigError(f"{url} answers {answer.status}")
            document = await answer.content.read(BYTES_MAX + 1)
            while len(document) <= BYTES_MAX and (more := await answer.content.read(BYTES_MAX)):
                document += more
            if len(document) > BYTES_MAX:
                raise ConfigError(f"{url} answers more than {BYTES_MAX} bytes")
            return document

    return read


def _signs(key: jwt.PyJWK) -> bool:
    return key.public_key_use in (None, "sig")


def _thumbprints(keys: dict[str, jwt.PyJWK]) -> dict[str, object]:
    return {kid: key.key.public_numbers() for kid, key in keys.items()}
