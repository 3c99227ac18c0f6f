"""`millrace models` against a scripted edge."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from cli import proxies
from cli.models import print_models
from tests.fakes.proxy import name_a_proxy

CARDS = [
    {"id": "gpt-4o", "owned_by": "openai", "state": "ready"},
    {"id": "big", "owned_by": "millrace", "state": "loading", "loaded_share": 0.4},
    {"id": "other", "owned_by": "millrace", "state": "loading"},
]


@pytest.fixture
def url() -> Iterator[str]:
    """An edge with three models."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps({"data": CARDS}).encode())

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_models_say_how_far_they_are(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    """One line each: what is ready needs no word, what is loading has its share where that is known."""
    assert print_models(url) == 0

    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert lines == ["gpt-4o openai", "big millrace (loading, 40%)", "other millrace (loading)"]


def test_no_proxy_stands_before_ones_own_machine(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The proxy that the environment names is for other machines' edges."""
    name_a_proxy(monkeypatch)

    assert print_models(url) == 0
    assert proxies.are_for("https://millrace.example.org")
