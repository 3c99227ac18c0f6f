"""What is counted of a request has the labels that its signal names."""

from __future__ import annotations

import pytest
from prometheus_client import CollectorRegistry

from kit import names
from services.inference.accounting.serving_metrics import ServingMetrics
from services.inference.accounting.settlement import Settlement
from services.inference.events import Attempt, AttemptOutcome, Direction, Receipt, SafetyEvent, Verdict
from tests.inference.parts import request


def counted(receipt: Receipt) -> CollectorRegistry:
    """What Prometheus reads after one request."""
    registry = CollectorRegistry()
    settlement = Settlement()
    settlement.witnesses = (ServingMetrics(registry),)
    with settlement.settle(request(), receipt):
        pass
    return registry


def labels_of(registry: CollectorRegistry, sample: str, label: str) -> list[str]:
    """The values of a label that were counted, once for each time."""
    found = [one for metric in registry.collect() for one in metric.samples if one.name == sample]
    return [one.labels[label] for one in found for _ in range(int(one.value))]


@pytest.mark.parametrize(
    ("outcome", "said", "error_type"),
    [
        (AttemptOutcome.OK, "ok", [""]),
        (AttemptOutcome.FAILED, "failed", ["failed"]),
        (AttemptOutcome.CANCELLED, "cancelled", ["cancelled"]),
        (AttemptOutcome.SKIPPED, "skipped", []),
    ],
)
def test_attempts_are_counted_by_their_outcome(outcome: AttemptOutcome, said: str, error_type: list[str]) -> None:
    """In the words of attempts; one that was not made takes no time."""
    registry = counted(Receipt("r1", "gpt", attempts=[Attempt(1, "openai", "one", outcome)]))

    assert labels_of(registry, names.ATTEMPTS, names.LABEL_OUTCOME) == [said]
    assert labels_of(registry, f"{names.GEN_AI_CLIENT_OPERATION_DURATION}_count", names.LABEL_ERROR_TYPE) == error_type


@pytest.mark.parametrize("verdict", Verdict)
def test_verdicts_are_counted_by_the_worst(verdict: Verdict) -> None:
    """One for each request that was judged, in the words of safety."""
    events = [SafetyEvent(Direction.INPUT, Verdict.ALLOW), SafetyEvent(Direction.OUTPUT, verdict)]
    registry = counted(Receipt("r1", "gpt", safety=events))

    assert labels_of(registry, names.VERDICTS, names.LABEL_VERDICT) == [verdict.name.lower()]
