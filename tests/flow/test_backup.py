"""Everything is lost, and a backup that was made under load brings it back."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
from asyncio.subprocess import PIPE, STDOUT
from pathlib import Path
from typing import Any

import httpx
import pytest

from services.inference.access.secret import new_secret
from tests.flow.conftest import Suite
from tests.flow.upstream import Upstream

pytestmark = pytest.mark.asyncio(loop_scope="module")

ADMIN = new_secret()
DEADLINE_S = 60.0
QUESTIONS = [f"What is {number}?" for number in range(6)]


@pytest.fixture(scope="module")
def variables() -> dict[str, str]:
    """Nobody may call without a key."""
    return {"MILLRACE_INFERENCE_ACCESS_MODE": "required", "MILLRACE_INFERENCE_ACCESS_ADMIN_KEY": ADMIN}


def client(suite: Suite, key: str) -> httpx.AsyncClient:
    """A caller with a key."""
    headers = {"authorization": f"Bearer {key}"}
    return httpx.AsyncClient(base_url=suite.url, headers=headers, timeout=DEADLINE_S)


async def ask(http: httpx.AsyncClient, question: str) -> dict[str, Any]:
    """Asks the model, and returns the whole answer."""
    body = {"model": "fake", "messages": [{"role": "user", "content": question}]}
    answer = await http.post("/v1/chat/completions", json=body)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def oldest(suite: Suite, count: int) -> list[dict[str, Any]]:
    """The first rows of the ledger, once the database has so many."""
    async with client(suite, ADMIN) as http, asyncio.timeout(DEADLINE_S):
        while True:
            rows: list[dict[str, Any]] = (await http.get("/history?limit=100")).json()["data"]
            if len(rows) >= count:
                return rows[-count:]


async def millrace(suite: Suite, *arguments: str) -> None:
    """Runs the command line with the suite's settings."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "cli", *arguments, env={**os.environ, **suite.variables}, stdout=PIPE, stderr=STDOUT
    )
    async with asyncio.timeout(DEADLINE_S):
        said, _ = await process.communicate()
    assert process.returncode == 0, said.decode()


def lose_everything(folder: Path) -> None:
    """Deletes what the services keep; their logs and the models file are not kept by them."""
    for path in folder.iterdir():
        if path.suffix in (".log", ".yaml"):
            continue
        shutil.rmtree(path) if path.is_dir() else path.unlink()


async def test_what_was_lost_is_back(suite: Suite, upstream: Upstream, tmp_path: Path) -> None:
    """The key opens, the rows are equal, the file is whole, and answered questions cost nothing again."""
    async with client(suite, ADMIN) as http:
        key = (await http.post("/admin/keys", json={"name": "laptop", "role": "service"})).json()["secret"]
    async with client(suite, key) as http:
        for question in QUESTIONS:
            await ask(http, question)
        upload = {"file": ("notes.jsonl", b'{"a": 1}\n' * 50_000, "application/jsonl")}
        file_id = (await http.post("/v1/files", files=upload, data={"purpose": "batch"})).json()["id"]
        rows = await oldest(suite, len(QUESTIONS))

        busy = [asyncio.create_task(ask(http, f"Meanwhile {number}?")) for number in range(40)]
        await millrace(suite, "backup", str(tmp_path / "backup"))
        await asyncio.gather(*busy)

    for name in list(suite.processes):
        await suite.kill(name)
    lose_everything(suite.folder)
    await millrace(suite, "restore", str(tmp_path / "backup"))
    await suite.start()

    asked_count = len(upstream.requests)
    async with client(suite, key) as http:
        again = [await ask(http, question) for question in QUESTIONS]
        content = (await http.get(f"/v1/files/{file_id}/content")).content
    assert [answer["millrace"]["cache"]["outcome"] for answer in again] == ["exact"] * len(QUESTIONS)
    assert len(upstream.requests) == asked_count
    assert content == b'{"a": 1}\n' * 50_000
    assert await oldest(suite, len(QUESTIONS)) == rows
