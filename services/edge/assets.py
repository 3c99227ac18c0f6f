"""The files of the pages: read, packed and named by their content once, then only handed out.

One digest over all of them is a part of every URL, so that browsers keep them for good, and a page never mixes the
modules of two releases. Nothing is built and nothing comes from elsewhere.
"""

from __future__ import annotations

import gzip
import hashlib
from dataclasses import dataclass
from importlib.resources import files

from services.edge.exchange import Exchange
from services.edge.fault import Fault

_TYPES = {
    ".html": b"text/html; charset=utf-8",
    ".js": b"text/javascript; charset=utf-8",
    ".css": b"text/css; charset=utf-8",
    ".svg": b"image/svg+xml",
}
# Nothing from elsewhere, nothing inline, and no text that becomes markup: the pages work without a network, and what
# a model says can neither load nor run anything.
_CSP = b"; ".join(
    (
        b"default-src 'none'",
        b"script-src 'self'",
        b"style-src 'self'",
        b"img-src 'self'",
        b"connect-src 'self'",
        b"base-uri 'none'",
        b"form-action 'none'",
        b"frame-ancestors 'none'",
        b"require-trusted-types-for 'script'",
        b"trusted-types 'none'",
    )
)
_GUARD = (
    (b"content-security-policy", _CSP),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
)
_FOR_GOOD = b"public, max-age=31536000, immutable"
_ASK_EACH_TIME = b"no-cache"
# Stands in pages for the digest.
_PLACEHOLDER = b"{version}"


@dataclass(frozen=True)
class _Asset:
    """A file as it is sent, and packed."""

    media_type: bytes
    etag: bytes
    plain: bytes
    packed: bytes


class Assets:
    """The files.

    Attributes:
        version: Digest of all of them.
    """

    def __init__(self) -> None:
        found = {
            item.name: item.read_bytes()
            for item in sorted(files("services.edge.static").iterdir(), key=lambda item: item.name)
            if item.name.endswith(tuple(_TYPES))
        }
        digest = hashlib.sha256()
        for name, content in found.items():
            digest.update(b"%b %d\n%b" % (name.encode(), len(content), content))
        self.version = digest.hexdigest()[:16]
        self._assets = {name: self._asset(name, content) for name, content in found.items()}

    async def send_page(self, exchange: Exchange, name: str) -> None:
        """Sends a page, which browsers ask for each time; it names the files of its own release."""
        await _send(exchange, self._assets[name], _ASK_EACH_TIME)

    async def send(self, exchange: Exchange, version: str, name: str) -> None:
        """Sends a file, to keep for good under the URL of its own release.

        Raises:
            Fault: 404, there is no such file.
        """
        if (asset := self._assets.get(name)) is None:
            raise Fault(404, "There is no such file.", code="path_not_found")
        await _send(exchange, asset, _FOR_GOOD if version == self.version else _ASK_EACH_TIME)

    def _asset(self, name: str, content: bytes) -> _Asset:
        suffix = name[name.rindex(".") :]
        if suffix == ".html":
            content = content.replace(_PLACEHOLDER, self.version.encode())
        etag = b'"%b"' % hashlib.sha256(content).hexdigest()[:16].encode()
        return _Asset(_TYPES[suffix], etag, content, gzip.compress(content, mtime=0))


async def _send(exchange: Exchange, asset: _Asset, keep: bytes) -> None:
    headers = [(b"etag", asset.etag), (b"cache-control", keep), (b"vary", b"accept-encoding"), *_GUARD]
    if asset.etag in exchange.headers.get(b"if-none-match", b""):
        for name, value in headers:
            exchange.set_header(name, value)
        await exchange.answer_empty(304)
        return
    body = asset.plain
    if b"gzip" in exchange.headers.get(b"accept-encoding", b""):
        headers.append((b"content-encoding", b"gzip"))
        body = asset.packed
    await exchange.answer(200, body, asset.media_type, tuple(headers))
