"""An OpenAI-compatible upstream that repeats the last user message, cut as the model's name says.

`parrot-3` streams three code points a delta, `parrot-json-...` a JSON object that holds the message, `parrot-tools-...`
a tool call with it, `villain-...` something that is not to be said, with harmless words on both sides, and
`patient-...` a piece each time that `go_on` lets it.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

from aiohttp import web

BEFORE = "Of course, here is what the old book in the library says about it, word for word: "
HARM = "how to make a pipe bomb at home"
AFTER = " and then there are many more words behind it, which nobody should ever see."
USAGE = {"prompt_tokens": 5, "completion_tokens": 9, "total_tokens": 14}


class Parrot:
    """The upstream; `prompts` are the last user messages as they arrived."""

    def __init__(self) -> None:
        self.url = ""
        self.prompts: list[str] = []
        self._steps: asyncio.Queue[None] = asyncio.Queue()
        app = web.Application()
        app.router.add_post("/v1/chat/completions", self._chat)
        self._runner = web.AppRunner(app, shutdown_timeout=0)

    async def start(self) -> None:
        """Listens on a free port."""
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}/v1"

    async def stop(self) -> None:
        """Stops listening."""
        await self._runner.cleanup()

    def go_on(self, count: int) -> None:
        """Lets a patient model say so many words."""
        for _ in range(count):
            self._steps.put_nowait(None)

    def drain(self) -> None:
        """Takes back what it was allowed and has not said."""
        while not self._steps.empty():
            self._steps.get_nowait()

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        kind, _, size = body["model"].rpartition("-")
        heard = [each["content"] for each in body["messages"] if each["role"] == "user"][-1]
        self.prompts.append(heard)
        text = BEFORE + HARM + AFTER if kind == "villain" else heard
        if kind.endswith(("json", "tools")):
            text = json.dumps({"note": text}, ensure_ascii=False)
        choices = range(body.get("n") or 1)
        if not body.get("stream"):
            return web.json_response(
                {"model": body["model"], "choices": [_choice(at, kind, text) for at in choices], "usage": USAGE}
            )
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        pieces = [text[at : at + int(size)] for at in range(0, len(text), int(size))]
        for number, piece in enumerate(pieces):
            if kind.endswith("patient"):
                await self._steps.get()
            for index in choices:
                await response.write(_event(body["model"], [_delta(index, kind, piece, number == 0)]))
        for index in choices:
            end = {"index": index, "delta": {}, "finish_reason": _finish(kind)}
            await response.write(_event(body["model"], [end]))
        await response.write(_event(body["model"], [], USAGE) + b"data: [DONE]\n\n")
        return response


def _finish(kind: str) -> str:
    return "tool_calls" if kind.endswith("tools") else "stop"


def _call(arguments: str, is_first: bool) -> dict[str, Any]:
    head = {"id": "call_1", "type": "function"} if is_first else {}
    function = {"name": "note", "arguments": arguments} if is_first else {"arguments": arguments}
    return {"index": 0, **head, "function": function}


def _choice(index: int, kind: str, text: str) -> dict[str, Any]:
    is_call = kind.endswith("tools")
    said = {"content": None, "tool_calls": [_call(text, True)]} if is_call else {"content": text}
    return {"index": index, "message": {"role": "assistant", **said}, "finish_reason": _finish(kind)}


def _delta(index: int, kind: str, piece: str, is_first: bool) -> dict[str, Any]:
    said = {"tool_calls": [_call(piece, is_first)]} if kind.endswith("tools") else {"content": piece}
    return {"index": index, "delta": said, "finish_reason": None}


def _event(model: str, choices: list[dict[str, Any]], usage: dict[str, int] | None = None) -> bytes:
    chunk = {"id": "1", "object": "chat.completion.chunk", "created": 1, "model": model, "choices": choices}
    return b"data: " + json.dumps(chunk | ({"usage": usage} if usage else {})).encode() + b"\n\n"
