"""What clients of HTTP/1.0 get, byte for byte."""

from __future__ import annotations

import asyncio
import json

import pytest

CHAT = {"model": "echo", "messages": [{"role": "user", "content": "hi there"}]}


async def _connect(port, version, body, head=""):
    """Sends a chat over a connection of its own; returns its two ends."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    data = json.dumps(body).encode()
    top = f"POST /v1/chat/completions HTTP/{version}\r\nhost: x\r\n{head}content-length: {len(data)}\r\n\r\n"
    writer.write(top.encode() + data)
    return reader, writer


async def _answer(port, version, body, head=""):
    """The headers and the bytes of an answer, until the server hangs up."""
    reader, writer = await _connect(port, version, body, head)
    async with asyncio.timeout(10):
        answer = await reader.read()
    writer.close()
    top, _, rest = answer.partition(b"\r\n\r\n")
    return dict(line.lower().split(": ", 1) for line in top.decode().split("\r\n")[1:]), rest


@pytest.mark.parametrize("head", ["", "connection: keep-alive\r\n"])
async def test_a_stream_to_an_old_client_ends_with_its_connection(edge, head):
    """The text as it is, without chunks, and no connection that is kept alive, whatever the client asks for."""
    headers, rest = await _answer(edge.port, "1.0", CHAT | {"stream": True}, head)
    events = rest.split(b"\n\n")

    assert (headers.get("transfer-encoding"), headers.get("content-length")) == (None, None)
    assert headers["connection"] == "close"
    assert all(event.startswith(b"data: ") for event in events[:-1])
    assert events[-2:] == [b"data: [DONE]", b""]


async def test_pieces_reach_an_old_client_as_they_come(edge, inference):
    """The first words are there while the model still works on the rest."""
    reader, writer = await _connect(edge.port, "1.0", CHAT | {"model": "gate", "stream": True})
    async with asyncio.timeout(10):
        begun = await reader.readuntil(b"echo:")
        inference.gate.set()
        rest = await reader.read()
    writer.close()

    assert b"[DONE]" not in begun
    assert rest.endswith(b"data: [DONE]\n\n")


async def test_a_whole_answer_has_its_length(edge):
    """What is complete when it begins is told by its length, as before."""
    headers, rest = await _answer(edge.port, "1.0", CHAT)

    assert (headers["content-length"], headers["connection"]) == (str(len(rest)), "close")
    assert json.loads(rest)["object"] == "chat.completion"


async def test_other_clients_get_chunks(edge):
    """HTTP/1.1 says where the answer ends, so that its connection may be kept."""
    headers, rest = await _answer(edge.port, "1.1", CHAT | {"stream": True}, "connection: close\r\n")

    assert headers["transfer-encoding"] == "chunked"
    assert rest.endswith(b"\r\n0\r\n\r\n")
