"""Upstreams behind a company's proxy."""

from __future__ import annotations

import logging
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry
from yarl import URL

from kit.config import ConfigError, load
from kit.errors import Code, MillraceError
from services.inference.config import InferenceSettings
from services.inference.engines.openai_engine import OpenAIEngine
from services.inference.generation import Delta, Message, Prompt, Role, TextPart
from services.inference.routing.catalog import Catalog, Upstream
from services.inference.wiring import EngineMaker
from tests.fakes.certificates import Authority
from tests.fakes.http_proxy import HttpProxy
from tests.faults import answers
from tests.faults.upstream import ScriptedUpstream

PROMPT = Prompt("gpt", messages=(Message(Role.USER, (TextPart("hi"),)),))
# No resolver knows it: whoever reaches it has asked the proxy.
HOST = "api.company.invalid"
PASSWORD = "me:s%3Cret"
Start = Callable[..., Awaitable[HttpProxy]]


@pytest.fixture
async def upstream(tmp_path: Path) -> AsyncIterator[ScriptedUpstream]:
    """An https upstream that only a proxy knows the way to."""
    made = ScriptedUpstream(lambda asked: answers.good(), _served(Authority(tmp_path), HOST))
    await made.start()
    yield made
    await made.stop()


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    """Starts a proxy."""
    async with AsyncExitStack() as stack:

        async def make(**how: object) -> HttpProxy:
            proxy = HttpProxy(**how)  # type: ignore[arg-type]
            await proxy.start()
            stack.push_async_callback(proxy.stop)
            return proxy

        yield make


def _served(authority: Authority, host: str) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*authority.issue(host))
    return context


async def ask(
    upstream: ScriptedUpstream, tmp_path: Path, https: str = "", no_proxy: str = "", times: int = 1, **fields: object
) -> str:
    """What the upstream says, asked with the environment's proxy or with one of its own."""
    given = {
        "base_url": f"https://{HOST}:{upstream.port}/v1",
        "ca_file": str(tmp_path / "ca.pem"),
        "api_key_env": "KEY",
    }
    given.update(fields)
    chat = {"name": "gpt", "targets": [{"engine": "openai", "upstream": "far"}]}
    catalog = Catalog.model_validate({"version": 1, "upstreams": {"far": given}, "models": [chat]})
    settings = load(InferenceSettings, {"HTTPS_PROXY": https, "MILLRACE_INFERENCE_NO_PROXY": no_proxy})
    maker = EngineMaker(settings, {"KEY": "secret"}, CollectorRegistry())
    engine = maker.engine(catalog.models[0].targets[0])
    await engine.warm()
    try:
        for _ in range(times):
            events = [event async for batch in engine.generate(PROMPT, None) for event in batch]
    finally:
        await engine.close()
    return "".join(event.text for event in events if isinstance(event, Delta))


async def failure(*args: object, **fields: object) -> MillraceError:
    """How asking fails."""
    with pytest.raises(MillraceError) as caught:
        await ask(*args, **fields)  # type: ignore[arg-type]
    return caught.value


