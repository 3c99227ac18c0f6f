"""What the edge says about itself: its pages, the OpenAPI document, and its figures."""

from __future__ import annotations

from services.edge.assets import Assets
from services.edge.exchange import Exchange
from services.edge.metrics import Metrics


class PageEndpoints:
    """The pages, the document and the figures."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._assets = Assets()
        self.openapi = b"{}"

    async def index(self, exchange: Exchange, _: None) -> None:
        """GET /."""
        await self._assets.send_page(exchange, "index.html")

    async def docs(self, exchange: Exchange, _: None) -> None:
        """GET /docs."""
        await self._assets.send_page(exchange, "docs.html")

    async def asset(self, exchange: Exchange, _: None) -> None:
        """GET /assets/{version}/{name}."""
        await self._assets.send(exchange, exchange.params["version"], exchange.params["name"])

    async def document(self, exchange: Exchange, _: None) -> None:
        """GET /openapi.json."""
        await exchange.answer(200, self.openapi)

    async def metrics(self, exchange: Exchange, _: None) -> None:
        """GET /metrics."""
        page, content_type = self._metrics.page(exchange.headers.get(b"accept", b"").decode("latin-1"))
        await exchange.answer(200, page, content_type.encode())
