"""The containers' health check, against real servers."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent import futures
from http.server import BaseHTTPRequestHandler, HTTPServer

import grpc
import pytest
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from kit.healthcheck import main
from tests.fakes.proxy import name_a_proxy

Status = health_pb2.HealthCheckResponse.ServingStatus


@pytest.fixture
def server() -> Iterator[tuple[health.HealthServicer, str]]:
    servicer, server = health.HealthServicer(), grpc.server(futures.ThreadPoolExecutor(2))
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield servicer, f"127.0.0.1:{port}"
    server.stop(0).wait()


@pytest.fixture
def page() -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/readyz" else 503)
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_a_serving_server_is_well(server):
    """SERVING is exit code 0, for the whole server and for a service by name."""
    servicer, address = server
    servicer.set("model/x", Status.SERVING)

    assert main([address]) == 0
    assert main([address, "model/x"]) == 0


def test_a_proxy_is_not_asked(server, page, monkeypatch):
    """What is asked is in the same container, whatever proxy the environment names."""
    name_a_proxy(monkeypatch)

    assert main([server[1]]) == 0
    assert main([f"{page}/readyz"]) == 0


def test_a_server_that_warms_up_is_not_well(server, capsys):
    """NOT_SERVING is exit code 1, and is said."""
    servicer, address = server
    servicer.set("", Status.NOT_SERVING)

    assert main([address]) == 1
    assert capsys.readouterr().err == f"{address}: NOT_SERVING\n"


def test_an_unknown_service_is_not_well(server, capsys):
    """A name that the server does not know is exit code 1 with the status."""
    assert main([server[1], "nobody"]) == 1
    assert "NOT_FOUND" in capsys.readouterr().err


def test_nobody_there_is_not_well(capsys):
    """A refused connection is exit code 1, over gRPC and over HTTP."""
    assert main(["127.0.0.1:1"]) == 1
    assert "UNAVAILABLE" in capsys.readouterr().err
    assert main(["http://127.0.0.1:1/readyz"]) == 1
    assert "refused" in capsys.readouterr().err


def test_a_page_is_judged_by_its_status(page, capsys):
    """200 is exit code 0; anything else is 1, with the status."""
    assert main([f"{page}/readyz"]) == 0
    assert main([f"{page}/other"]) == 1
    assert "503" in capsys.readouterr().err


def test_without_an_address_it_explains_itself(capsys):
    """A wrong command line is exit code 2 with the usage."""
    assert main([]) == 2
    assert "HOST:PORT" in capsys.readouterr().err
