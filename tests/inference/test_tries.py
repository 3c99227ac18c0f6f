"""Tries: who is asked next, and when, on virtual time."""

from __future__ import annotations

from typing import Any

import pytest

from kit.errors import Code, InvalidArgument, MillraceError, ResourceExhausted, Unavailable
from services.inference.attempts.deadline import DeadlineBudget
from services.inference.attempts.targets import Targets
from services.inference.attempts.tries import RETRY_AFTER_MS, Tries, Turn
from services.inference.events import AttemptOutcome
from services.inference.routing.catalog import Target
from services.inference.routing.router import RouteTarget
from services.inference.routing.rules import BreakerRule, DeadlineRule, RetryRule, Rules
from tests.inference.parts import receipt, request

DOWN = "DOWN"


def down(retry_after_ms: int | None = None) -> Unavailable:
    return Unavailable(DOWN, "down", retry_after_ms=retry_after_ms)


def limited(retry_after_ms: int | None) -> ResourceExhausted:
    return ResourceExhausted("UPSTREAM_RATE_LIMIT", "rate limited", retry_after_ms=retry_after_ms)


class Stage:
    """Targets whose states outlive a call, on a clock that stands until it is set; jitter is always at its most."""

    def __init__(self, count: int, *, contexts: tuple[int | None, ...] = (), **retries: Any) -> None:
        self.now = 100.0
        self.targets = Targets(self.clock)
        self.rules = Rules(retries=RetryRule(**retries), deadlines=DeadlineRule(ttft_s=10))
        lengths = contexts or (None,) * count
        self.candidates = [
            RouteTarget(
                Target(
                    engine="local", model=f"t{number}", context_token_count_max=length,
                    breaker=BreakerRule(failures_in_a_row=3),
                ),
                f"t{number}",
            )
            for number, length in enumerate(lengths, 1)
        ]  # fmt: skip

    def clock(self) -> float:
        return self.now

    def call(self, **wishes: Any) -> Tries:
        """A new call."""
        deadlines = DeadlineBudget(self.rules.deadlines, request(**wishes), self.clock)
        return Tries(self.candidates, self.rules, self._state, receipt(), deadlines, self.clock, lambda: 1.0)

    def _state(self, candidate: RouteTarget) -> Any:
        return self.targets.of(candidate, self.rules)

    def fail(self, tries: Tries, turn: Turn, error: MillraceError) -> None:
        """What an attempt does when its target fails."""
        turn.permit.failed() if error.code is Code.UNAVAILABLE else turn.permit.forgotten()
        tries.failed(turn, error)

    def until_the_end(self, tries: Tries, error: MillraceError) -> list[tuple[str, float]]:
        """Fails every turn with the same error; which targets were asked, and when."""
        asked = []
        while True:
            if turn := tries.take():
                asked.append((turn.candidate.target_model, self.now))
                self.fail(tries, turn, error)
            elif (at := tries.wait_until()) is not None:
                self.now = at
            else:
                return asked


def told(tries: Tries) -> list[tuple[str, AttemptOutcome, str]]:
    return [(one.target, one.outcome, one.error_reason) for one in tries.receipt.attempts]


def test_every_target_once_then_repeats_with_backoff() -> None:
    """Different targets are asked at once; the same ones again after waits that double."""
    stage = Stage(2, retries_max=2, backoff_s=0.25)

    assert stage.until_the_end(stage.call(), down()) == [
        ("t1", 100), ("t2", 100), ("t1", 100.25), ("t2", 100.25),
    ]  # fmt: skip
    alone = Stage(1, retries_max=2, backoff_s=0.25)
    assert alone.until_the_end(alone.call(), down()) == [("t1", 100), ("t1", 100.25), ("t1", 100.75)]


def test_no_repeats_where_the_rule_has_none() -> None:
    """Each target once, and that is all."""
    stage = Stage(2, retries_max=0)

    assert stage.until_the_end(stage.call(), down()) == [("t1", 100), ("t2", 100)]


