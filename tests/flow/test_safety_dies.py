"""Safety freezes or dies in the middle of answers: closed models end them with nothing unscreened, open ones say so."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import AsyncIterator, Awaitable, Callable

import httpx
import pytest
import pytest_asyncio

from tests.flow.conftest import Suite
from tests.flow.parrot import Parrot

pytestmark = pytest.mark.asyncio(loop_scope="module")

DEADLINE_S = 60.0
MODELS = """
version: 1
upstreams:
  fake: {{base_url: "{url}"}}
models:
  - name: "patient*"
    targets: [{{engine: openai, upstream: fake, model: "*"}}]
    cache: {{enabled: false}}
  - name: "open-patient*"
    targets: [{{engine: openai, upstream: fake, model: "*"}}]
    safety: {{on_unavailable: open}}
    cache: {{enabled: false}}
"""
CARD = "4111 1111 1111 1111"
BEFORE, BEHIND = "All is well and good so far. ", "Pay with " + CARD + ", as was agreed upon by us all. "
TEXT = BEFORE + BEHIND * 30
SIZE = 10


@pytest.fixture(scope="module")
def models() -> str:
    return MODELS


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def upstream() -> AsyncIterator[Parrot]:
    parrot = Parrot()
    await parrot.start()
    yield parrot
    await parrot.stop()


Fault = Callable[[Suite], Awaitable[None]]


async def freeze(suite: Suite) -> None:
    await suite.signal("safety", signal.SIGSTOP)


async def kill(suite: Suite) -> None:
    await suite.kill("safety")


async def mend(suite: Suite) -> None:
    """Leaves the suite as it was found."""
    if "safety" in suite.processes:
        await suite.signal("safety", signal.SIGCONT)
    else:
        await suite.start("safety")
    await suite.until(lambda health: health["status"] == "ok")


async def answered(suite: Suite, upstream: Parrot, model: str, fault: Fault) -> tuple[str, list[str]]:
    """Streams an answer through a fault; returns its text and the kinds of what came beside it."""
    body = {"model": f"{model}-{SIZE}", "messages": [{"role": "user", "content": TEXT}], "stream": True}
    text, kinds, has_failed = "", [], False
    upstream.go_on(len(BEFORE) // SIZE + 2)
    async with (
        asyncio.timeout(DEADLINE_S),
        httpx.AsyncClient(timeout=DEADLINE_S) as client,
        client.stream("POST", f"{suite.url}/v1/chat/completions", json=body) as answer,
    ):
        async for line in answer.aiter_lines():
            if not line.startswith("data: "):
                continue
            if line == "data: [DONE]":
                kinds.append("done")
                continue
            event = json.loads(line.removeprefix("data: "))
            kinds += [kind for kind in ("error", "moderation") if event.get(kind)]
            if "moderation" in event:
                kinds.append(event["moderation"]["output"].get("code", "screened"))
            for choice in event.get("choices", ()):
                text += choice["delta"].get("content") or ""
            if text.startswith(BEFORE[:-1]) and not has_failed:
                has_failed = True
                await fault(suite)
                upstream.go_on(len(TEXT))
    upstream.drain()
    return text, kinds


@pytest.mark.parametrize("fault", [freeze, kill])
async def test_a_closed_model_ends_the_answer(suite: Suite, upstream: Parrot, fault: Fault) -> None:
    """An error in place of [DONE], and no card number before it."""
    try:
        text, kinds = await answered(suite, upstream, "patient", fault)
    finally:
        await mend(suite)

    assert "error" in kinds
    assert "done" not in kinds
    assert CARD not in text
    assert TEXT.replace(CARD, "<CREDIT_CARD>").startswith(text)


@pytest.mark.parametrize("fault", [freeze, kill])
async def test_an_open_model_goes_on_and_says_so(suite: Suite, upstream: Parrot, fault: Fault) -> None:
    """The whole answer arrives, each word once, with an event that it is unscreened."""
    try:
        text, kinds = await answered(suite, upstream, "open-patient", fault)
    finally:
        await mend(suite)

    assert text.replace("<CREDIT_CARD>", CARD) == TEXT
    assert "done" in kinds
    assert "error" not in kinds
    assert "unscreened" in kinds
