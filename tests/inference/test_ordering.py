"""The order in which targets are asked: policies, health, abilities and lengths."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from kit.errors import InvalidArgument
from services.inference.attempts.targets import Targets, TargetState
from services.inference.generation import ImagePart, Message, OutputFormat, Prompt, Role, Sampling, Tool
from services.inference.request import Request
from services.inference.routing.ordering import longer_than, order
from services.inference.routing.router import Route, Router, RouteTarget
from tests.inference.parts import catalog, prompt, request

CALLS = 20_000
UPSTREAMS = """
upstreams:
  a: {base_url: "http://127.0.0.1:1/v1", extensions: [top_k]}
  b: {base_url: "http://127.0.0.1:2/v1"}
models:
"""


class Yard:
    """One model and what is known of its targets, on a clock that stands still."""

    def __init__(self, policy: str, *targets: str, more: str = "") -> None:
        lines = "".join(f"\n      - {{engine: openai, upstream: a, {target}}}" for target in targets)
        model = f"  - name: gpt\n    policy: {policy}\n    targets:{lines}\n"
        self.router = Router(catalog(UPSTREAMS + model + more))
        self.targets = Targets(lambda: 100.0)
        self.draw = random.Random(7).random

    def route(self, *fallbacks: str) -> Route:
        return self.router.choose(request("hi", "gpt", fallbacks=fallbacks))

    def state(self, name: str) -> TargetState:
        return self.state_of(next(one for one in self.route().targets if one.target_model == name))

    def state_of(self, candidate: RouteTarget) -> TargetState:
        return self.targets.of(candidate, self.route().rules)

    def order(self, asked: Request | None = None, *fallbacks: str) -> list[str]:
        """The names of the models at the targets, in the order they are asked."""
        ordered = order(self.route(*fallbacks), asked or request("hi"), self.state_of, self.draw)
        return [one.target_model for one in ordered]

    def firsts(self) -> Counter[str]:
        """How often each is the first."""
        return Counter(self.order()[0] for _ in range(CALLS))

    def break_(self, name: str) -> None:
        for _ in range(5):
            permit = self.state(name).breaker.enter()
            assert permit
            permit.failed()


def share(count: int) -> float:
    """Of all calls; two decimals are what 20,000 calls can tell."""
    return round(count / CALLS, 2)


def test_the_file_gives_the_order() -> None:
    """Whatever is known of the targets: the policy only orders, and who is down is passed over later."""
    yard = Yard("ordered", "model: x, weight: 0", "model: y", "model: z")
    yard.break_("x")
    yard.state("y").rest(9)

    assert yard.order() == ["x", "y", "z"]


def test_weights_are_shares() -> None:
    """Of first places, and among those left of the places behind; weight 0 is only for when all others fail."""
    yard = Yard(
        "weighted", "model: spare, weight: 0", "model: x, weight: 3", "model: y, weight: 0.6", "model: z, weight: 0.4"
    )

    orders = Counter(tuple(yard.order()) for _ in range(CALLS))
    firsts = Counter[str]()
    for ordered, count in orders.items():
        firsts[ordered[0]] += count

    assert {name: share(count) for name, count in firsts.items()} == {
        "x": pytest.approx(0.75, abs=0.01),
        "y": pytest.approx(0.15, abs=0.01),
        "z": pytest.approx(0.10, abs=0.01),
    }
    assert share(orders["x", "y", "z", "spare"]) == pytest.approx(0.75 * 0.6, abs=0.01)
    assert {ordered[-1] for ordered in orders} == {"spare"}


def test_small_weights_are_shares_too() -> None:
    """Only their ratio counts, however small they are."""
    yard = Yard("weighted", "model: x, weight: 0.000003", "model: y, weight: 0.000001")

    assert share(yard.firsts()["x"]) == pytest.approx(0.75, abs=0.01)


@pytest.mark.parametrize("policy", ["weighted", "least_busy", "cheapest"])
def test_the_sick_come_last(policy: str) -> None:
    """Who rests or whose breaker is open follows those that answer, spares included, and is asked when they fail."""
    yard = Yard(policy, "model: x", "model: y", "model: z", "model: spare, weight: 0")
    yard.break_("x")
    yard.state("y").rest(9)

    orders = {tuple(yard.order()) for _ in range(100)}

    assert {ordered[:2] for ordered in orders} == {("z", "spare")}
    assert {frozenset(ordered[2:]) for ordered in orders} == {frozenset({"x", "y"})}


def test_the_less_busy_of_two_is_first() -> None:
    """Expected wait is latency by calls: ten times as fast is worth nine calls more, and not ten."""
    yard = Yard("least_busy", "model: slow", "model: fast")
    yard.state("slow").first_tokens.record(1.0)
    yard.state("fast").first_tokens.record(0.1)

    for running_count, first in ((0, "fast"), (8, "fast"), (10, "slow")):
        yard.state("fast").running_count = running_count
        assert {tuple(yard.order()) for _ in range(50)} == {(first, "slow" if first == "fast" else "fast")}


def test_without_times_calls_are_compared() -> None:
    """A target that nothing is known of is neither flooded nor starved."""
    yard = Yard("least_busy", "model: new", "model: known")
    yard.state("known").first_tokens.record(0.001)
    yard.state("new").running_count, yard.state("known").running_count = 3, 4
    assert yard.order() == ["new", "known"]

    yard.state("new").running_count = 5
    assert yard.order() == ["known", "new"]


def test_equals_share_evenly() -> None:
    """Chance decides between targets of which the same is known."""
    firsts = Yard("least_busy", "model: x", "model: y", "model: z").firsts()

    assert {name: share(count) for name, count in firsts.items()} == dict.fromkeys(
        "xyz", pytest.approx(1 / 3, abs=0.01)
    )


def test_two_choices_spare_the_busiest() -> None:
    """Of three, the busiest is never first, and the idlest is in two of three pairs."""
    yard = Yard("least_busy", "model: x", "model: y", "model: z")
    for name, running_count in (("x", 9), ("y", 5), ("z", 1)):
        yard.state(name).running_count = running_count

    firsts = yard.firsts()

    assert firsts["x"] == 0
    assert share(firsts["z"]) == pytest.approx(2 / 3, abs=0.01)


def test_two_choices_balance() -> None:
    """Calls that never end spread evenly over ten targets, though each call looked at two only."""
    yard = Yard("least_busy", *(f"model: t{number}" for number in range(10)))
    for _ in range(1_000):
        yard.state(yard.order()[0]).running_count += 1

    counts = [state.running_count for state in yard.targets.snapshot()]
    assert sum(counts) == 1_000
    assert max(counts) - min(counts) <= 10


@pytest.mark.parametrize(
    ("asked", "cheapest"),
    [
        (request("hi"), "out"),
        (request("word " * 4_000, prompt=prompt("word " * 4_000, sampling=Sampling(max_tokens=10))), "in"),
        (request("x" * 40, prompt=prompt("x" * 40, sampling=Sampling(max_tokens=1_000))), "out"),
    ],
)
def test_the_cheapest_depends_on_the_request(asked: Request, cheapest: str) -> None:
    """A long prompt is cheap where prompts are, a long answer where answers are; unknown prices come last."""
    yard = Yard(
        "cheapest",
        "model: unknown",
        "model: in, price: {prompt: 1, completion: 30}",
        "model: out, price: {prompt: 5, completion: 2}",
        "model: dear, price: {prompt: 50, completion: 50}",
    )

    assert yard.order(asked)[0] == cheapest
    assert yard.order(asked)[2:] == ["dear", "unknown"]


OTHERS = """
  - {name: spare, policy: cheapest, targets: [
      {engine: openai, upstream: b, model: s1, price: {prompt: 9, completion: 9}},
      {engine: openai, upstream: b, model: s2, price: {prompt: 1, completion: 1}}]}
  - {name: same, targets: [{engine: openai, upstream: a, model: y}, {engine: openai, upstream: a, model: z}]}