def test_the_wait_that_a_target_asks_for_is_kept() -> None:
    """Retry-After is longer than the backoff, so it decides."""
    stage = Stage(1, retries_max=1)

    assert stage.until_the_end(stage.call(), limited(3_000)) == [("t1", 100), ("t1", 103)]


@pytest.mark.parametrize("error", [limited(10_001), down(10_001)], ids=["limited", "down"])
def test_too_long_a_wait_is_the_callers(error: MillraceError) -> None:
    """A target that wants more than the rule allows is not waited for; the error says how long."""
    stage = Stage(1, retries_max=2)
    tries = stage.call()

    assert stage.until_the_end(tries, error) == [("t1", 100)]
    assert tries.final_error() is error


def test_no_wait_beyond_the_first_token_deadline() -> None:
    """A caller with two seconds does not sleep for three."""
    stage = Stage(1, retries_max=2)

    assert stage.until_the_end(stage.call(ttft_max_s=2.0), limited(3_000)) == [("t1", 100)]


def test_a_resting_target_is_passed_over_by_later_calls() -> None:
    """What one call was told the next ones know: the other target is asked, or the rest is waited for."""
    stage = Stage(2, retries_max=0)
    first = stage.call()
    turn = first.take()
    assert turn
    stage.fail(first, turn, limited(3_000))

    later = stage.call()
    turn = later.take()
    assert turn
    assert turn.candidate.target_model == "t2"
    assert told(later)[0] == ("local:t1", AttemptOutcome.SKIPPED, "UPSTREAM_RATE_LIMIT")


def test_where_all_rest_the_first_to_be_back_is_waited_for() -> None:
    """A first try that had to wait is no repeat: it needs no retry."""
    stage = Stage(1, retries_max=0)
    first = stage.call()
    turn = first.take()
    assert turn
    stage.fail(first, turn, limited(3_000))

    later = stage.call()
    assert later.take() is None
    assert later.wait_until() == 103
    stage.now = 103
    assert later.take()


def test_where_all_rest_for_long_the_caller_is_told_so() -> None:
    """RESOURCE_EXHAUSTED with the time that is left."""
    stage = Stage(1, retries_max=2)
    first = stage.call()
    turn = first.take()
    assert turn
    stage.fail(first, turn, limited(60_000))

    stage.now = 115
    later = stage.call()
    assert later.take() is None
    assert later.wait_until() is None
    error = later.final_error()
    assert (error.code, error.retry_after_ms) == (Code.RESOURCE_EXHAUSTED, 45_000)


def test_an_open_breaker_is_passed_over_and_never_waited_for() -> None:
    """It refuses at once, with the time until it may be asked."""
    stage = Stage(1, retries_max=2)
    stage.until_the_end(stage.call(), down())

    later = stage.call()
    assert later.take() is None
    assert later.wait_until() is None
    error = later.final_error()
    assert (error.code, error.reason) == (Code.UNAVAILABLE, "BREAKER_OPEN")
    assert error.retry_after_ms is not None
    assert 29_000 < error.retry_after_ms <= 30_000
    assert told(later) == [("local:t1", AttemptOutcome.SKIPPED, "BREAKER_OPEN")]


def test_a_breaker_that_opens_within_a_call_ends_its_repeats() -> None:
    """A dead target is not asked again by the call that found it dead."""
    stage = Stage(1, retries_max=10, backoff_s=0.01)

    assert len(stage.until_the_end(stage.call(), down())) == 3


def test_after_the_open_time_one_call_probes() -> None:
    """The second call at that moment is refused."""
    stage = Stage(1, retries_max=0)
    for _ in range(3):
        stage.until_the_end(stage.call(), down())
    stage.now += 30

    assert stage.call().take()
    assert stage.call().take() is None


