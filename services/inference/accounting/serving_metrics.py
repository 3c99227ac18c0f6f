"""What serving is like, as Prometheus reads it: the GenAI conventions' client and server metrics, and Millrace's own.

All of it is counted once, where a request ends, from its receipt: nothing is counted by the token. As a server it
answers requests for public models; as a client it asks targets.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, Counter
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from kit import names, signals
from kit.histogram import OTHER, Histogram
from services.inference.accounting.spending import Spent
from services.inference.attempts.breaker import BreakerState
from services.inference.attempts.targets import Targets
from services.inference.events import Attempt, AttemptOutcome, Receipt, Verdict

# The conventions' own buckets, in seconds and in tokens.
# https://opentelemetry.io/docs/specs/semconv/gen-ai/gen-ai-metrics/
DURATIONS_S = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
FIRST_TOKENS_S = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
PER_TOKEN_S = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5)
TOKENS = tuple(4.0**power for power in range(14))
OVERHEADS_S = (0.0005, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 0.512, 1.024)
# Names behind a pattern are the callers' to invent.
NAME_COUNT_MAX = 100
TARGET_COUNT_MAX = 100
OPENNESS = {BreakerState.CLOSED: 0.0, BreakerState.HALF_OPEN: 0.5, BreakerState.OPEN: 1.0}
# One for each: their members are equal as numbers, and so would be each other's keys.
_OUTCOMES = {one: one.name.lower() for one in AttemptOutcome}
_VERDICTS = {one: one.name.lower() for one in Verdict}


class _Children(dict[tuple[str, ...], Counter]):
    """The counters of one metric by their labels: the library takes a lock and a copy of the labels to find one."""

    def __init__(self, counter: Counter) -> None:
        self._counter = counter

    def __missing__(self, labels: tuple[str, ...]) -> Counter:
        child = self[labels] = self._counter.labels(*labels)
        return child


class ServingMetrics:
    """Counts requests as they end; see `accounting.settlement.Witness`."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def histogram(name: str, buckets: tuple[float, ...]) -> Histogram:
            signal = signals.BY_NAME[name]
            return Histogram(name, signal.meaning, signal.labels, buckets, registry)

        def counter(name: str) -> _Children:
            signal = signals.BY_NAME[name]
            return _Children(Counter(name, signal.meaning, signal.labels, registry=registry))

        self._duration = histogram(names.GEN_AI_SERVER_REQUEST_DURATION, DURATIONS_S)
        self._ttft = histogram(names.GEN_AI_SERVER_TTFT, FIRST_TOKENS_S)
        self._per_token = histogram(names.GEN_AI_SERVER_TIME_PER_OUTPUT_TOKEN, PER_TOKEN_S)
        self._operation = histogram(names.GEN_AI_CLIENT_OPERATION_DURATION, DURATIONS_S)
        self._tokens = histogram(names.GEN_AI_CLIENT_TOKEN_USAGE, TOKENS)
        self._overhead = histogram(names.OVERHEAD, OVERHEADS_S)
        self._requests, self._refusals = counter(names.REQUESTS), counter(names.REFUSALS)
        self._attempts, self._cost = counter(names.ATTEMPTS), counter(names.COST_USD)
        self._verdicts, self._unscreened = counter(names.VERDICTS), counter(names.UNSCREENED)
        for verdict in Verdict:  # so that a rate starts at 0
            self._verdicts[_VERDICTS[verdict],].inc(0)
        self._names: set[str] = set()

    def began(self, receipt: Receipt) -> None:
        """Counts nothing as yet."""

    def refused(self, receipt: Receipt, reason: str) -> None:
        """Counts a request that limits did not let in."""
        self._refusals[reason,].inc()

    def ended(self, receipt: Receipt, used: Spent, outcome: str, reason: str) -> None:
        """Counts a request that has ended."""
        operation = "embeddings" if receipt.kind == "embedding" else "chat"
        model = self._bounded(receipt.model)
        error = reason or ("" if outcome == "ok" else outcome)
        self._duration.observe(receipt.duration_s, operation, model, error)
        self._requests[model, outcome].inc()
        if receipt.ttft_s is not None:
            self._ttft.observe(receipt.ttft_s, operation, model)
            count = receipt.usage.completion_token_count
            if count > 1 and outcome == "ok":
                per_token_s = (receipt.duration_s - receipt.ttft_s) / (count - 1)
                self._per_token.observe(per_token_s, operation, model)
        for attempt in receipt.attempts:
            self._attempt(operation, attempt)
        if used.cost_micro_usd:
            self._cost[model,].inc(used.cost_micro_usd / 1e6)
        if receipt.safety:
            self._safety(receipt, model)
        self._own_time(receipt, outcome)

    def _attempt(self, operation: str, attempt: Attempt) -> None:
        target, outcome = self._bounded(attempt.target), _OUTCOMES[attempt.outcome]
        self._attempts[target, outcome].inc()
        if attempt.outcome is AttemptOutcome.SKIPPED:
            return
        model = self._bounded(attempt.target_model)
        error = attempt.error_reason or ("" if attempt.outcome is AttemptOutcome.OK else outcome)
        self._operation.observe(attempt.duration_s, operation, attempt.engine, model, error)
        if count := attempt.usage.prompt_token_count:
            self._tokens.observe(count, operation, attempt.engine, model, "input")
        if count := attempt.usage.completion_token_count:
            self._tokens.observe(count, operation, attempt.engine, model, "output")

    def _safety(self, receipt: Receipt, model: str) -> None:
        worst = max(event.verdict for event in receipt.safety)
        self._verdicts[_VERDICTS[worst],].inc()
        if any(event.unscreened for event in receipt.safety):
            self._unscreened[model,].inc()

    def _own_time(self, receipt: Receipt, outcome: str) -> None:
        """What no target took of the time to the first token, where there was one, and one target was asked."""
        if receipt.ttft_s is None or len(receipt.attempts) > 1:
            return
        taken_s = sum(one.queue_s + (one.ttft_s or 0.0) for one in receipt.attempts)
        self._overhead.observe(max(0.0, receipt.ttft_s - taken_s), outcome)

    def _bounded(self, name: str) -> str:
        if name in self._names:
            return name
        if len(self._names) >= NAME_COUNT_MAX:
            return OTHER
        self._names.add(name)
        return name


