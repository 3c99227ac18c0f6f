"""A client that leaves cancels its call at once."""

from __future__ import annotations

import asyncio
import json

import pytest

REQUESTS = [
    ("/v1/chat/completions", {"model": "silent", "messages": [{"role": "user", "content": "x"}]}),
    ("/v1/chat/completions", {"model": "silent", "stream": True, "messages": [{"role": "user", "content": "x"}]}),
    ("/v1/chat/completions", {"model": "stall", "stream": True, "messages": [{"role": "user", "content": "x"}]}),
    ("/chat", {"model": "silent", "message": "x"}),
    ("/chat/stream", {"model": "stall", "message": "x"}),
    ("/v1/completions", {"model": "stall", "prompt": "x"}),
    ("/v1/completions", {"model": "silent", "prompt": ["x", "y"], "stream": True}),
    ("/v1/completions", {"model": "stall", "prompt": ["x", "y"], "stream": True}),
]


@pytest.mark.parametrize(("path", "body"), REQUESTS)
async def test_hanging_up_cancels_the_rpc(edge, inference, path, body):
    """Streaming or not, before or after the first token: inference is told; how soon, `bench.disconnect` measures."""
    raw = json.dumps(body).encode()
    _, writer = await asyncio.open_connection("127.0.0.1", edge.port)
    head = f"POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {len(raw)}\r\n\r\n"
    writer.write(head.encode() + raw)
    async with asyncio.timeout(5):
        await inference.began.wait()
    writer.close()
    async with asyncio.timeout(5):
        await inference.cancelled.wait()


async def test_hanging_up_in_the_middle_of_a_body_is_quiet(edge, caplog):
    """Half a request, then nothing: no call is made and nothing is logged as a failure."""
    _, writer = await asyncio.open_connection("127.0.0.1", edge.port)
    writer.write(b"POST /chat HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{")
    await writer.drain()
    writer.close()
    await writer.wait_closed()
    answer = await edge.get("/livez")

    assert answer.status_code == 200
    assert "request failed" not in caplog.text
