"""A real edge over HTTP in front of a scripted inference service over gRPC."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import httpx
import pytest

from kit.config import DialSettings
from kit.telemetry import Telemetry, off
from services.edge.config import EdgeSettings
from services.edge.wiring import Edge, wire
from tests.fakes.inference import FakeInference
from tests.fakes.openai_wire import validator


@pytest.fixture
async def inference() -> AsyncIterator[FakeInference]:
    """The scripted inference service, serving."""
    fake = FakeInference()
    fake.target = await fake.start()
    yield fake
    await fake.stop()


class RunningEdge:
    """An edge that serves, and a client of it."""

    def __init__(self, edge: Edge, port: int, client: httpx.AsyncClient) -> None:
        self.edge = edge
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        self.client = client

    async def post(self, path: str, body: Any, **options: Any) -> httpx.Response:
        """Posts JSON."""
        return await self.client.post(path, json=body, **options)

    async def chat(self, model: str = "echo", text: str = "hi there", **fields: Any) -> httpx.Response:
        """Asks the chat endpoint one thing."""
        body = {"model": model, "messages": [{"role": "user", "content": text}], **fields}
        return await self.post("/v1/chat/completions", body)

    async def get(self, path: str, **options: Any) -> httpx.Response:
        """Gets a path."""
        return await self.client.get(path, **options)


Serve = Callable[..., Awaitable[RunningEdge]]


@pytest.fixture
async def serve(inference: FakeInference) -> AsyncIterator[Serve]:
    """Starts edges with settings of their own; all are stopped at the end."""
    async with AsyncExitStack() as stack:

        async def start(telemetry: Telemetry | None = None, **settings: Any) -> RunningEdge:
            chosen = {"inference": DialSettings(target=inference.target), "port": 0, "grace_s": 1, **settings}
            edge = wire(EdgeSettings(**chosen), telemetry or off())
            port = await edge.start()
            stack.push_async_callback(edge.stop)
            client = await stack.enter_async_context(
                httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=10, trust_env=False)
            )
            return RunningEdge(edge, port, client)

        yield start


@pytest.fixture
async def edge(serve: Serve) -> RunningEdge:
    """An edge with default settings."""
    return await serve()


@pytest.fixture(scope="session")
def openai_schema() -> Callable[[str, Any], None]:
    """Validates a value against a schema that OpenAI publishes."""
    return validator()
