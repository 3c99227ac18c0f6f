"""Where the parts of access meet."""

from __future__ import annotations

import asyncio
import hmac
import logging
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
from yarl import URL

from kit.errors import ConfigError, Unavailable
from kit.identity import Caller
from kit.proxies import DIRECT, Proxies
from services.inference.access import jwks, secret
from services.inference.access.authenticator import Authenticator
from services.inference.access.key import KeyDraft
from services.inference.access.key_store import KeyStore
from services.inference.access.keyring import Keyring
from services.inference.access.login_limit import LoginLimit
from services.inference.access.passwords import Passwords
from services.inference.access.pepper import derive, pepper_of, write_private
from services.inference.access.settings import AccessSettings
from services.inference.access.tokens import Claims, FindKey, Issuer, Minter, Tokens
from services.inference.access.user_store import UserStore
from services.inference.access.users import Users
from services.inference.database.database import Database
from services.inference.quota.store import QuotaStore

log = logging.getLogger(__name__)

FIRST_KEY = KeyDraft("first", principal="admin", role="admin")


@dataclass
class Access:
    """Who may call."""

    settings: AccessSettings
    pepper_check: str
    authenticator: Authenticator
    store: KeyStore
    keyring: Keyring
    users: Users
    _polling: asyncio.Task[None] | None = field(default=None)

    async def start(self) -> None:
        """Reads the keys, and goes on doing so; where the store is away, it is waited for behind the service's back.

        Raises:
            ConfigError: The keys were hashed under another pepper.
        """
        if self.settings.mode == "open":
            log.warning("anybody may call; MILLRACE_INFERENCE_ACCESS_MODE=required asks for keys")
        has_begun = False
        try:
            await self._begin()
            has_begun = True
        except Unavailable as error:
            log.warning("keys cannot be read yet", extra={"reason": error.reason})
        self._polling = asyncio.create_task(self._poll(has_begun))

    async def close(self) -> None:
        """Stops reading."""
        if self._polling:
            self._polling.cancel()
            await asyncio.gather(self._polling, return_exceptions=True)

    async def _begin(self) -> None:
        if not await self.store.agree(self.pepper_check):
            raise ConfigError(
                "the keys in the database were made under another pepper: set MILLRACE_INFERENCE_ACCESS_PEPPER to it, "
                f"or restore {self.settings.pepper_path}"
            )
        await self._make_first_key()
        await self.keyring.refresh()

    async def _poll(self, has_begun: bool) -> None:
        while not has_begun:
            await asyncio.sleep(self.settings.poll_s)
            try:
                await self._begin()
                has_begun = True
            except Unavailable:
                continue
            except Exception as error:  # told once; keys stay refused, the rest of the service goes on
                log.error("keys cannot be used", exc_info=error)
                return
        await self.keyring.poll(self.settings.poll_s)

    async def _make_first_key(self) -> None:
        """Makes an administrator's key where there is no key and somebody waits for one."""
        path = self.settings.first_key_path
        if path is None:
            return
        text = secret.new_secret()
        if await self.store.create_first(FIRST_KEY, secret.prefix(text), self.keyring.digest(text)):
            await asyncio.to_thread(_write_anew, path, text)


def wire(settings: AccessSettings, database: Database, attempts: QuotaStore, proxies: Proxies = DIRECT) -> Access:
    """Puts access together; attempts to log in are counted, and public keys fetched, as it is told.

    Raises:
        ConfigError: The pepper or the public keys cannot be used.
    """
    pepper = pepper_of(settings)
    keyring = Keyring(KeyStore(database), derive(pepper, "keys"), settings.outage_s)
    if settings.admin_key is not None:
        keyring.add_permanent(settings.admin_key.get_secret_value(), Caller("admin", role="admin", key_name="admin"))
    minter = Minter(derive(pepper, "logins"), settings.login_ttl_s)
    limit = LoginLimit(attempts, settings.login_attempts_max, settings.login_address_attempts_max)
    logins = msgspec.structs.replace(minter.issuer, is_void=keyring.is_disabled)
    tokens = Tokens(logins, *_others(settings, proxies))
    return Access(
        settings,
        hmac.new(pepper, b"millrace check", "sha256").hexdigest(),
        Authenticator(keyring, tokens, settings.mode == "required", settings.services),
        KeyStore(database),
        keyring,
        Users(UserStore(database), Passwords(), minter, limit, derive(pepper, "refresh"), settings.refresh_ttl_s),
    )


def _others(settings: AccessSettings, proxies: Proxies) -> list[Issuer]:
    """The issuer beside us, if there is one."""
    if not settings.jwt_issuer:
        return []
    claims = Claims(settings.jwt_tenant_claim, settings.jwt_role_claim, settings.jwt_scope_claim)
    audience, leeway_s = settings.jwt_audience, settings.jwt_leeway_s
    if settings.jwt_secret is not None:
        find = _always(settings.jwt_secret.get_secret_value().encode())
        return [Issuer(settings.jwt_issuer, audience, ("HS256",), find, claims, leeway_s)]
    keys = jwks.Jwks(_reader(settings, proxies), settings.jwt_jwks_ttl_s)
    algorithms, generation = jwks.ALGORITHMS, lambda: keys.generation
    return [Issuer(settings.jwt_issuer, audience, algorithms, keys.find, claims, leeway_s, generation)]


def _reader(settings: AccessSettings, proxies: Proxies) -> jwks.Read:
    if settings.jwt_jwks_file is None:
        return jwks.from_url(settings.jwt_jwks_url, proxies.before(URL(settings.jwt_jwks_url)))
    jwks.parse(settings.jwt_jwks_file.read_bytes())  # a file that is wrong stops the start, not the first call
    return jwks.from_file(settings.jwt_jwks_file)


def _always(key: bytes) -> FindKey:
    async def find(_: str) -> bytes:
        return key

    return find


def _write_anew(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    write_private(path, text)
