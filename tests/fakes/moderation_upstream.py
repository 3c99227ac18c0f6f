"""OpenAI's moderation endpoint on a real socket: it scores words, and fails as it is told."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from aiohttp import web

from services.safety.backends.document import MODERATION_CATEGORIES

KEY = "sk-test-key"


class ModerationUpstream:
    """What was asked, and what is answered.

    Attributes:
        words: The category of each word that scores 0.97; everything else scores 0.01.
        asked: The inputs of each request.
        status: Of the answer.
        body: In place of the right one.
        gate: The answer waits for it.
    """

    def __init__(self, words: Mapping[str, str]) -> None:
        self.words = words
        self.asked: list[list[str]] = []
        self.arrived = asyncio.Event()
        self.status = 200
        self.body: str | None = None
        self.gate = asyncio.Event()
        self.gate.set()
        self.url = ""

    @asynccontextmanager
    async def served(self) -> AsyncIterator[ModerationUpstream]:
        """Listens on a free port."""
        app = web.Application()
        app.router.add_post("/v1/moderations", self._answer)
        runner = web.AppRunner(app, shutdown_timeout=0)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        host, port = runner.addresses[0][:2]
        self.url = f"http://{host}:{port}/v1"
        try:
            yield self
        finally:
            self.gate.set()
            await runner.cleanup()

    async def _answer(self, request: web.Request) -> web.Response:
        if request.headers.get("Authorization") != f"Bearer {KEY}":
            return web.json_response({"error": {"message": "bad key", "code": "invalid_api_key"}}, status=401)
        asked = await request.json()
        inputs = [asked["input"]] if isinstance(asked["input"], str) else asked["input"]
        self.asked.append(inputs)
        self.arrived.set()
        await self.gate.wait()
        results = list(map(self._result, inputs))
        body = self.body or json.dumps({"id": "modr-1", "model": asked["model"], "results": results})
        return web.Response(text=body, status=self.status, content_type="application/json")

    def _result(self, text: str) -> dict[str, object]:
        found = {category for word, category in self.words.items() if word in text.lower()}
        scores = {name: 0.97 if name in found else 0.01 for name in MODERATION_CATEGORIES}
        return {
            "flagged": bool(found),
            "categories": {name: name in found for name in MODERATION_CATEGORIES},
            "category_scores": scores,
            "category_applied_input_types": {name: ["text"] for name in MODERATION_CATEGORIES},
        }
