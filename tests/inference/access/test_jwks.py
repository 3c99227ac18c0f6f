"""Public keys: rotated, cached, bounded."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web
from yarl import URL

from kit.errors import ConfigError, Unauthenticated, Unavailable
from services.inference.access import jwks as module
from services.inference.access.jwks import ALGORITHMS, BYTES_MAX, LOOK_INTERVAL_S, Jwks, from_file, from_url, parse
from services.inference.access.tokens import Issuer, Tokens
from tests.fakes.http_proxy import HttpProxy
from tests.inference.access.parts import AUDIENCE, ISSUER, Clock, Signer, jwks

OLD, NEW = Signer("old"), Signer("new", "ES256")


class Document:
    """A JWKS that changes, and can be away."""

    def __init__(self, *signers: Signer) -> None:
        self.body, self.read_count, self.is_away = jwks(*signers), 0, False

    async def __call__(self) -> bytes:
        self.read_count += 1
        if self.is_away:
            raise OSError("away")
        return self.body


def tokens_over(keys: Jwks) -> Tokens:
    return Tokens(Issuer(ISSUER, AUDIENCE, ALGORITHMS, keys.find, generation=lambda: keys.generation))


async def test_a_new_key_is_fetched_when_a_token_names_it(clock: Clock) -> None:
    """The issuer rotates; the first token under the new key is good at once, and the old key's token no more."""
    document = Document(OLD)
    keys = Jwks(document, 600, clock)
    tokens, before = tokens_over(keys), OLD.sign()
    await tokens.caller_of(before)
    document.body = jwks(NEW)
    clock.now += LOOK_INTERVAL_S
    await tokens.caller_of(NEW.sign())

    with pytest.raises(Unauthenticated):
        await tokens.caller_of(before)
    assert document.read_count == 2


async def test_invented_key_ids_do_not_reach_the_issuer(clock: Clock) -> None:
    """A thousand of them are one reading."""
    document = Document(OLD)
    keys = Jwks(document, 600, clock)
    await keys.find("old")
    clock.now += LOOK_INTERVAL_S
    found = [await keys.find(f"invented-{number}") for number in range(1000)]

    assert found == [None] * 1000
    assert document.read_count == 2


async def test_keys_are_read_again_when_they_are_old(clock: Clock) -> None:
    """A key that the issuer withdrew is gone by then."""
    document = Document(OLD, NEW)
    keys = Jwks(document, 600, clock)
    await keys.find("old")
    document.body = jwks(NEW)
    clock.now += 601

    assert await keys.find("old") is None


async def test_an_issuer_that_is_away_changes_nothing(clock: Clock) -> None:
    """What was read goes on; where nothing was, nobody can say, which is 503."""
    document = Document(OLD)
    keys = Jwks(document, 600, clock)
    document.is_away = True
    with pytest.raises(Unavailable) as caught:
        await keys.find("old")
    assert caught.value.reason == "JWKS_UNAVAILABLE"
    document.is_away = False
    clock.now += LOOK_INTERVAL_S
    assert await keys.find("old")
    document.is_away = True
    clock.now += 601

    assert await keys.find("old")


@pytest.mark.parametrize(
    "document",
    [
        b"",
        b"[]",
        b'{"keys": []}',
        b'{"keys": 7}',
        b"\xff",
        json.dumps({"keys": [{"kty": "oct", "kid": "x", "k": "c2VjcmV0"}]}).encode(),
        json.dumps({"keys": [{**OLD.jwk, "use": "enc"}]}).encode(),
        json.dumps({"keys": [{name: value for name, value in OLD.jwk.items() if name != "kid"}]}).encode(),
    ],
)
def test_a_document_without_a_usable_key_is_refused(document: bytes) -> None:
    """A published secret, a key for encryption and one without a name are none."""
    with pytest.raises(ConfigError):
        parse(document)


@pytest.fixture
async def server() -> AsyncIterator[tuple[str, dict[str, web.Response]]]:
    """A server whose answers by path a test sets."""
    answers: dict[str, web.Response] = {}

    async def answer(request: web.Request) -> web.Response:
        return answers[request.path]

    app = web.Application()
    app.router.add_get("/{path}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}", answers
    await runner.cleanup()


async def test_keys_come_from_a_url(server: tuple[str, dict[str, web.Response]]) -> None:
    """Fetched once, however often they are asked for."""
    url, answers = server
    answers["/jwks"] = web.Response(body=jwks(OLD))
    keys = Jwks(from_url(f"{url}/jwks"), 600)

    assert await keys.find("old")
    answers.clear()
    assert await keys.find("old")


@pytest.mark.parametrize("kind", ["redirect", "error", "too large"])
async def test_a_url_that_answers_otherwise_gives_no_keys(
    server: tuple[str, dict[str, web.Response]], kind: str
) -> None:
    """A redirect is not followed, and no answer fills the memory."""
    url, answers = server
    answers["/real"] = web.Response(body=jwks(OLD))
    answers["/jwks"] = {
        "redirect": web.Response(status=302, headers={"Location": f"{url}/real"}),
        "error": web.Response(status=500, body=jwks(OLD)),
        "too large": web.Response(body=jwks(OLD) + b" " * BYTES_MAX),
    }[kind]

    with pytest.raises(Unavailable):
        await Jwks(from_url(f"{url}/jwks"), 600).find("old")


async def test_a_url_behind_a_proxy(server: tuple[str, dict[str, web.Response]]) -> None:
    """Who makes the tokens may be known to a company's proxy alone."""
    url, answers = server
    answers["/jwks"] = web.Response(body=jwks(OLD))
    hidden = f"{url.replace('127.0.0.1', 'keys.company.invalid')}/jwks"
    proxy = HttpProxy()
    await proxy.start()
    try:
        assert await Jwks(from_url(hidden, URL(proxy.url)), 600).find("old")
        with pytest.raises(Unavailable):
            await Jwks(from_url(hidden), 600).find("old")
    finally:
        await proxy.stop()
    assert proxy.asked == [f"GET {hidden} HTTP/1.1"]


async def test_a_url_that_does_not_answer_costs_a_bounded_wait(
    server: tuple[str, dict[str, web.Response]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A port where nobody listens is 503, like a deadline that passes."""
    monkeypatch.setattr(module, "FETCH_TIMEOUT_S", 0.001)

    with pytest.raises(Unavailable):
        await Jwks(from_url("http://127.0.0.1:1/jwks"), 600).find("old")


async def test_a_file_that_changes_is_read_again(tmp_path: Path, clock: Clock) -> None:
    """Rotation without a restart, for those who write the file themselves."""
    path = tmp_path / "jwks.json"
    path.write_bytes(jwks(OLD))
    keys = Jwks(from_file(path), 600, clock)
    assert await keys.find("old")
    path.write_bytes(jwks(NEW))
    clock.now += LOOK_INTERVAL_S

    assert await keys.find("new")
