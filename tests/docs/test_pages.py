"""The pages that promise to work word for word: their commands and programs, run against a fresh suite."""

from __future__ import annotations

import asyncio
import os
import re
import sys
from asyncio.subprocess import PIPE, STDOUT
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.flow.conftest import Suite

pytestmark = pytest.mark.asyncio(loop_scope="module")

ROOT = Path(__file__).resolve().parents[2]
DEADLINE_S = 90.0
FENCE = re.compile(r"^```(bash|python)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# What sets a machine up: not run here, but by .ci/run, and written down so that a change of a page is noticed.
SET_UP = {
    "git clone https://github.com/millrace/millrace && cd millrace\nmake run\n",
    "python3 -m venv caller && caller/bin/pip install ./gen\n",
}
# What each page must print, in order; `...` stands for anything.
SAID = {
    "getting-started.md": [
        '"id":"chatcmpl-...Millrace..."millrace":{',
        "data: ...8080...data: [DONE]",
        "Millrace",
        "Millrace...first-steps: millrace-embedded, ... tokens",
        "millrace-embedded...requests...millrace 0.",
    ],
    "guides/python.md": ["Millrace...tokens", "NOT_FOUND MODEL_NOT_FOUND"],
    "guides/openai-sdks.md": ["Millrace...exact", "404 model_not_found", "384"],
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def suite(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Suite]:
    """The four services with the models that come along."""
    models = (ROOT / "services" / "inference" / "models.yaml").read_text()
    made = Suite(tmp_path_factory.mktemp("suite"), models, {"MILLRACE_INFERENCE_TORCH_THREADS": "1"})
    try:
        await made.start()
        yield made
    finally:
        await made.stop()


def blocks(page: str) -> list[tuple[str, str]]:
    """A page's commands and programs in order, each with its language."""
    found: list[tuple[str, str]] = FENCE.findall((ROOT / "docs" / page).read_text())
    return found


async def run(suite: Suite, language: str, text: str) -> str:
    """Runs a block as it stands, but for the ports, and returns what it says."""
    for port, name in (("8080", "edge"), ("50051", "inference")):
        text = text.replace(f"127.0.0.1:{port}", suite.address(name))
    command = ["bash", "-euo", "pipefail", "-c", text] if language == "bash" else [sys.executable, "-c", text]
    process = await asyncio.create_subprocess_exec(
        *command, cwd=ROOT, env={**os.environ, "PYTHONPATH": ""}, stdout=PIPE, stderr=STDOUT
    )
    async with asyncio.timeout(DEADLINE_S):
        said, _ = await process.communicate()
    assert process.returncode == 0, f"{text}\n{said.decode()}\n{suite.logs()}"
    return said.decode()


@pytest.mark.parametrize("page", SAID)
async def test_a_page_works_word_for_word(page: str, suite: Suite) -> None:
    """Every block runs, and prints what the page says."""
    found = [(language, text) for language, text in blocks(page) if text not in SET_UP]

    assert len(found) == len(SAID[page])
    for (language, text), wanted in zip(found, SAID[page], strict=True):
        pattern = ".*".join(map(re.escape, wanted.split("...")))
        assert re.search(pattern, await run(suite, language, text), re.DOTALL), text


async def test_what_sets_a_machine_up_is_what_the_first_page_says() -> None:
    """A command that is not run here is one that is known."""
    first = [text for _, text in blocks("getting-started.md")]

    assert set(first) >= SET_UP
