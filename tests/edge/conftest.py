"""A real edge over HTTP in front of a scripted inference service over gRPC."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

from kit.telemetry import Telemetry, off
from services.edge.config import EdgeSettings, InferenceDialSettings
from services.edge.wiring import Edge, wire
from tests.fakes.inference import FakeInference
from tests.fakes.openai_wire import validator


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Runs a module's tests in one event loop, because they share its servers."""
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent) and pytest_asyncio.is_async_test(item):
            item.add_marker(pytest.mark.asyncio(loop_scope="module"), append=False)


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
Pair = tuple[FakeInference, RunningEdge]


@asynccontextmanager
async def serving(target: str, telemetry: Telemetry | None = None, **settings: Any) -> AsyncIterator[RunningEdge]:
    """An edge in front of a target, with settings of its own."""
    chosen = {"inference": InferenceDialSettings(target=target), "port": 0, "grace_s": 1, **settings}
    edge = wire(EdgeSettings(**chosen), telemetry or off())
    port = await edge.start()
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=10, trust_env=False) as client:
        yield RunningEdge(edge, port, client)
    await edge.stop()


@asynccontextmanager
async def new_pair() -> AsyncIterator[Pair]:
    """A scripted inference service and an edge in front of it."""
    fake = FakeInference()
    target = await fake.start()
    async with serving(target) as edge:
        yield fake, edge
    await fake.stop()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared_pair() -> AsyncIterator[Pair]:
    """One pair for a module's tests: stopping a server takes longer than most of them."""
    async with new_pair() as pair:
        yield pair


@pytest.fixture
def inference(shared_pair: Pair) -> FakeInference:
    """The scripted inference service, as if it were new."""
    shared_pair[0].reset()
    return shared_pair[0]


@pytest.fixture
def edge(shared_pair: Pair) -> RunningEdge:
    """An edge with default settings."""
    return shared_pair[1]


@pytest_asyncio.fixture(loop_scope="module")
async def own_pair() -> AsyncIterator[Pair]:
    """A pair for one test that breaks it, or counts what it does."""
    async with new_pair() as pair:
        yield pair


@pytest_asyncio.fixture(loop_scope="module")
async def serve(inference: FakeInference) -> AsyncIterator[Serve]:
    """Starts edges with settings of their own; all are stopped at the end."""
    async with AsyncExitStack() as stack:

        async def start(telemetry: Telemetry | None = None, **settings: Any) -> RunningEdge:
            return await stack.enter_async_context(serving(inference.target, telemetry, **settings))

        yield start


@pytest.fixture(scope="session")
def openai_schema() -> Callable[[str, Any], None]:
    """Validates a value against a schema that OpenAI publishes."""
    return validator()
