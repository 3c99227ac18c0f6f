"""Access put together: certificates over real TLS, the first key, the pepper, and starts without a database."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr, ValidationError
from yarl import URL

from kit import telemetry
from kit.config import DialSettings, ServeSettings, load
from kit.dial import dial
from kit.errors import ConfigError, Unauthenticated, Unavailable
from kit.identity import CallContext
from kit.proxies import Proxies
from kit.serve import Registration, Server
from millrace.inference.v1 import access_service_pb2, access_service_pb2_grpc
from services.inference.access import secret
from services.inference.access.access_servicer import AccessServicer
from services.inference.access.settings import AccessSettings
from services.inference.access.users import User
from services.inference.access.wiring import Access, wire
from services.inference.config import InferenceSettings
from services.inference.database import migrating
from services.inference.database.database import Database
from services.inference.database.settings import DatabaseSettings
from services.inference.quota.memory_store import MemoryStore
from tests.fakes.certificates import Authority
from tests.fakes.http_proxy import HttpProxy
from tests.inference.access.parts import AUDIENCE, DEADLINE_S, ISSUER, ShownCall, Signer, jwks
from tests.inference.suite import failure

NAME = "millrace.inference.v1.AccessService"


@asynccontextmanager
async def started(database: Database, folder: Path, **fields: Any) -> AsyncIterator[Access]:
    """Access over a database, started."""
    access = wire(AccessSettings(pepper_path=folder / "pepper", **fields), database, MemoryStore())
    await access.start()
    yield access
    await access.close()


async def test_a_service_is_known_by_its_certificate(database: Database, tmp_path: Path) -> None:
    """Over mutual TLS: the listed name is a service, another one of the same authority is nobody."""
    authority = Authority(tmp_path)
    server_files = authority.issue("localhost")
    settings = ServeSettings(
        port=0, tls_cert_file=server_files[0], tls_key_file=server_files[1], tls_client_ca_file=authority.certificate
    )

    async def caller_of(name: str) -> Any:
        cert, key = authority.issue(name)
        dialled = DialSettings(
            tls_ca_file=authority.certificate, tls_cert_file=cert, tls_key_file=key, tls_server_name="localhost"
        )
        async with dial(f"127.0.0.1:{port}", dialled) as channel:
            stub: Any = access_service_pb2_grpc.AccessServiceStub(channel)
            return await stub.GetCaller(access_service_pb2.GetCallerRequest(), timeout=DEADLINE_S)

    async with started(database, tmp_path, mode="required", services=["worker"]) as access:
        add = access_service_pb2_grpc.add_AccessServiceServicer_to_server
        registration = Registration(NAME, add, AccessServicer(access.users), access.authenticator.identify)
        server = Server("inference", settings, [registration], telemetry.off())
        port = await server.start()
        server.set_serving("", True)
        known = await caller_of("worker")
        stranger = await failure(caller_of("stranger"))
        await server.stop(0)

    assert (known.principal, known.role) == ("worker", "service")
    assert stranger.reason == "CREDENTIAL_MISSING"


async def test_the_first_start_makes_one_key_and_the_next_none(database: Database, tmp_path: Path) -> None:
    """In a file that nobody else may read; it administers."""
    path = tmp_path / "first-key"
    async with started(database, tmp_path, first_key_path=path) as access:
        caller = await access.keyring.caller_of(path.read_text().strip())
    mode = path.stat().st_mode & 0o777
    path.unlink()
    async with started(database, tmp_path, first_key_path=path):
        pass

    assert (caller.role, caller.principal) == ("admin", "admin")
    assert mode == 0o600
    assert not path.exists()


async def test_a_disabled_user_keeps_no_way_in(database: Database, tmp_path: Path) -> None:
    """The token of a login before is void with the next look, though it has not expired; a first key is still made."""
    path = tmp_path / "first-key"
    async with started(database, tmp_path, mode="required") as access:
        await access.users.create(User("ada", "acme"), "correct horse")
        call = ShownCall(
            ("authorization", f"Bearer {(await access.users.login('ada', 'correct horse', '')).access_token}")
        )
        context = await access.authenticator.identify(f"{NAME}/GetCaller", CallContext("r"), call)
        await access.users.disable("ada")
        await access.keyring.refresh()
        with pytest.raises(Unauthenticated, match="disabled"):
            await access.authenticator.identify(f"{NAME}/GetCaller", CallContext("r"), call)
    async with started(database, tmp_path, first_key_path=path):
        pass

    assert context.principal == "ada"
    assert path.exists()


@pytest.mark.parametrize(("mode", "count"), [("open", 1), ("required", 0)])
async def test_an_open_door_is_told_of_at_every_start(
    database: Database, tmp_path: Path, caplog: pytest.LogCaptureFixture, mode: str, count: int
) -> None:
    """With what shuts it; a shut one is nothing to tell."""
    async with started(database, tmp_path, mode=mode):
        pass

    assert caplog.text.count("MILLRACE_INFERENCE_ACCESS_MODE=required") == count


async def test_another_pepper_is_refused_at_start(database: Database, tmp_path: Path) -> None:
    """Every key would be unknown; the line says what to restore."""
    async with started(database, tmp_path):
        pass
    (tmp_path / "pepper").unlink()

    with pytest.raises(ConfigError, match="pepper"):
        async with started(database, tmp_path):
            pass


async def test_a_start_without_a_database_waits_for_it_behind_its_back(tmp_path: Path) -> None:
    """Meanwhile nobody is a stranger; then keys are made and known as if nothing had been."""
    database = Database(DatabaseSettings(url=SecretStr(f"sqlite+aiosqlite:///{tmp_path}/late.sqlite3")))
    path = tmp_path / "first-key"
    async with started(database, tmp_path, first_key_path=path, poll_s=0.05) as access:
        with pytest.raises(Unavailable):
            await access.keyring.caller_of(secret.new_secret())
        await migrating.prepare(database, True)
        async with asyncio.timeout(DEADLINE_S):
            while not access.keyring.key_count:
                await asyncio.to_thread(path.exists)
        caller = await access.keyring.caller_of(path.read_text().strip())
        with pytest.raises(Unauthenticated):
            await access.keyring.caller_of(secret.new_secret())
    await database.close()

    assert caller.role == "admin"


async def test_tokens_of_the_issuer_in_the_settings_are_good(database: Database, tmp_path: Path) -> None:
    """By a file of public keys, or by a shared secret; under claims of other names."""
    signer = Signer("k1", "ES256")
    (tmp_path / "jwks.json").write_bytes(jwks(signer))
    trusted = {"jwt_issuer": ISSUER, "jwt_audience": AUDIENCE, "jwt_tenant_claim": "org"}
    async with started(database, tmp_path, jwt_jwks_file=tmp_path / "jwks.json", **trusted) as access:
        by_file = await access.authenticator._tokens.caller_of(signer.sign(org="acme"))
    shared = Signer("", "HS256", b"x" * 32)
    async with started(database, tmp_path, jwt_secret=SecretStr("x" * 32), **trusted) as access:
        by_secret = await access.authenticator._tokens.caller_of(shared.sign(org="acme"))

    assert by_file == by_secret == replace(by_file, principal="ada", tenant="acme", role="user")


@pytest.mark.parametrize(
    ("environ", "complaint"),
    [
        ({"ENVIRONMENT": "production"}, "ACCESS_MODE=required"),
        ({"ACCESS_ADMIN_KEY": "admin"}, "millrace keys secret"),
        ({"ACCESS_PEPPER": "short"}, "ACCESS_PEPPER"),
        ({"ACCESS_JWT_SECRET": "x" * 32}, "JWT_ISSUER"),
        ({"ACCESS_JWT_ISSUER": "i", "ACCESS_JWT_SECRET": "x" * 32}, "JWT_AUDIENCE"),
        ({"ACCESS_JWT_ISSUER": "i", "ACCESS_JWT_AUDIENCE": "a"}, "JWT_JWKS_URL"),
        ({"ACCESS_JWT_ISSUER": "i", "ACCESS_JWT_AUDIENCE": "a", "ACCESS_JWT_SECRET": "short"}, "32 bytes"),
        ({"ACCESS_JWT_ISSUER": "millrace", "ACCESS_JWT_AUDIENCE": "a", "ACCESS_JWT_SECRET": "x" * 32}, "must not be"),
        ({"ACCESS_JWT_ISSUER": "i", "ACCESS_JWT_AUDIENCE": "a", "ACCESS_JWT_JWKS_URL": "http://x/"}, "https"),
        ({"ACCESS_POLL_S": "5"}, "ACCESS_POLL_S"),
    ],
)
def test_settings_that_would_leave_the_door_ajar_stop_the_start(environ: dict[str, str], complaint: str) -> None:
    """Each names what is wrong, and no secret."""
    given = {f"MILLRACE_INFERENCE_{name}": value for name, value in environ.items()}
    with pytest.raises(ConfigError, match=complaint) as caught:
        load(InferenceSettings, given)

    assert "x" * 32 not in str(caught.value)
    assert "'short'" not in str(caught.value)


def test_production_starts_with_the_door_shut() -> None:
    """And keys that cannot be read by whoever prints the settings."""
    text = secret.new_secret()
    settings = InferenceSettings(
        environment="production", access=AccessSettings(mode="required", admin_key=SecretStr(text))
    )

    assert text not in repr(settings)
    with pytest.raises(ValidationError):
        InferenceSettings(environment="production")


async def test_public_keys_are_fetched_through_the_proxy(database: Database, tmp_path: Path) -> None:
    """A first token has them fetched, by the way that the environment names."""
    proxy = HttpProxy(refusal=502)
    await proxy.start()
    url = "https://keys.company.invalid/jwks"
    settings = AccessSettings(
        pepper_path=tmp_path / "pepper", jwt_issuer=ISSUER, jwt_audience=AUDIENCE, jwt_jwks_url=url
    )
    try:
        access = wire(settings, database, MemoryStore(), Proxies(URL(proxy.url)))
        with pytest.raises(Unavailable):
            await access.authenticator._tokens.caller_of(Signer("new").sign())
    finally:
        await proxy.stop()
    assert proxy.asked == ["CONNECT keys.company.invalid:443 HTTP/1.1"]
