"""The real edge over the real inference service, whose upstream is a fake one on a socket."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from kit.telemetry import off
from services.edge.config import EdgeSettings, InferenceDialSettings
from services.edge.wiring import wire
from services.inference.jobs.settings import JobSettings
from services.inference.quota.settings import QuotaSettings
from tests.fakes.openai_upstream import OpenAIUpstream
from tests.inference.suite import Suite, serve_suite


@pytest.fixture
async def upstream() -> AsyncIterator[OpenAIUpstream]:
    """An OpenAI-compatible upstream."""
    fake = OpenAIUpstream()
    await fake.start()
    yield fake
    await fake.stop()


def _no_safety() -> None:
    raise AssertionError("these tests go without safety")


@pytest.fixture
def limits() -> str:
    """What each client may use; a test that wants limits has a parameter of this name."""
    return ""


@pytest.fixture
async def suite(tmp_path: Path, upstream: OpenAIUpstream, limits: str) -> AsyncIterator[Suite]:
    """Inference, with workers that look often."""
    settings: dict[str, Any] = {"jobs": JobSettings(poll_s=0.05, concurrency=4)}
    if limits:
        quotas = tmp_path / "quotas.yaml"
        quotas.write_text(f"version: 1\ntiers: {{few: {{client: {{{limits}}}}}}}\nroles: {{anonymous: few}}\n")
        settings["quotas"] = QuotaSettings(file=quotas)
    async with AsyncExitStack() as stack:
        yield await serve_suite(
            stack,
            tmp_path,
            upstream,
            _no_safety,
            "",
            cache=False,
            safety=False,
            settings=settings,
        )


@pytest.fixture
async def url(suite: Suite) -> AsyncIterator[str]:
    """The edge's address."""
    dial = InferenceDialSettings(target=suite.target)
    edge = wire(EdgeSettings(port=0, grace_s=1, default_model="gpt", file_bytes_max=300_000, inference=dial), off())
    yield f"http://127.0.0.1:{await edge.start()}"
    await edge.stop()


@pytest.fixture
async def http(url: str) -> AsyncIterator[httpx.AsyncClient]:
    """A plain client."""
    async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=20) as client:
        yield client


@pytest.fixture
async def client(url: str) -> AsyncIterator[openai.AsyncOpenAI]:
    """The SDK's client; it retries nothing, so that errors show."""
    http = httpx.AsyncClient(trust_env=False, timeout=20)
    async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, http_client=http) as made:
        yield made
