"""Which HTTP proxy stands before what is outside, as HTTPS_PROXY and NO_PROXY say for other programs.

Only for calls over https, and never for this machine: what is spoken to in the clear is near as a rule, and a company's
proxy does not reach it. Nothing here reads the environment: aiohttp's `trust_env` would, and would take passwords from
~/.netrc along the way. Channels between services know no proxy at all (`kit.dial`).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection

from pydantic import Field, SecretStr, field_validator
from yarl import URL

from kit.config import ServeSettings

NONE = "none"
_DEFAULT_PORTS = {"http": 80, "https": 443}


def parse(text: str) -> URL | None:
    """Reads the URL of a proxy; as elsewhere, one without a scheme is http, and `none` is none at all.

    Raises:
        ValueError: It is no URL of an HTTP proxy.
    """
    if text == NONE:
        return None
    what = "must be the URL of an HTTP proxy, as http://host:3128, or `none`"
    try:
        url = URL(text if "://" in text else f"http://{text}")
        host, _ = url.host, url.port
    except ValueError:
        raise ValueError(what) from None
    if url.scheme not in _DEFAULT_PORTS:
        raise ValueError(f"{what}; {url.scheme} is not spoken here")
    if not host or url.path not in ("", "/") or url.query_string:
        raise ValueError(what)
    return url


def name(proxy: URL) -> str:
    """What logs may say of a proxy: never the password."""
    return str(proxy.with_user(None).origin())


class Proxies:
    """Chooses the proxy of a call.

    Args:
        https: The proxy of calls over https; None: there is none.
        direct: What it is not for, as NO_PROXY has it: hosts, each with all names under it, `host:port`, addresses,
            networks such as 10.0.0.0/8, `*` for everything.
    """

    def __init__(self, https: URL | None = None, direct: Collection[str] = ()) -> None:
        self._https = https
        self._direct = tuple(entry.strip().lower() for entry in direct)

    def before(self, url: URL) -> URL | None:
        """Returns the proxy of calls to a URL; None: it is reached directly."""
        if self._https is None or url.scheme != "https" or url.host is None or _is_here(url.host):
            return None
        return None if any(_covers(entry, url) for entry in self._direct) else self._https


DIRECT = Proxies()


class OutwardSettings(ServeSettings):
    """Settings of a service that calls what is outside."""

    https_proxy: SecretStr | None = Field(
        default=None,
        description="Proxy to what is outside, over https, as http://user:password@host:3128; `none`: go directly.",
        json_schema_extra={"standard": "HTTPS_PROXY https_proxy"},
    )
    no_proxy: str = Field(
        default="",
        description="Hosts, with all below them, and networks that are reached directly, comma separated.",
        json_schema_extra={"standard": "NO_PROXY no_proxy"},
    )

    @field_validator("https_proxy")
    @classmethod
    def _is_a_proxy(cls, url: SecretStr | None) -> SecretStr | None:
        if url is not None:
            parse(url.get_secret_value())
        return url

    @property
    def way_out(self) -> Proxies:
        """What stands before what is outside."""
        https = parse(self.https_proxy.get_secret_value()) if self.https_proxy else None
        return Proxies(https, self.no_proxy.replace(",", " ").split())


def _is_here(host: str) -> bool:
    address = _address(host)
    return address.is_loopback if address else host == "localhost" or host.endswith(".localhost")


def _covers(entry: str, url: URL) -> bool:
    """Whether one part of NO_PROXY means the host of a URL."""
    if entry == "*":
        return True
    host = (url.host or "").lower().rstrip(".")
    network = _network(entry)
    if network is not None:
        address = _address(host)
        return address is not None and address in network
    part, colon, port = entry.rpartition(":")
    if colon and port.isdecimal():
        if url.port != int(port):
            return False
        entry = part.strip("[]")
    entry = entry.removeprefix("*").removeprefix(".").rstrip(".")
    return bool(entry) and (host == entry or host.endswith(f".{entry}"))


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def _network(entry: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
    try:
        return ipaddress.ip_network(entry.strip("[]"), strict=False)
    except ValueError:
        return None
