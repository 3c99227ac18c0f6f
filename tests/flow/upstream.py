"""An OpenAI-compatible upstream for stories over whole processes: few behaviours, chosen by the model's name."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from aiohttp import web

WORDS = ["The", " quick", " brown", " fox", " jumps", " over", " the", " lazy", " dog", "."]
SLOW_GAP_S = 0.1


class Upstream:
    """`...slow` streams a word each 100 ms, `...error-N` answers with that status, `...tools` calls a tool.

    While `is_down` it refuses everything.
    """

    def __init__(self) -> None:
        self.url = ""
        self.is_down = False
        self.requests: list[dict[str, Any]] = []
        self.hung_up = asyncio.Event()
        app = web.Application()
        app.router.add_post("/v1/chat/completions", self._chat)
        self._runner = web.AppRunner(app)

    async def start(self) -> None:
        """Listens on a free port."""
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}/v1"

    async def stop(self) -> None:
        """Stops listening."""
        await self._runner.cleanup()

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.requests.append(body)
        model = body["model"]
        if self.is_down or "-error-" in model:
            return web.json_response(
                {"error": {"message": "broken", "type": "server_error", "param": None, "code": None}},
                status=503 if self.is_down else int(model[-3:]),
            )
        return await self._stream(request, model) if body.get("stream") else self._whole(model)

    def _whole(self, model: str) -> web.Response:
        message: dict[str, Any] = {"role": "assistant", "content": "".join(WORDS)}
        if model.endswith("tools"):
            message = {"role": "assistant", "content": None, "tool_calls": [TOOL_CALL]}
        finish = "tool_calls" if model.endswith("tools") else "stop"
        return web.json_response(
            {"model": model, "choices": [{"index": 0, "message": message, "finish_reason": finish}], "usage": USAGE}
        )

    async def _stream(self, request: web.Request, model: str) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        try:
            for delta in _deltas(model):
                await response.write(_event(model, [{"index": 0, "delta": delta, "finish_reason": None}]))
                if model.endswith("slow"):
                    await asyncio.sleep(SLOW_GAP_S)
            finish = "tool_calls" if model.endswith("tools") else "stop"
            await response.write(_event(model, [{"index": 0, "delta": {}, "finish_reason": finish}]))
            await response.write(_event(model, [], USAGE) + b"data: [DONE]\n\n")
        except ConnectionError:
            self.hung_up.set()
        return response


TOOL_CALL = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Oslo"}'}}
USAGE = {"prompt_tokens": 7, "completion_tokens": len(WORDS), "total_tokens": 7 + len(WORDS)}


def _deltas(model: str) -> list[dict[str, Any]]:
    if not model.endswith("tools"):
        return [{"content": word} for word in WORDS]
    function = {"name": "weather", "arguments": ""}
    return [
        {"tool_calls": [{"index": 0, "id": "call_1", "type": "function", "function": function}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": '{"city": '}}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": '"Oslo"}'}}]},
    ]


def _event(model: str, choices: list[dict[str, Any]], usage: dict[str, int] | None = None) -> bytes:
    chunk = {"object": "chat.completion.chunk", "model": model, "choices": choices, "usage": usage}
    return b"data: " + json.dumps(chunk).encode() + b"\n\n"