"""


def test_fallbacks_follow_by_their_own_policy() -> None:
    """They never come before the model's own targets; one that is there already is not asked twice."""
    yard = Yard("ordered", "model: x, price: {prompt: 99, completion: 99}", "model: y", more=OTHERS)

    assert yard.order(None, "spare", "same") == ["x", "y", "s2", "s1", "z"]
    yard.break_("x")
    assert yard.order(None, "same") == ["x", "y", "z"]


ABLE = ("model: blind, capabilities: [tools]", "model: seeing, capabilities: [tools, json_schema]", "model: any")


@pytest.mark.parametrize(
    ("asked", "able"),
    [
        (prompt(), ["blind", "seeing", "any"]),
        (prompt(tools=(Tool("f"),)), ["blind", "seeing", "any"]),
        (prompt(output_format=OutputFormat("json_schema")), ["seeing", "any"]),
        (prompt(sampling=Sampling(logprobs=True)), ["any"]),
        (prompt(sampling=Sampling(top_k=1)), ["blind", "seeing", "any"]),
        (prompt(sampling=Sampling(min_p=0.1)), ["any"]),
    ],
)
def test_only_the_able_are_asked(asked: object, able: list[str]) -> None:
    """By what targets declare and what their upstreams take; where none is left, those that declare nothing."""
    assert Yard("ordered", *ABLE).order(request(prompt=asked)) == able