async def test_an_upstream_is_reached_through_the_environments_proxy(
    upstream: ScriptedUpstream, start: Start, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The proxy makes a tunnel, in which the connection is kept; the log says that there is one."""
    proxy = await start()
    with caplog.at_level(logging.INFO):
        assert await ask(upstream, tmp_path, proxy.url, times=3) == answers.TEXT

    assert proxy.asked == [f"CONNECT {HOST}:{upstream.port} HTTP/1.1"]
    assert upstream.asked[0].headers.get("authorization", "") == "Bearer secret"
    assert [record.__dict__["proxy"] for record in caplog.records if "proxy" in record.__dict__] == [proxy.url]


async def test_an_upstreams_own_proxy_comes_first(upstream: ScriptedUpstream, start: Start, tmp_path: Path) -> None:
    """One upstream may have another way out than the rest, or none."""
    general, own = await start(), await start()

    assert await ask(upstream, tmp_path, general.url, proxy=own.url) == answers.TEXT
    assert (len(general.asked), len(own.asked)) == (0, 1)
    assert (await failure(upstream, tmp_path, general.url, proxy="none")).reason == "UPSTREAM_UNREACHABLE"
    assert (await failure(upstream, tmp_path, general.url, no_proxy=".invalid")).reason == "UPSTREAM_UNREACHABLE"
    assert not general.asked


async def test_a_proxy_of_its_own_stands_before_plain_http_too(start: Start, tmp_path: Path) -> None:
    """Who names it means it."""
    upstream = ScriptedUpstream(lambda asked: answers.good())
    await upstream.start()
    try:
        proxy = await start()
        url = f"http://{HOST}:{upstream.port}/v1"
        assert await ask(upstream, tmp_path, base_url=url, ca_file=None, proxy=proxy.url) == answers.TEXT
        assert proxy.asked == [f"POST {url}/chat/completions HTTP/1.1"]

        strict = await start(password="a:b")
        error = await failure(upstream, tmp_path, base_url=url, ca_file=None, proxy=strict.url)
        assert error.reason == "UPSTREAM_PROXY_REFUSED"
    finally:
        await upstream.stop()


async def test_a_proxy_with_a_password(upstream: ScriptedUpstream, start: Start, tmp_path: Path) -> None:
    """It stands in the URL, and is sent to the proxy alone."""
    proxy = await start(password="me:s<ret")
    address = proxy.url.removeprefix("http://")

    assert await ask(upstream, tmp_path, f"http://{PASSWORD}@{address}") == answers.TEXT
    assert "proxy-authorization" not in upstream.asked[0].headers
    error = await failure(upstream, tmp_path, f"http://me:wrong@{address}")
    assert (error.code, error.reason) == (Code.UNAVAILABLE, "UPSTREAM_PROXY_REFUSED")
    assert "password" in error.message
    assert "wrong" not in error.message


@pytest.mark.parametrize(
    ("status", "reason", "words"),
    [(403, "UPSTREAM_PROXY_REFUSED", "refused (403)"), (502, "UPSTREAM_UNREACHABLE", "answered 502")],
)
async def test_a_proxy_that_makes_no_way(
    upstream: ScriptedUpstream, start: Start, tmp_path: Path, status: int, reason: str, words: str
) -> None:
    """The operator learns that it was the proxy, and what it said."""
    error = await failure(upstream, tmp_path, (await start(refusal=status)).url)

    assert (error.code, error.reason) == (Code.UNAVAILABLE, reason)
    assert words in error.message


async def test_a_proxy_that_is_away(upstream: ScriptedUpstream, start: Start, tmp_path: Path) -> None:
    """Nobody listens, or nobody answers: both end in time, and neither is the upstream's fault."""
    proxy = await start()
    await proxy.stop()
    gone = await failure(upstream, tmp_path, proxy.url)
    mute = await failure(upstream, tmp_path, (await start(is_mute=True)).url, connect_timeout_s=0.2)

    assert (gone.reason, "the proxy before" in gone.message) == ("UPSTREAM_UNREACHABLE", True)
    assert mute.reason == "UPSTREAM_CONNECT_TIMEOUT"


async def test_a_proxy_that_is_spoken_to_over_tls(upstream: ScriptedUpstream, start: Start, tmp_path: Path) -> None:
    """Its certificate is checked as the upstream's is."""
    folder = tmp_path / "proxy"
    folder.mkdir()
    authority = Authority(folder)
    proxy = await start(tls=_served(authority, "localhost"))
    both = tmp_path / "both.pem"
    both.write_bytes((tmp_path / "ca.pem").read_bytes() + authority.certificate.read_bytes())

    assert await ask(upstream, tmp_path, proxy.url, ca_file=str(both)) == answers.TEXT
    assert (await failure(upstream, tmp_path, proxy.url)).reason == "UPSTREAM_TLS"


def test_settings_take_the_standard_variables() -> None:
    """HTTPS_PROXY and NO_PROXY as everywhere, in either case; Millrace's own come first, and `none` ends it."""
    api = URL("https://api.openai.com/v1")

    def proxy(**environ: str) -> str:
        return str(load(InferenceSettings, environ).way_out.before(api) or "")

    assert proxy() == ""
    assert proxy(HTTPS_PROXY="http://a:1") == "http://a:1"
    assert proxy(https_proxy="a:1") == "http://a:1"
    assert proxy(HTTPS_PROXY="http://a:1", MILLRACE_INFERENCE_HTTPS_PROXY="http://b:1") == "http://b:1"
    assert proxy(HTTPS_PROXY="http://a:1", MILLRACE_INFERENCE_HTTPS_PROXY="none") == ""
    assert proxy(HTTPS_PROXY="http://a:1", NO_PROXY="10.0.0.0/8, .openai.com") == ""
    assert proxy(https_proxy="http://a:1", no_proxy="[::1] api.openai.com") == ""


def test_a_proxy_that_is_none_stops_the_start() -> None:
    """The variable is named, whichever it was; what stands in it is not, for there may be a password."""
    for variable in ("HTTPS_PROXY", "https_proxy", "MILLRACE_INFERENCE_HTTPS_PROXY"):
        with pytest.raises(ConfigError) as caught:
            load(InferenceSettings, {variable: "socks5://me:hunter2@p:1080"})
        assert caught.value.message.startswith(variable)
        assert "HTTP proxy" in caught.value.message
        assert "hunter2" not in caught.value.message


def test_the_models_file_holds_no_password() -> None:
    """It is a file that many read; the setting may name one."""
    with pytest.raises(ValueError, match="MILLRACE_INFERENCE_HTTPS_PROXY may") as caught:
        Upstream.model_validate({"base_url": "https://a/v1", "proxy": "http://me:hunter2@p:1"})
    assert "hunter2" not in str([error["msg"] for error in caught.value.errors()])


def test_a_proxy_that_nobody_here_speaks_to_stops_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """ALL_PROXY may name SOCKS for other programs: the SDK, which is asked for headers alone, refused to start."""
    monkeypatch.setenv("ALL_PROXY", "socks5://127.0.0.1:9")
    OpenAIEngine("far", Upstream.model_validate({"base_url": "https://a/v1"}), "secret")
