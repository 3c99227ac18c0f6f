"""A publisher on this machine, a stand-in of Millrace, and a caller of it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import httpx
import pytest
import pytest_asyncio
from news.writer import Writer, open_channel
from stand_in import Millrace, serving

HERE = Path(__file__).parent
TTL_S = 6 * 3600


class Publisher:
    """Serves the recordings; `answers` says what else comes at a path."""

    def __init__(self) -> None:
        self.answers: dict[str, tuple[int, bytes]] = {}
        self.asked: list[str] = []
        publisher = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                publisher.asked.append(self.path)
                name = self.path.partition("?")[0].lstrip("/")
                file = HERE / name
                found = (200, file.read_bytes()) if file.suffix in (".xml", ".json") and file.exists() else (404, b"")
                status, body = publisher.answers.get(name, found)
                self.send_response(status)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"


@pytest.fixture
def publisher() -> Iterator[Publisher]:
    publisher = Publisher()
    thread = Thread(target=publisher.server.serve_forever)
    thread.start()
    yield publisher
    publisher.server.shutdown()
    publisher.server.server_close()
    thread.join()


@pytest_asyncio.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(timeout=10.0, trust_env=False) as client:
        yield client


@pytest.fixture
def millrace() -> Millrace:
    return Millrace()


@pytest_asyncio.fixture
async def writer(millrace: Millrace) -> AsyncIterator[Writer]:
    async with serving(millrace) as target, open_channel(target) as channel:
        yield Writer(channel, "pen", TTL_S, "mr_key")
