"""The news example as a stub user runs it: a process of its own beside the four services."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

from bench.ports import free_port
from tests.flow.conftest import Suite
from tests.flow.upstream import WORDS, Upstream

pytestmark = pytest.mark.asyncio(loop_scope="module")

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "news"
DEADLINE_S = 30.0


@pytest_asyncio.fixture(loop_scope="module")
async def site(suite: Suite) -> AsyncIterator[httpx.AsyncClient]:
    """The example on a free port, with the sample that comes along."""
    port = free_port()
    variables = {"NEWS_MILLRACE": suite.address("inference"), "NEWS_MODEL": "fake-pen", "NEWS_PORT": str(port)}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "news", cwd=EXAMPLE, env={**os.environ, **variables}, stdout=PIPE, stderr=None
    )
    assert process.stdout
    try:
        async with asyncio.timeout(DEADLINE_S):
            await process.stdout.readline()
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=DEADLINE_S) as client:
            yield client
    finally:
        process.terminate()
        async with asyncio.timeout(DEADLINE_S):
            await process.communicate()


async def summed_up(site: httpx.AsyncClient) -> dict[str, Any]:
    """The news, once there is a summary."""
    async with asyncio.timeout(DEADLINE_S):
        while True:
            try:
                news: dict[str, Any] = json.loads((await site.get("/news")).content)
            except httpx.ConnectError:
                continue
            if news.get("summary"):
                return news
            assert not news["problem"], news


async def test_one_call_upstream_serves_every_visitor(site: httpx.AsyncClient, upstream: Upstream) -> None:
    """The summary is the model's, and kept by Millrace under the policy that a visitor's call names, too."""
    first = await summed_up(site)
    shown = [(await site.get("/news")).json()["summary"] for _ in range(5)]

    assert first["summary"]["text"] == "".join(WORDS)
    assert first["summary"]["model"] == "fake-pen"
    assert all(one["from_cache"] for one in shown)
    assert len(upstream.requests) == 1


async def test_a_new_process_finds_what_is_kept(site: httpx.AsyncClient, upstream: Upstream) -> None:
    """A restart, or one replica more, costs no further call upstream."""
    news = await summed_up(site)

    assert news["summary"]["text"] == "".join(WORDS)
    assert len(upstream.requests) == 1
