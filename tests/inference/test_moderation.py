"""Moderation: OpenAI's categories, in order, from whatever safety knows."""

from __future__ import annotations

import asyncio

import pytest

from kit.errors import Unavailable
from services.inference.screening.moderation import CATEGORIES, CONCURRENCY, PROFILE, moderate
from tests.inference.suite import only_tasks, tasks_now

Scores = tuple[dict[str, tuple[float, bool]], str]


class FakeScoring:
    """Scores each text by its words; waits at its gate."""

    def __init__(self) -> None:
        self.profiles: set[str] = set()
        self.gate = asyncio.Event()
        self.running_count = self.running_count_max = 0
        self.is_full = asyncio.Event()

    async def scores(self, profile: str, text: str) -> Scores:
        self.profiles.add(profile)
        self.running_count += 1
        self.running_count_max = max(self.running_count_max, self.running_count)
        if self.running_count == CONCURRENCY:
            self.is_full.set()
        try:
            await self.gate.wait()
        finally:
            self.running_count -= 1
        if text == "down":
            raise Unavailable("DOWN", "down")
        return {word: (0.9, word == "hate") for word in text.split()}, "v1"


async def test_each_text_is_judged_apart() -> None:
    """In order, every category of OpenAI's and no other; what nobody knows scores 0."""
    port = FakeScoring()
    port.gate.set()

    judgements, version = await moderate(port, ["hate EMAIL_ADDRESS", "", "violence"])

    assert version == "v1"
    assert port.profiles == {PROFILE}
    assert [tuple(name for name, _, _ in one.categories) for one in judgements] == [CATEGORIES] * 3
    assert [one.is_flagged for one in judgements] == [True, False, False]
    assert [one for one in judgements[0].categories if one[1]] == [("hate", 0.9, True)]
    assert [one for one in judgements[2].categories if one[1]] == [("violence", 0.9, False)]


async def test_many_texts_are_judged_a_few_at_a_time() -> None:
    """A long list does not flood safety."""
    port = FakeScoring()
    task = asyncio.create_task(moderate(port, ["hate"] * 30))
    await asyncio.wait_for(port.is_full.wait(), 5)
    port.gate.set()

    judgements, _ = await task

    assert len(judgements) == 30
    assert port.running_count_max == CONCURRENCY


async def test_one_failure_ends_them_all() -> None:
    """No text's answer is made up, and none is still asked about when the call is over."""
    before = tasks_now()
    port = FakeScoring()
    task = asyncio.create_task(moderate(port, ["down"] + ["hate"] * 30))
    await asyncio.wait_for(port.is_full.wait(), 5)
    port.gate.set()

    with pytest.raises(Unavailable):
        await task

    assert tasks_now() == before
    await only_tasks(before)
