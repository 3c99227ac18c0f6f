"""What the inference tests share: an upstream on a real socket, and the service itself in front of it."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from services.safety import wiring as safety_wiring
from services.safety.config import SafetySettings
from services.safety.wiring import SafetyService
from tests.fakes.openai_upstream import OpenAIUpstream
from tests.inference.postgres import PostgresServer
from tests.inference.suite import Serve, Suite, serve_suite


@pytest.fixture
async def upstream() -> AsyncIterator[OpenAIUpstream]:
    """An OpenAI-compatible upstream."""
    fake = OpenAIUpstream()
    await fake.start()
    yield fake
    await fake.stop()


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A real PostgreSQL; each test makes a database of its own, and leaves the server running."""
    server = PostgresServer()
    yield server
    server.close()


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database of either kind."""
    if request.param == "sqlite":
        return f"sqlite+aiosqlite:///{tmp_path}/database.sqlite3"
    server: PostgresServer = request.getfixturevalue("postgres")
    return server.create_database()


@pytest.fixture(scope="session")
def safety_service() -> Callable[[], SafetyService]:
    """Makes the safety service when it is first asked for; it keeps no state, so that one does for all tests."""
    return functools.cache(lambda: safety_wiring.build(SafetySettings(port=0)))


@pytest.fixture
async def serve(
    tmp_path: Path, upstream: OpenAIUpstream, safety_service: Callable[[], SafetyService]
) -> AsyncIterator[Serve]:
    """Starts the real inference service; see `serve_suite`."""
    async with AsyncExitStack() as stack:

        async def start(
            models: str = "", *, cache: bool | str = False, safety: bool | str = False, **settings: object
        ) -> Suite:
            return await serve_suite(
                stack, tmp_path, upstream, safety_service, models, cache=cache, safety=safety, settings=settings
            )

        yield start
