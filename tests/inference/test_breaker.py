"""The breaker: when it opens, whom it lets probe, and what ends a call does not count."""

from __future__ import annotations

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule

from services.inference.attempts.breaker import PROBE_WAIT_S, Breaker, BreakerState, Permit
from services.inference.routing.rules import BreakerRule
from tests.inference.clocks import ManualClock

CLOSED, OPEN, HALF_OPEN = BreakerState


@pytest.fixture
def clock() -> ManualClock:
    """A clock that stands still."""
    return ManualClock()


@pytest.fixture
def breaker(clock: ManualClock) -> Breaker:
    """A breaker of the default rule."""
    return Breaker(BreakerRule(), clock)


def enter(breaker: Breaker) -> Permit:
    permit = breaker.enter()
    assert permit
    return permit


def fail(breaker: Breaker, count: int = 1) -> None:
    for _ in range(count):
        enter(breaker).failed()


def open_then_wait(breaker: Breaker, clock: ManualClock) -> None:
    """Leaves the breaker half-open."""
    fail(breaker, 5)
    clock.turn(30)
    assert breaker.state is HALF_OPEN


def test_a_run_of_failures_opens(breaker: Breaker):
    """Five failures in a row open it, four do not."""
    fail(breaker, 4)
    assert breaker.state is CLOSED

    fail(breaker)
    assert (breaker.state, breaker.enter(), breaker.admits(), breaker.opened_count) == (OPEN, None, False, 1)


def test_a_success_ends_the_run(breaker: Breaker):
    """Failures with a success between them are no run."""
    fail(breaker, 4)
    enter(breaker).succeeded()
    fail(breaker, 4)

    assert breaker.state is CLOSED


def test_a_beginning_does_not_end_the_run(breaker: Breaker):
    """Answers that begin and then break off are failures in a row."""
    for _ in range(5):
        permit = enter(breaker)
        permit.began()
        permit.failed()

    assert breaker.state is OPEN


def test_forgotten_calls_count_for_nothing(breaker: Breaker):
    """A cancelled call neither adds to a run of failures nor ends it."""
    fail(breaker, 4)
    for _ in range(100):
        enter(breaker).forgotten()
    assert breaker.state is CLOSED

    fail(breaker)
    assert breaker.state is OPEN


def test_a_share_of_failures_opens(breaker: Breaker):
    """Half of at least twenty calls in the window is enough, without a run."""
    for _ in range(9):
        enter(breaker).succeeded()
        fail(breaker)
    enter(breaker).succeeded()
    assert breaker.state is CLOSED  # 9 of 19

    fail(breaker)
    assert breaker.state is OPEN


def test_old_failures_have_no_share(breaker: Breaker, clock: ManualClock):
    """What lies behind the window is not counted."""
    for _ in range(9):
        enter(breaker).succeeded()
        fail(breaker)
    clock.turn(30)
    for _ in range(11):
        enter(breaker).succeeded()
    fail(breaker)

    assert breaker.state is CLOSED


def test_open_says_when_to_come_back(breaker: Breaker, clock: ManualClock):
    """The wait shrinks with the time and is 0 as soon as a call may pass."""
    assert breaker.retry_after_s() == 0
    fail(breaker, 5)
    assert breaker.retry_after_s() == 30

    clock.turn(29)
    assert (breaker.retry_after_s(), breaker.enter()) == (1, None)
    clock.turn(1)
    assert (breaker.retry_after_s(), breaker.admits()) == (0, True)


def test_half_open_lets_one_probe_pass(breaker: Breaker, clock: ManualClock):
    """While the probe is out nobody else passes, however long it takes."""
    open_then_wait(breaker, clock)
    enter(breaker)

    clock.turn(1_000)
    assert (breaker.state, breaker.enter(), breaker.retry_after_s()) == (HALF_OPEN, None, PROBE_WAIT_S)


def test_asking_takes_no_probe(breaker: Breaker, clock: ManualClock):
    """To ask whether a call may pass does not use the probe up."""
    open_then_wait(breaker, clock)

    assert breaker.admits()
    assert breaker.enter()


def test_probe_that_begins_closes_on_probation(breaker: Breaker, clock: ManualClock):
    """The probe's first delta lets everybody in again, and one failure throws them out again."""
    open_then_wait(breaker, clock)
    probe = enter(breaker)
    probe.began()
    assert breaker.state is CLOSED

    fail(breaker)
    assert (breaker.state, breaker.opened_count) == (OPEN, 2)


def test_probe_that_breaks_off_opens(breaker: Breaker, clock: ManualClock):
    """A probe that begins and then fails opens the breaker again, for the whole time."""
    open_then_wait(breaker, clock)
    probe = enter(breaker)
    probe.began()
    clock.turn(7)
    probe.failed()

    assert (breaker.state, breaker.retry_after_s()) == (OPEN, 30)


