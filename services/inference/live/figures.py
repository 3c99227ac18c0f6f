"""Live figures: what the last ten seconds were like, counted at the end of each request.

Counting costs a request about a microsecond, whoever watches. All else is computed when a snapshot is taken.
"""

from __future__ import annotations

import os
import socket
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Final, NamedTuple

import msgspec

from services.inference.accounting.spending import Spent
from services.inference.attempts.breaker import BreakerState
from services.inference.attempts.targets import TargetState
from services.inference.events import CacheOutcome, Receipt, Verdict
from services.inference.routing.catalog import Catalog, Model

WINDOW_S: Final = 10.0
# At 2,000 requests a second, the most that one process serves, ten seconds.
SAMPLE_COUNT_MAX: Final = 20_000
# Names behind a pattern are the callers' to invent.
MODEL_COUNT_MAX: Final = 50


class Sample(NamedTuple):
    """A request that has ended."""

    at: float
    model: str
    duration_s: float
    ttft_s: float | None
    is_failed: bool
    asked_cache: bool
    is_hit: bool
    token_count: int


class Percentiles(msgspec.Struct, frozen=True):
    """Percentiles of a time, in seconds."""

    p50_s: float
    p95_s: float
    p99_s: float


class TargetFigures(msgspec.Struct, frozen=True):
    """How a target fares; `breaker` is None where no call has gone there lately."""

    label: str
    breaker: BreakerState | None
    waiting_count: int
    running_count: int
    kv_cache_used: float | None


class ModelFigures(msgspec.Struct, frozen=True):
    """How a public model fares."""

    name: str
    requests_per_s: float
    p95_s: float | None
    targets: list[TargetFigures]


class Snapshot(msgspec.Struct, frozen=True):
    """How this process fares; rates are by the second."""

    at: float
    replica: str
    requests_per_s: float
    errors_per_s: float
    duration: Percentiles | None
    ttft: Percentiles | None
    tokens_per_s: float
    running_count: int
    hits_per_s: float
    hit_ratio: float | None
    verdict_counts: dict[Verdict, int]
    models: list[ModelFigures]


