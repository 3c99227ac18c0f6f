"""Settlement: every request is counted once, however it ends."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from contextlib import nullcontext

import pytest

from kit.errors import FailedPrecondition, MillraceError, Unavailable
from services.inference.accounting.settlement import (
    MODEL_COUNT_MAX,
    OTHER,
    RECENT_COUNT,
    Settlement,
    Totals,
    percentile,
)
from services.inference.accounting.spending import ESTIMATED
from services.inference.events import (
    Attempt,
    AttemptOutcome,
    CacheEvent,
    CacheOutcome,
    Direction,
    Receipt,
    SafetyEvent,
    Verdict,
)
from services.inference.generation import Usage
from tests.inference.parts import request

ASKED = request()
BLOCK = SafetyEvent(Direction.OUTPUT, Verdict.BLOCK)


def receipt(model: str = "gpt", **fields: object) -> Receipt:
    made = Receipt("r1", model, created_time=time.time(), usage=Usage(3, 7), engine="openai", cost_micro_usd=11)
    for name, value in fields.items():
        setattr(made, name, value)
    return made


def settled(made: Receipt, failure: BaseException | None = None) -> Totals:
    """The totals after one request."""
    settlement = Settlement()
    with pytest.raises(type(failure)) if failure else nullcontext(), settlement.settle(ASKED, made):
        if failure:
            raise failure
    assert settlement.totals_by_model == {made.model: settlement.totals}
    assert len(settlement.durations_s) == 1
    return settlement.totals


def test_an_answer_is_counted() -> None:
    """Tokens and cost; nothing else happened."""
    expected = Totals(request_count=1, prompt_token_count=3, completion_token_count=7, cost_micro_usd=11)

    assert settled(receipt()) == expected


@pytest.mark.parametrize("failure", [Unavailable("DOWN", "down"), RuntimeError("a bug")])
def test_a_failure_is_counted(failure: Exception) -> None:
    """Whosever fault it is."""
    totals = settled(receipt(cost_micro_usd=None, usage=Usage()), failure)

    assert (totals.request_count, totals.failed_request_count, totals.blocked_count) == (1, 1, 0)
    assert totals.unpriced_request_count == 0


@pytest.mark.parametrize("failure", [asyncio.CancelledError(), GeneratorExit()])
def test_a_caller_who_leaves_has_not_failed(failure: BaseException) -> None:
    """The request is counted, and so is what it had used."""
    totals = settled(receipt(), failure)

    assert (totals.request_count, totals.failed_request_count, totals.completion_token_count) == (1, 0, 7)


def test_a_blocked_prompt_is_no_failure() -> None:
    """Nor is an answer that was stopped; each is counted once."""
    prompt = settled(receipt(), FailedPrecondition("CONTENT_BLOCKED", "blocked"))
    answer = settled(receipt(safety=[BLOCK, BLOCK]))

    assert (prompt.failed_request_count, prompt.blocked_count) == (0, 1)
    assert (answer.failed_request_count, answer.blocked_count) == (0, 1)


@pytest.mark.parametrize(
    ("outcome", "hits", "misses"),
    [
        (CacheOutcome.EXACT, 1, 0),
        (CacheOutcome.SEMANTIC, 1, 0),
        (CacheOutcome.STALE, 1, 0),
        (CacheOutcome.MISS, 0, 1),
        (CacheOutcome.UNAVAILABLE, 0, 1),
        (CacheOutcome.BYPASS, 0, 0),
    ],
)
def test_hits_and_misses(outcome: CacheOutcome, hits: int, misses: int) -> None:
    """A request that never asked the cache is neither."""
    totals = settled(receipt(cache=CacheEvent(outcome)))

    assert (totals.cache_hit_count, totals.cache_miss_count) == (hits, misses)


def test_a_kept_answer_uses_no_tokens() -> None:
    """They were counted when it was made."""
    totals = settled(receipt(engine="cache", cost_micro_usd=0, cache=CacheEvent(CacheOutcome.EXACT)))

    assert (totals.prompt_token_count, totals.completion_token_count, totals.cost_micro_usd) == (0, 0, 0)
    assert totals.unpriced_request_count == 0


def test_what_was_tried_before_a_kept_answer_came_in_its_place_is_counted() -> None:
    """A target that broke has used what it used, also where an old answer saved the request."""
    tried = Attempt(1, "openai", "fake:gpt", outcome=AttemptOutcome.FAILED, usage=Usage(5, 300), usage_source=ESTIMATED)
    tried.cost_micro_usd = 42
    totals = settled(receipt(engine="cache", cost_micro_usd=0, cache=CacheEvent(CacheOutcome.STALE), attempts=[tried]))

    assert (totals.prompt_token_count, totals.completion_token_count, totals.cost_micro_usd) == (5, 300, 42)


def test_an_answer_without_a_price_is_told_apart() -> None:
    """A cost of 0 is a price, none is not."""
    assert settled(receipt(cost_micro_usd=None)).unpriced_request_count == 1
    assert settled(receipt(cost_micro_usd=0)).unpriced_request_count == 0


def test_names_that_callers_invent_do_not_pile_up() -> None:
    """Beyond a bound of models the rest share one line; the totals hold them all."""
    settlement = Settlement()
    for number in range(MODEL_COUNT_MAX + 5):
        with settlement.settle(ASKED, receipt(f"m{number}")):
            pass
    with settlement.settle(ASKED, receipt("m0")):
        pass

    assert len(settlement.totals_by_model) == MODEL_COUNT_MAX + 1
    assert settlement.totals_by_model[OTHER].request_count == 5
    assert settlement.totals_by_model["m0"].request_count == 2
    assert settlement.totals.request_count == MODEL_COUNT_MAX + 6


def test_a_duration_that_was_told_stays() -> None:
    """What a receipt said when it left is what is counted; a request that ended otherwise gets its own."""
    settlement = Settlement()
    with settlement.settle(ASKED, receipt(duration_s=1.5, ttft_s=0.5)):
        pass
    with pytest.raises(MillraceError), settlement.settle(ASKED, receipt(created_time=time.time() - 60)):
        raise Unavailable("DOWN", "down")

    assert settlement.durations_s[0] == 1.5
    assert settlement.durations_s[1] == pytest.approx(60, abs=5)
    assert list(settlement.ttfts_s) == [0.5]


def test_only_recent_requests_make_percentiles() -> None:
    """Memory has a bound, and yesterday's rush is over."""
    settlement = Settlement()
    for _ in range(RECENT_COUNT + 1):
        with settlement.settle(ASKED, receipt(duration_s=1.0, ttft_s=1.0)):
            pass

    assert len(settlement.durations_s) == len(settlement.ttfts_s) == RECENT_COUNT


def test_percentiles() -> None:
    """Of none there is none; the highest is the most there is."""
    hundred = deque(float(number) for number in range(100, 0, -1))

    assert percentile(deque(), 0.5) is None
    assert percentile(deque([3.0]), 0.95) == 3.0
    assert percentile(hundred, 0.5) == 51
    assert percentile(hundred, 0.95) == 96
    assert percentile(hundred, 1.0) == 100


def test_a_clock_that_was_put_back_makes_no_time_less_than_none() -> None:
    """An answer whose end seems to be before its beginning took no time, and can be kept and counted."""
    ahead = Receipt("r1", "gpt", created_time=time.time() + 3_600)

    assert ahead.age_s() == 0
    assert 3_599 < Receipt("r2", "gpt", created_time=time.time() - 3_600).age_s() < 3_700