class TargetMetrics(Collector):
    """Breakers, queues and dependencies, read when somebody asks.

    Args:
        targets: Know how they fare.
        available: Whether each dependency answers.
    """

    def __init__(self, targets: Targets, available: Callable[[], dict[str, bool]]) -> None:
        self._targets, self._available = targets, available

    def describe(self) -> list[Metric]:
        """The metrics without values."""
        return [_gauge(name) for name in (*_TARGET_GAUGES, names.DEPENDENCY_UP)]

    def collect(self) -> Iterator[Metric]:
        """Yields how targets and dependencies are."""
        families = {name: _gauge(name) for name in _TARGET_GAUGES}
        for state in self._targets.snapshot()[:TARGET_COUNT_MAX]:
            labels = (state.label, state.target_model)
            families[names.BREAKER_OPEN].add_metric(labels, OPENNESS[state.breaker.state])
            families[names.TARGET_WAITING].add_metric(labels, state.queue.waiting_count)
            families[names.TARGET_RUNNING].add_metric(labels, state.running_count)
        yield from families.values()
        dependencies = _gauge(names.DEPENDENCY_UP)
        for name, is_up in self._available().items():
            dependencies.add_metric((name,), float(is_up))
        yield dependencies


_TARGET_GAUGES = (names.BREAKER_OPEN, names.TARGET_WAITING, names.TARGET_RUNNING)


def _gauge(name: str) -> GaugeMetricFamily:
    signal = signals.BY_NAME[name]
    return GaugeMetricFamily(name, signal.meaning, labels=signal.labels)