class LiveFigures:
    """Counts requests as they end, and sums the last seconds up.

    Args:
        catalog: The catalogue in force.
        states: What is known of all targets.
        kv_cache_used: Part of its KV cache that each local model uses, by its name.
        clock: Instants in seconds that never go back.
    """

    def __init__(
        self,
        catalog: Callable[[], Catalog],
        states: Callable[[], Iterable[TargetState]],
        kv_cache_used: Callable[[], Mapping[str, float]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._catalog, self._states, self._kv_cache_used, self._clock = catalog, states, kv_cache_used, clock
        self._began_at = clock()
        self._samples: deque[Sample] = deque(maxlen=SAMPLE_COUNT_MAX)
        self._running: dict[int, Receipt] = {}
        self._token_count = 0
        self._token_counts: deque[tuple[float, int]] = deque(maxlen=60)
        self._verdict_counts = dict.fromkeys((Verdict.FLAG, Verdict.REDACT, Verdict.BLOCK), 0)
        self._replica = f"{socket.gethostname()}:{os.getpid()}"

    def began(self, receipt: Receipt) -> None:
        """Takes note of a request that begins; see `accounting.settlement.Witness`."""
        self._running[id(receipt)] = receipt

    def ended(self, receipt: Receipt, used: Spent, outcome: str, reason: str) -> None:
        """Counts a request that has ended."""
        self._running.pop(id(receipt), None)
        worst = max((event.verdict for event in receipt.safety), default=Verdict.ALLOW)
        if outcome == "blocked":
            worst = Verdict.BLOCK
        if worst in self._verdict_counts:
            self._verdict_counts[worst] += 1
        self._token_count += used.usage.completion_token_count
        cache = receipt.cache
        self._samples.append(
            Sample(
                self._clock(),
                receipt.model,
                receipt.duration_s,
                receipt.ttft_s,
                outcome == "failed",
                cache is not None and cache.outcome is not CacheOutcome.BYPASS,
                cache is not None and cache.is_hit,
                used.usage.completion_token_count,
            )
        )

    def refused(self, receipt: Receipt, reason: str) -> None:
        """Forgets a request that was not let in: it is neither load nor a failure."""
        self._running.pop(id(receipt), None)

    def snapshot(self) -> Snapshot:
        """Sums the last ten seconds up, or those since the start where it was later."""
        now = self._clock()
        samples = self._recent(now)
        window_s = min(WINDOW_S, max(1.0, now - self._began_at))
        asked = sum(one.asked_cache for one in samples)
        hits = sum(one.is_hit for one in samples)
        return Snapshot(
            at=time.time(),
            replica=self._replica,
            requests_per_s=len(samples) / window_s,
            errors_per_s=sum(one.is_failed for one in samples) / window_s,
            duration=_percentiles([one.duration_s for one in samples]),
            ttft=_percentiles([one.ttft_s for one in samples if one.ttft_s is not None]),
            tokens_per_s=self._tokens_per_s(now, samples, window_s),
            running_count=len(self._running),
            hits_per_s=hits / window_s,
            hit_ratio=hits / asked if asked else None,
            verdict_counts=dict(self._verdict_counts),
            models=self._models(samples, window_s),
        )

    def _recent(self, now: float) -> list[Sample]:
        while self._samples and self._samples[0].at < now - WINDOW_S:
            self._samples.popleft()
        return list(self._samples)

    def _tokens_per_s(self, now: float, samples: Iterable[Sample], window_s: float) -> float:
        """Counts the tokens of answers that still run where somebody has watched for as long as that takes."""
        produced = sum(sum(receipt.produced.values()) for receipt in list(self._running.values()))
        counts = self._token_counts
        counts.append((now, self._token_count + produced))
        while counts[0][0] < now - WINDOW_S:
            counts.popleft()
        since, before = counts[0]
        if now - since < WINDOW_S / 2:  # nobody has watched for long
            return sum(one.token_count for one in samples) / window_s
        return max(0, self._token_count + produced - before) / (now - since)

    def _models(self, samples: Iterable[Sample], window_s: float) -> list[ModelFigures]:
        durations: dict[str, list[float]] = {}
        for one in samples:
            durations.setdefault(one.model, []).append(one.duration_s)
        catalog = self._catalog()
        known = {model.name: model for model in catalog.models if not model.is_pattern}
        names = [*known, *(name for name in durations if name not in known)][:MODEL_COUNT_MAX]
        states = {(state.label, state.target_model): state for state in self._states()}
        kv_cache_used = self._kv_cache_used()
        figures = []
        for name in names:
            times = durations.get(name, [])
            model = known.get(name) or catalog.match(name)
            targets = _targets(name, model, states, kv_cache_used) if model else []
            p95_s = _percentile(sorted(times), 0.95) if times else None
            figures.append(ModelFigures(name, len(times) / window_s, p95_s, targets))
        return figures


def _targets(
    name: str, model: Model, states: Mapping[tuple[str, str], TargetState], kv_cache_used: Mapping[str, float]
) -> list[TargetFigures]:
    figures = []
    for target in model.targets:
        target_model = name if target.model == "*" else target.model
        state = states.get((target.label, target_model))
        used = kv_cache_used.get(target_model) if target.engine == "local" else None
        if state is None:
            figures.append(TargetFigures(target.label, None, 0, 0, used))
        else:
            waiting, running = state.queue.waiting_count, state.running_count
            figures.append(TargetFigures(target.label, state.breaker.state, waiting, running, used))
    return figures


def _percentiles(times: list[float]) -> Percentiles | None:
    if not times:
        return None
    times.sort()
    return Percentiles(*(_percentile(times, share) for share in (0.5, 0.95, 0.99)))


def _percentile(ordered: list[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