@pytest.mark.parametrize("began", [True, False])
def test_success_ends_the_probation(breaker: Breaker, clock: ManualClock, began: bool):
    """After a whole answer it takes five failures again, whether or not its beginning was told."""
    open_then_wait(breaker, clock)
    probe = enter(breaker)
    if began:
        probe.began()
    probe.succeeded()
    fail(breaker, 4)

    assert breaker.state is CLOSED


def test_probe_that_fails_opens(breaker: Breaker, clock: ManualClock):
    """A probe that fails opens the breaker again, for the whole time."""
    open_then_wait(breaker, clock)
    enter(breaker).failed()

    assert (breaker.state, breaker.retry_after_s()) == (OPEN, 30)


def test_cancelled_probe_is_given_back(breaker: Breaker, clock: ManualClock):
    """The next call may probe where the first was cancelled before it said anything."""
    open_then_wait(breaker, clock)
    enter(breaker).forgotten()

    assert breaker.state is HALF_OPEN
    assert breaker.enter()


def test_probe_cancelled_after_its_beginning_leaves_it_on_probation(breaker: Breaker, clock: ManualClock):
    """A probe that has begun has closed the breaker: what its caller does then says nothing."""
    open_then_wait(breaker, clock)
    probe = enter(breaker)
    probe.began()
    probe.forgotten()
    assert breaker.state is CLOSED

    fail(breaker)
    assert breaker.state is OPEN


@pytest.mark.parametrize("end", ["began", "succeeded", "failed", "forgotten"])
def test_calls_from_before_tell_of_the_past(breaker: Breaker, clock: ManualClock, end: str):
    """A call that began before the breaker opened changes nothing: not the wait, the probe or the probation."""
    late = [enter(breaker) for _ in range(3)]
    fail(breaker, 5)
    clock.turn(10)
    getattr(late[0], end)()
    assert (breaker.state, breaker.retry_after_s()) == (OPEN, 20)

    clock.turn(20)
    probe = enter(breaker)
    getattr(late[1], end)()
    assert (breaker.state, breaker.enter()) == (HALF_OPEN, None)

    probe.began()
    getattr(late[2], end)()
    assert breaker.state is CLOSED
    fail(breaker)
    assert breaker.state is OPEN


def test_only_the_first_end_counts(breaker: Breaker):
    """A call that has succeeded cannot fail, and one that has failed cannot fail again."""
    answered, broken = enter(breaker), enter(breaker)
    answered.succeeded()
    for _ in range(10):
        answered.failed()
        broken.failed()

    assert breaker.state is CLOSED


def test_another_rule_keeps_the_state(breaker: Breaker, clock: ManualClock):
    """A breaker that is open when its rule changes stays open as long as it said; the next time the new rule holds."""
    fail(breaker, 5)
    breaker.follow(BreakerRule(failures_in_a_row=1, open_s=5, window_s=3))
    assert breaker.retry_after_s() == 30

    clock.turn(30)
    enter(breaker).succeeded()
    fail(breaker)
    assert breaker.retry_after_s() == 5


class BreakerMachine(RuleBasedStateMachine):
    """Any calls in any order, against what must always hold."""

    permits = Bundle("permits")

    def __init__(self) -> None:
        super().__init__()
        self.clock = ManualClock()
        self.breaker = Breaker(BreakerRule(failures_in_a_row=3, call_count_min=6, open_s=10), self.clock)
        self.probe: Permit | None = None

    @rule(target=permits)
    def enter(self) -> Permit | None:
        state, admits = self.breaker.state, self.breaker.admits()
        permit = self.breaker.enter()
        assert (permit is not None) == admits
        if state is HALF_OPEN and permit:
            assert self.probe is None
            self.probe = permit
        return permit

    @rule(permit=permits, end=st.sampled_from(["began", "succeeded", "failed", "forgotten"]))
    def tell(self, permit: Permit | None, end: str) -> None:
        if permit is None:
            return
        before = self.breaker.state
        getattr(permit, end)()
        if before is OPEN:
            assert self.breaker.state is OPEN
        if permit is self.probe:
            self.probe = None
            assert (
                self.breaker.state
                is {"began": CLOSED, "succeeded": CLOSED, "failed": OPEN, "forgotten": HALF_OPEN}[end]
            )
        elif before is HALF_OPEN:
            assert self.breaker.state is HALF_OPEN

    @rule(seconds=st.sampled_from([0.0, 1.0, 9.0, 10.0]))
    def wait(self, seconds: float) -> None:
        self.clock.turn(seconds)

    @invariant()
    def wait_is_told_exactly_to_those_who_must(self) -> None:
        """There is something to wait for exactly where no call may pass, and it is never longer than it can be."""
        assert (self.breaker.retry_after_s() == 0) == self.breaker.admits()
        assert 0 <= self.breaker.retry_after_s() <= 10

    @invariant()
    def closed_or_whole_time_over_admits(self) -> None:
        """Nothing but being open or a probe that is out keeps a call from passing."""
        assert self.breaker.admits() == (
            self.breaker.state is CLOSED or (self.breaker.state is HALF_OPEN and self.probe is None)
        )


TestBreakerMachine = BreakerMachine.TestCase
