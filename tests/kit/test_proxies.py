"""Which calls go through a proxy."""

from __future__ import annotations

import pytest
from yarl import URL

from kit import proxies
from kit.proxies import Proxies

PROXY = URL("http://proxy.corp:3128")


@pytest.mark.parametrize(
    ("url", "is_direct"),
    [
        ("https://api.openai.com/v1", False),
        ("http://vllm:8000/v1", True),
        ("https://localhost:8443/v1", True),
        ("https://models.localhost/v1", True),
        ("https://127.0.0.2/v1", True),
        ("https://[::1]/v1", True),
    ],
)
def test_the_proxy_is_for_https_beyond_this_machine(url: str, is_direct: bool) -> None:
    """What is spoken to in the clear is near, and this machine is nearer."""
    assert Proxies(PROXY).before(URL(url)) == (None if is_direct else PROXY)


@pytest.mark.parametrize(
    ("entry", "url", "is_direct"),
    [
        ("*", "https://a.corp", True),
        ("corp", "https://a.corp", True),
        (".corp", "https://a.corp", True),
        ("*.corp", "https://a.corp", True),
        ("CORP", "https://A.Corp.", True),
        ("a.corp", "https://a.corp", True),
        ("a.corp", "https://aa.corp", False),
        ("orp", "https://a.corp", False),
        ("a.corp:8443", "https://a.corp:8443", True),
        ("a.corp:8443", "https://a.corp", False),
        ("a.corp:443", "https://a.corp", True),
        ("10.0.0.0/8", "https://10.1.2.3", True),
        ("10.0.0.0/8", "https://11.1.2.3", False),
        ("10.0.0.0/8", "https://a.corp", False),
        ("10.1.2.3", "https://10.1.2.3", True),
        ("10.1.2.3:8443", "https://10.1.2.3:8443", True),
        ("fd00::/8", "https://[fd00::1]", True),
        ("[fd00::1]", "https://[fd00::1]", True),
        ("[fd00::1]:8443", "https://[fd00::1]:8443", True),
        ("", "https://a.corp", False),
        (".", "https://a.corp", False),
    ],
)
def test_no_proxy_is_read_as_by_other_programs(entry: str, url: str, is_direct: bool) -> None:
    """Names with all below them, ports, addresses, networks, and everything."""
    assert Proxies(PROXY, ("elsewhere.example", f" {entry} ")).before(URL(url)) == (None if is_direct else PROXY)


def test_without_a_proxy_everything_is_direct() -> None:
    """As before there was a setting."""
    assert proxies.DIRECT.before(URL("https://api.openai.com")) is None


@pytest.mark.parametrize(
    ("text", "url"),
    [("http://p:3128/", "http://p:3128/"), ("proxy.corp:3128", "http://proxy.corp:3128"), ("none", None)],
)
def test_urls_of_proxies(text: str, url: str | None) -> None:
    """One without a scheme is http, as everywhere."""
    assert proxies.parse(text) == (url and URL(url))


@pytest.mark.parametrize("text", ["socks5://p:1080", "http://", "http://p:x", "http://p/path", "file:///p", "://"])
def test_what_is_no_http_proxy_is_refused(text: str) -> None:
    """SOCKS would need another library, and a path means nothing to a proxy."""
    with pytest.raises(ValueError, match="must be the URL of an HTTP proxy"):
        proxies.parse(text)


def test_logs_name_no_password() -> None:
    """Which proxy it is shows, who asks does not."""
    assert proxies.name(URL("http://me:secret@proxy.corp:3128")) == "http://proxy.corp:3128"
