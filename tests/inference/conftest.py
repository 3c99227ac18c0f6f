"""What the inference tests share: an upstream on a real socket, and the service itself in front of it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from tests.fakes.openai_upstream import OpenAIUpstream
from tests.inference.suite import Serve, Suite, serve_suite


@pytest.fixture
async def upstream() -> AsyncIterator[OpenAIUpstream]:
    """An OpenAI-compatible upstream."""
    fake = OpenAIUpstream()
    await fake.start()
    yield fake
    await fake.stop()


@pytest.fixture
async def serve(tmp_path: Path, upstream: OpenAIUpstream) -> AsyncIterator[Serve]:
    """Starts the real inference service; see `serve_suite`."""
    async with AsyncExitStack() as stack:

        async def start(models: str = "", *, cache: bool = False, safety: bool = False, **settings: object) -> Suite:
            return await serve_suite(stack, tmp_path, upstream, models, cache=cache, safety=safety, settings=settings)

        yield start
