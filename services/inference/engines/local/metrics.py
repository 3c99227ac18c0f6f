"""What local models do, as Prometheus reads it, in the terms of the field. The only label is the model's name."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from kit import names

# From a step of a tiny model to a long wait in the queue.
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class LocalMetrics:
    """The families of one process, shared by its models."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def gauge(name: str, said: str) -> Gauge:
            return Gauge(name, said, (names.LABEL_MODEL,), registry=registry)

        def counter(name: str, said: str) -> Counter:
            return Counter(name, said, (names.LABEL_MODEL,), registry=registry)

        def histogram(name: str, said: str) -> Histogram:
            return Histogram(name, said, (names.LABEL_MODEL,), registry=registry, buckets=SECONDS)

        self.running = gauge(names.LOCAL_RUNNING, "Answers that are computed.")
        self.waiting = gauge(names.LOCAL_WAITING, "Answers that wait for a place, preempted ones included.")
        self.cache_used = gauge(names.LOCAL_KV_CACHE_USED, "Share of the KV cache that running answers hold.")
        self.prompt_tokens = counter(names.LOCAL_PROMPT_TOKENS, "Tokens of prompts taken on.")
        self.reused_tokens = counter(names.LOCAL_REUSED_TOKENS, "Tokens of prompts that were copied, not computed.")
        self.completion_tokens = counter(names.LOCAL_COMPLETION_TOKENS, "Tokens drawn.")
        self.draft_tokens = counter(names.LOCAL_DRAFT_TOKENS, "Tokens that were guessed and computed.")
        self.accepted_tokens = counter(names.LOCAL_ACCEPTED_TOKENS, "Guessed tokens that were right.")
        self.preemptions = counter(names.LOCAL_PREEMPTIONS, "Answers that lost their place and were computed again.")
        self.queue_s = histogram(names.LOCAL_QUEUE_TIME, "Time from arrival to the first step.")
        self.ttft_s = histogram(names.LOCAL_TTFT, "Time from arrival to the first token.")
        self.inter_token_s = histogram(names.LOCAL_INTER_TOKEN, "Time from one token to the next.")
        self.prefill_s = histogram(
            names.LOCAL_PREFILL_STEP, "Time of a step that reads prompts, answers beside them included."
        )
        self.decode_s = histogram(names.LOCAL_DECODE_STEP, "Time of a step that only decodes.")

    def cache_used_by_model(self) -> dict[str, float]:
        """Part of its KV cache that each model uses, 0 to 1."""
        samples = (sample for metric in self.cache_used.collect() for sample in metric.samples)
        return {sample.labels[names.LABEL_MODEL]: sample.value for sample in samples}

    def of(self, model: str) -> ModelMetrics:
        """The figures of one model."""
        return ModelMetrics(self, model)


class ModelMetrics:
    """The same families for one model, ready to be written in its thread."""

    def __init__(self, metrics: LocalMetrics, model: str) -> None:
        self.running = metrics.running.labels(model)
        self.waiting = metrics.waiting.labels(model)
        self.cache_used = metrics.cache_used.labels(model)
        self.prompt_tokens = metrics.prompt_tokens.labels(model)
        self.reused_tokens = metrics.reused_tokens.labels(model)
        self.completion_tokens = metrics.completion_tokens.labels(model)
        self.draft_tokens = metrics.draft_tokens.labels(model)
        self.accepted_tokens = metrics.accepted_tokens.labels(model)
        self.preemptions = metrics.preemptions.labels(model)
        self.queue_s = metrics.queue_s.labels(model)
        self.ttft_s = metrics.ttft_s.labels(model)
        self.inter_token_s = metrics.inter_token_s.labels(model)
        self.prefill_s = metrics.prefill_s.labels(model)
        self.decode_s = metrics.decode_s.labels(model)


def unread() -> LocalMetrics:
    """Figures that nobody reads."""
    return LocalMetrics(CollectorRegistry())
