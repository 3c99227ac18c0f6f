"""What becomes of requests of a local engine that is just being closed."""

from __future__ import annotations

import asyncio
import threading

import pytest

from kit.errors import Unavailable
from services.inference.engines.local.engine import LocalEngine
from tests.inference.local_answers import collect, raw

DEADLINE_S = 10.0


async def test_who_comes_as_it_closes_is_told_at_once() -> None:
    """A prompt that is still being read then waits for no place that nobody will give."""
    engine, may_read = LocalEngine("embedded"), threading.Event()
    await engine.warm()
    assert engine._serving
    encode = engine._serving.model.encode
    engine._serving.model.encode = lambda prompt: may_read.wait(DEADLINE_S) and encode(prompt)  # type: ignore
    asking = asyncio.create_task(collect(engine, raw()))
    await asyncio.sleep(0)

    await engine.close()
    may_read.set()
    async with asyncio.timeout(DEADLINE_S):
        with pytest.raises(Unavailable) as told:
            await asking

    assert told.value.reason == "SHUTTING_DOWN"
