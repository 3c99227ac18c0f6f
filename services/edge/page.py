"""What the edge says about itself: the OpenAPI document, a page that shows it, and its figures."""

from __future__ import annotations

from functools import cached_property
from importlib.resources import files

from services.edge.exchange import Exchange
from services.edge.metrics import CONTENT_TYPE, Metrics

# Nothing from elsewhere, nothing inline: the page works without a network and cannot be made to load anything.
_CSP = (
    b"default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; base-uri 'none'; "
    b"frame-ancestors 'none'"
)
_PAGE_HEADERS = ((b"content-security-policy", _CSP), (b"x-content-type-options", b"nosniff"))
_STATIC_TYPES = {".html": b"text/html; charset=utf-8", ".js": b"text/javascript", ".css": b"text/css"}


class PageEndpoints:
    """The document, the page and the figures."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self.openapi = b"{}"

    async def document(self, exchange: Exchange, _: None) -> None:
        """GET /openapi.json."""
        await exchange.answer(200, self.openapi)

    async def docs(self, exchange: Exchange, _: None) -> None:
        """GET /docs."""
        await self._static(exchange, "docs.html")

    async def docs_script(self, exchange: Exchange, _: None) -> None:
        """GET /docs/docs.js."""
        await self._static(exchange, "docs.js")

    async def docs_style(self, exchange: Exchange, _: None) -> None:
        """GET /docs/docs.css."""
        await self._static(exchange, "docs.css")

    async def metrics(self, exchange: Exchange, _: None) -> None:
        """GET /metrics."""
        await exchange.answer(200, self._metrics.page(), CONTENT_TYPE.encode())

    async def _static(self, exchange: Exchange, name: str) -> None:
        content_type = _STATIC_TYPES[name[name.rindex(".") :]]
        await exchange.answer(200, self._files[name], content_type, _PAGE_HEADERS)

    @cached_property
    def _files(self) -> dict[str, bytes]:
        shown = [item for item in files("services.edge.static").iterdir() if item.name.endswith(tuple(_STATIC_TYPES))]
        return {item.name: item.read_bytes() for item in shown}