def test_a_local_model_spares_a_refusal() -> None:
    """What the local engine would refuse goes to the next target; alone, it refuses in its own words."""
    local = "  - {name: here, targets: [{engine: local, model: m}]}\n"
    yard = Yard("ordered", "model: x", more=local)
    both = yard.router.choose(request("hi", "here", fallbacks=("gpt",)))
    alone = yard.router.choose(request("hi", "here"))
    asked = request(prompt=Prompt(streamed=True, messages=(Message(Role.USER, (ImagePart("https://x/y.png"),)),)))

    assert order(both, asked, yard.state_of, yard.draw) == both.targets[1:]
    assert order(both, request("hi"), yard.state_of, yard.draw) == both.targets
    assert order(alone, asked, yard.state_of, yard.draw) == alone.targets


@pytest.mark.parametrize("count", [1, 2])
def test_nobody_able_is_the_callers_fault(count: int) -> None:
    """The refusal names the field that the ablest target cannot honour."""
    yard = Yard("ordered", *ABLE[:count])
    asked = prompt(tools=(Tool("f"),), output_format=OutputFormat("json_schema"), sampling=Sampling(logprobs=True))

    with pytest.raises(InvalidArgument) as caught:
        yard.order(request(prompt=asked))

    field = "spec.output_format.json_schema" if count == 1 else "spec.sampling.logprobs"
    assert [one.field for one in caught.value.field_violations] == [field]


def test_the_usual_route_asks_for_nothing() -> None:
    """One target that declares nothing needs no state, no chance and no look at the prompt."""
    route = Yard("least_busy", "model: x").route()

    assert order(route, request(prompt=None), _forbidden, _forbidden) is route.targets


def _forbidden(*_: object) -> TargetState:
    raise AssertionError("not needed")


CONTEXTS = (
    "model: short, context_token_count_max: 4096",
    "model: same, context_token_count_max: 4096",
    "model: long, context_token_count_max: 32768",
    "model: unknown",
)


@pytest.mark.parametrize(
    ("failed", "longer"),
    [(0, ["long", "unknown"]), (2, ["unknown"]), (3, ["short", "same", "long"])],
)
def test_longer_targets_are_left(failed: int, longer: list[str]) -> None:
    """After one was too short: those with more room, or whose room is unknown, and never the same one again."""
    targets = Yard("ordered", *CONTEXTS).route().targets

    assert [one.target_model for one in longer_than(targets, targets[failed])] == longer


def test_a_models_context_is_its_targets() -> None:
    """What the model says holds for the targets that say nothing."""
    model = "models: [{name: m, context_token_count_max: 10, targets: [%s]}]"
    targets = "{engine: local, model: x}, {engine: local, model: y, context_token_count_max: 20}"

    found = catalog(model % targets).find("m").targets

    assert [one.context_token_count_max for one in found] == [10, 20]


@pytest.mark.parametrize("policy", ["weighted", "least_busy", "cheapest", "ordered"])
@pytest.mark.parametrize("drawn", [0.0, 1 - 2**-53])
def test_every_target_is_in_the_order(policy: str, drawn: float) -> None:
    """Once each, at both ends of chance."""
    yard = Yard(policy, *(f"model: t{number}, weight: {number}" for number in range(5)))
    yard.draw = lambda: drawn

    assert sorted(yard.order()) == [f"t{number}" for number in range(5)]
