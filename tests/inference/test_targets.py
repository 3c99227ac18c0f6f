"""The states of targets: who shares one, what a reload keeps, and how many there can be."""

from __future__ import annotations

import gc
import weakref

import pytest

from services.inference.attempts.breaker import BreakerState
from services.inference.attempts.targets import REST_S_MAX, Targets, TargetState
from services.inference.routing.catalog import Target
from services.inference.routing.router import RouteTarget
from services.inference.routing.rules import BreakerRule, QueueRule, RetryRule, Rules
from tests.inference.clocks import ManualClock
from tests.inference.parts import catalog

RULES = Rules()


@pytest.fixture
def clock() -> ManualClock:
    """A clock that stands still."""
    return ManualClock()


@pytest.fixture
def targets(clock: ManualClock) -> Targets:
    """The states of no target yet."""
    return Targets(clock)


def candidate(target_model: str = "gpt", **fields: object) -> RouteTarget:
    """A target behind a pattern, as a fresh reading of the models file makes it."""
    return RouteTarget(Target.model_validate({"engine": "openai", "upstream": "up"} | fields), target_model)


def state(targets: Targets, target_model: str = "gpt", **fields: object) -> TargetState:
    return targets.of(candidate(target_model, **fields), RULES)


def test_calls_to_one_target_share_its_state(targets: Targets):
    """Two readings of one target are one target, whatever its price and weight; its label and model are told."""
    one = state(targets)

    assert state(targets, weight=3, price={"prompt": 1, "completion": 2}) is one
    assert (one.label, one.target_model) == ("up:*", "gpt")


@pytest.mark.parametrize("fields", [{"upstream": "other"}, {"name": "spare"}, {"model": "gpt"}])
def test_other_targets_have_their_own(targets: Targets, fields: dict[str, object]):
    """Another upstream, name or way to the model is another target, with a queue of its own."""
    one, other = state(targets), state(targets, **fields)

    assert one is not other
    assert one.queue is not other.queue


def test_models_of_a_target_share_its_queue_alone(targets: Targets):
    """Each model at a target has its own breaker; places are the target's."""
    one, other = state(targets, "a"), state(targets, "b")

    assert one.breaker is not other.breaker
    assert one.queue is other.queue is targets.queue_of(candidate().target)


def test_new_rules_hold_and_keep_what_is_known(targets: Targets):
    """After a reload an open breaker is open still, and breaker, budget and queue go by the new rules."""
    one = state(targets)
    for _ in range(5):
        if permit := one.breaker.enter():
            permit.failed()
    breaker, queue, retries = BreakerRule(open_s=5), QueueRule(running_count_max=7), RetryRule(budget_count_min=1)
    again = targets.of(candidate(breaker=breaker, queue=queue), Rules(retries=retries))

    assert again is one
    assert (one.breaker.rule, one.queue.rule, one.budget.rule) == (breaker, queue, retries)
    assert one.breaker.state is BreakerState.OPEN


def test_oldest_states_are_forgotten(clock: ManualClock):
    """Callers who invent names cannot fill the memory: the states used least recently go, with their queues."""
    targets = Targets(clock, state_count_max=3)
    for number in range(100):
        state(targets, f"m{number}")
        state(targets, "used")
    gc.collect()

    assert [one.target_model for one in targets.snapshot()] == ["m98", "m99", "used"]


def test_queue_of_nobody_is_forgotten(clock: ManualClock):
    """A target that no recent state is of leaves no queue behind."""
    targets = Targets(clock, state_count_max=1)
    queue = weakref.ref(state(targets).queue)
    state(targets, upstream="other")
    gc.collect()

    assert queue() is None


def test_state_in_use_is_found_again(clock: ManualClock):
    """What a call still holds is not forgotten, however many others came since."""
    targets = Targets(clock, state_count_max=3)
    held = state(targets, "held")
    held.entered()
    for number in range(100):
        state(targets, f"m{number}")

    assert held in targets.snapshot()
    assert state(targets, "held") is held


def test_calls_are_counted(targets: Targets):
    """Calls that run and all calls are counted apart."""
    one = state(targets)
    one.entered()
    one.entered()
    one.left()

    assert (one.running_count, one.call_count) == (1, 2)


def test_rest_is_the_longest_that_was_asked_for(targets: Targets, clock: ManualClock):
    """A shorter wait does not shorten a longer one."""
    one = state(targets)
    assert (one.rests_until, one.retry_after_s()) == (0, 0)
    one.rest(20)
    clock.turn(5)
    one.rest(1)

    assert (one.rests_until, one.retry_after_s()) == (clock() + 15, 15)


def test_rest_is_bounded(targets: Targets):
    """A target that asks for a year is looked after in minutes."""
    one = state(targets)
    one.rest(31_536_000)

    assert one.retry_after_s() == REST_S_MAX


def test_open_breaker_says_when_to_come_back(targets: Targets):
    """Whichever is longer, the rest or the breaker's time, is told."""
    one = state(targets)
    one.rest(20)
    for _ in range(5):
        if permit := one.breaker.enter():
            permit.failed()
    assert one.retry_after_s() == 30

    one.rest(40)
    assert one.retry_after_s() == 40


def test_a_mended_upstream_has_a_clean_record(targets: Targets) -> None:
    """What was known of the old address, or under the old key, says nothing about the new one."""
    before, after = (
        catalog(f"""
            upstreams: {{u: {{base_url: "http://{host}/v1"}}}}
            models: [{{name: m, targets: [{{engine: openai, upstream: u, model: m}}]}}]
        """).models[0].targets[0]
        for host in ("old", "new")
    )  # fmt: skip
    states = [targets.of(RouteTarget(target, "m"), RULES) for target in (before, after, before)]

    assert states[0] is states[2]
    assert states[0] is not states[1]
