"""Judging whole texts: each once, and what a call is told of one that is known is what it was told at first."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from services.safety.checking import Screened, Text, check
from services.safety.detectors.detector import Detector, Match
from services.safety.judging import FINDINGS_MAX, Judgements
from services.safety.policy import Direction, Profile, Rule, Verdict
from services.safety.recent import Recent
from services.safety.run import State, duties
from services.safety.screening import Screening
from tests.fakes.detectors import FakeDetector, FakeModel, failing


class Shouting(FakeDetector):
    """Finds every capital letter, and counts the texts that it reads."""

    categories = ("CAPITAL",)

    def __init__(self) -> None:
        super().__init__("shouting", lambda text: None, inline=1_000_000)
        self.read_count = 0

    def cursor(self, categories: Any) -> Any:
        self.read_count += 1
        cursor = super().cursor(categories)
        scan = cursor.scan

        def find(text: str, offset: int, final: bool) -> list[Match]:
            scan(text, offset, final)
            return [Match(at, at + 1, "CAPITAL", 0.9) for at, each in enumerate(text) if each.isupper()]

        cursor.scan = find
        return cursor


@pytest.fixture
def known() -> Judgements:
    """Nothing is known yet."""
    return Recent(2)


def screening(
    *detectors: Detector, action: Verdict = Verdict.REDACT, direction: Direction = Direction.INPUT
) -> Screening:
    rules = tuple(Rule(each.name, 0.3, action, {}, fails_open=True, deadline_s=5) for each in detectors)
    profile = Profile("test", "", 0, dict.fromkeys(Direction, rules))
    wanted = duties(profile, direction, {each.name: each for each in detectors})
    return Screening(profile, direction, wanted, ThreadPoolExecutor(1))


def told(one: Screening, screened: list[Screened]) -> Any:
    """All that a caller hears of a call."""
    runs = [(run.detector.name, run.state, run.scores) for run in one.runs]
    return one.verdict, one.finding_count, runs, [(each.verdict, each.replacement, each.findings) for each in screened]


async def test_a_text_is_read_once(known: Judgements) -> None:
    """However often it comes, and beside whatever else; every call is told the same of it."""
    detector = Shouting()
    texts = [Text("Hello you"), Text("and bye")]
    heard = []
    for _ in range(3):
        one = screening(detector)
        heard.append(told(one, await check(one, texts, known)))

    assert detector.read_count == 2
    assert heard[0] == heard[1] == heard[2]
    assert heard[0][:2] == (Verdict.REDACT, 1)
    assert heard[0][3][0][1] == "<CAPITAL>ello you"


async def test_what_is_blocked_stays_so(known: Judgements) -> None:
    """With what had been read by then, and no more."""
    late = Shouting()
    late.name = "late"
    heard = []
    for _ in range(2):
        one = screening(Shouting(), late, action=Verdict.BLOCK)
        heard.append(told(one, await check(one, [Text("NO")], known)))

    assert heard[0] == heard[1]
    assert heard[0][0] is Verdict.BLOCK


async def test_each_way_and_each_kind_of_text_is_apart(known: Judgements) -> None:
    """A policy may judge an answer, or what a tool returned, by other rules."""
    detector = Shouting()
    for direction in Direction:
        for retrieved in (False, True):
            await check(screening(detector, direction=direction), [Text("Hello", retrieved)], Recent(8))
    count = detector.read_count
    for direction in Direction:
        await check(screening(detector, direction=direction), [Text("Hello")], known)

    assert detector.read_count == count + 2


async def test_what_a_detector_failed_to_read_is_read_again(known: Judgements) -> None:
    """A failure is never remembered as a verdict."""
    for _ in range(2):
        one = screening(FakeDetector("failing", failing("x"), inline=100))
        await check(one, [Text("x")], known)
        assert one.runs[0].state is State.FAILED


async def test_scores_of_other_texts_are_not_mixed_in(known: Judgements) -> None:
    """What is remembered of a text is its own, whatever its call said before."""
    scores = iter((0.4, 0.2))

    async def work() -> list[Match]:
        return [Match(0, 1, "harm", next(scores))]

    model = FakeModel("model", ("harm",), work)
    one = screening(model)
    await check(one, [Text("first"), Text("second")], known)
    other = screening(model)
    await check(other, [Text("second")], known)

    assert one.runs[0].scores == {"harm": 0.4}
    assert other.runs[0].scores == {"harm": 0.2}


async def test_memory_is_bounded(known: Judgements) -> None:
    """By texts, and by findings of one text."""
    detector = Shouting()
    for text in ("one", "two", "three", "one", "A" * (FINDINGS_MAX + 1), "A" * (FINDINGS_MAX + 1)):
        await check(screening(detector), [Text(text)], known)

    assert detector.read_count == 6