def test_repeats_need_the_targets_retry_budget() -> None:
    """Over many calls to a target that is rate limited, repeats stay a fraction of them."""
    stage = Stage(1, retries_max=2, backoff_s=0.001, budget_share=0.1, budget_count_min=0)
    asked = sum(len(stage.until_the_end(stage.call(), limited(None))) for _ in range(200))

    assert 200 < asked <= 200 + 0.1 * 200 + 1


def test_a_hopeless_failure_is_known() -> None:
    """What is wrong everywhere is not tried anywhere else."""
    stage = Stage(2)
    tries = stage.call()
    turn = tries.take()
    assert turn
    assert not tries.is_hopeless
    stage.fail(tries, turn, InvalidArgument("spec", "no"))

    assert tries.is_hopeless


def test_too_long_for_one_goes_to_a_longer_one_only() -> None:
    """Targets that take no more than the one that refused are left out; what is not known may be longer."""
    stage = Stage(4, contexts=(4096, 2048, 8192, None))
    tries = stage.call()
    too_long = InvalidArgument("spec.input", "too long", reason="CONTEXT_LENGTH_EXCEEDED")

    assert [model for model, _ in stage.until_the_end(tries, too_long)] == ["t1", "t3", "t4"]
    assert tries.final_error() is too_long


def test_the_error_that_may_pass_is_the_one_told() -> None:
    """A model that the fallback does not know must not hide that the first target is down for now."""
    stage = Stage(2, retries_max=0)
    tries = stage.call()
    first, second = tries.take(), tries.take()
    assert first
    assert second
    stage.fail(tries, first, down())
    stage.fail(tries, second, InvalidArgument("spec.input", "too long", reason="CONTEXT_LENGTH_EXCEEDED"))

    error = tries.final_error()
    assert error.reason == DOWN
    assert error.retry_after_ms == RETRY_AFTER_MS


def test_half_of_the_time_where_another_may_follow() -> None:
    """A target that cannot follow, for it is known to be down, takes no time from the one before."""
    stage = Stage(2, retries_max=0)
    turn = stage.call().take()
    assert turn
    assert turn.until == 105

    second = stage.targets.of(stage.candidates[1], stage.rules)
    for _ in range(3):
        permit = second.breaker.enter()
        assert permit
        permit.failed()
    turn = stage.call().take()
    assert turn
    assert turn.until == 110


def test_a_hedge_asks_the_next_target() -> None:
    """Or the same one where there is no other; it is marked, and needs no retry."""
    stage = Stage(2, retries_max=0)
    tries = stage.call()
    assert tries.take()
    second = tries.hedge(lambda candidate: True)
    assert second
    assert second.candidate.target_model == "t2"
    assert second.attempt.hedged

    alone = Stage(1).call()
    assert alone.take()
    again = alone.hedge(lambda candidate: True)
    assert again
    assert again.candidate.target_model == "t1"


def test_a_hedge_is_paid_for_where_it_runs() -> None:
    """Who may pay is asked of the target that would be asked; without leave nobody is."""
    tries = Stage(2).call()
    assert tries.take()
    priced: list[str] = []

    def refuse(candidate: RouteTarget) -> bool:
        priced.append(candidate.target_model)
        return False

    assert tries.hedge(refuse) is None
    assert priced == ["t2"]
    assert len(tries.receipt.attempts) == 1


def test_a_call_that_is_out_of_time_says_so() -> None:
    """Where no target was asked at all, the deadline is what was wrong."""
    stage = Stage(1)
    tries = stage.call(deadline=100.0)

    assert tries.final_error().code is Code.DEADLINE_EXCEEDED


def test_the_soonest_of_several_waits_is_told() -> None:
    """A caller whose targets are fresh in 20 s and in 60 s is sent away for 20 s."""
    stage = Stage(2, retries_max=2)
    tries = stage.call()
    for wait_ms in (20_000, 60_000):
        turn = tries.take()
        assert turn
        stage.fail(tries, turn, limited(wait_ms))

    assert tries.final_error().retry_after_ms == 20_000
