"""The local embedder on the model that is installed with the suite."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest

from kit import minilm
from kit.encoder import TURN_TEXTS_MAX
from kit.errors import Code, InvalidArgument, MillraceError
from services.inference.accounting.metering import Meter, lend
from services.inference.engines.local.embedder import ACTIVE_MAX, LocalEmbedder

DIMENSIONS = 384


@pytest.fixture
async def embedder() -> AsyncIterator[LocalEmbedder]:
    """The embedder, warm."""
    engine = LocalEmbedder(minilm.NAME)
    await engine.warm()
    yield engine
    await engine.close()


def cosine(left: list[float], right: list[float]) -> float:
    """The cosine of two vectors."""
    return sum(a * b for a, b in zip(left, right, strict=True)) / (math.hypot(*left) * math.hypot(*right))


async def test_meaning_shows_in_the_vectors(embedder: LocalEmbedder) -> None:
    """Paraphrases are near, other topics far, and vectors have length 1."""
    texts = ["How do I run Millrace?", "How can I start Millrace?", "A cat sat on the mat."]
    (run, start, cat), usage = await embedder.embed("", texts, None, None)

    assert len(run) == DIMENSIONS
    assert math.hypot(*run) == pytest.approx(1, abs=1e-4)
    assert cosine(run, start) > 0.8 > 0.3 > cosine(run, cat)
    assert usage.prompt_token_count == 27


async def test_many_texts_keep_their_order(embedder: LocalEmbedder) -> None:
    """Texts of several turns come back in order, each as if it were alone."""
    texts = [f"Text number {at}" for at in range(2 * TURN_TEXTS_MAX + 3)]
    vectors, _ = await embedder.embed("", texts, DIMENSIONS, time.monotonic() + 60)
    (alone,), _ = await embedder.embed("", texts[-1:], None, None)

    assert len(vectors) == len(texts)
    assert cosine(vectors[-1], alone) == pytest.approx(1, abs=1e-4)
    assert cosine(vectors[0], alone) < 0.99


async def test_callers_share_a_turn_and_none_waits_for_all(embedder: LocalEmbedder) -> None:
    """Who asks for one text is answered before a long list that came first has its last vector."""
    long = asyncio.create_task(
        embedder.embed("", [f"Text number {at}" for at in range(40 * TURN_TEXTS_MAX)], None, None)
    )
    await asyncio.sleep(0)
    short = await asyncio.gather(*(embedder.embed("", [f"Short {at}"], None, None) for at in range(8)))

    assert not long.done()
    assert all(len(vectors) == 1 for vectors, _ in short)
    assert len((await long)[0]) == 40 * TURN_TEXTS_MAX


async def test_long_text_is_refused_and_not_cut(embedder: LocalEmbedder) -> None:
    """A text beyond the model's length is named, wherever in the list it stands."""
    texts = ["short"] * TURN_TEXTS_MAX + ["word " * 300]
    with pytest.raises(InvalidArgument) as refused:
        await embedder.embed("", texts, None, None)

    assert refused.value.reason == "CONTEXT_LENGTH_EXCEEDED"
    assert refused.value.field_violations[0].field == f"texts[{TURN_TEXTS_MAX}]"


async def test_other_dimensions_are_refused(embedder: LocalEmbedder) -> None:
    """The model cannot shorten its vectors and says so."""
    with pytest.raises(InvalidArgument) as refused:
        await embedder.embed("", ["x"], 128, None)

    assert refused.value.field_violations[0].field == "dimension_count"


async def test_deadline_ends_the_work(embedder: LocalEmbedder) -> None:
    """A deadline that has passed is DEADLINE_EXCEEDED."""
    with pytest.raises(MillraceError) as late:
        await embedder.embed("", ["x"] * 100, None, time.monotonic())

    assert late.value.code is Code.DEADLINE_EXCEEDED


async def test_who_waits_for_a_place_and_leaves_says_so(embedder: LocalEmbedder) -> None:
    """Where every place is taken, the meter tells the wait from work."""
    waiting, working = Meter(), Meter()
    async with AsyncExitStack() as places:
        for _ in range(ACTIVE_MAX):
            await places.enter_async_context(embedder._slots.place())
        with lend(waiting), pytest.raises(MillraceError):
            await embedder.embed("", ["a"], None, time.monotonic() + 0.01)
    with lend(working):
        await embedder.embed("", ["a"], None, None)

    assert (waiting.is_queued, working.is_queued) == (True, False)


async def test_before_and_after_its_time() -> None:
    """Before warm-up and after close a call is UNAVAILABLE."""
    embedder = LocalEmbedder(minilm.NAME)
    with pytest.raises(MillraceError) as early:
        await embedder.embed("", ["x"], None, None)
    await embedder.close()
    with pytest.raises(MillraceError) as late:
        await embedder.embed("", ["x"], None, None)

    assert (early.value.reason, late.value.reason) == ("MODEL_NOT_READY", "SHUTTING_DOWN")


async def test_a_missing_model_is_named() -> None:
    """A model that does not exist fails to warm with its name."""
    embedder = LocalEmbedder("/no/such/directory")
    with pytest.raises(MillraceError, match="/no/such/directory") as failed:
        await embedder.warm()
    await embedder.close()

    assert failed.value.reason == "MODEL_NOT_LOADABLE"
