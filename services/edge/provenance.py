"""Response headers that say where an answer came from, what it took and what it cost.

A whole answer has them all, a stream those that are known when it begins, an error what is known of the call that
failed. They never say anything about the content.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol, TypeAlias
from urllib.parse import quote

from google.protobuf.duration_pb2 import Duration

from millrace.inference.v1 import event_pb2 as pb
from millrace.inference.v1.inference_service_pb2 import StreamGenerateResponse
from services.edge.exchange import Exchange
from services.edge.rate_limits import set_limits

CacheWord: TypeAlias = Literal["exact", "semantic", "stale", "miss", "bypass", "unavailable"]
CACHE_OUTCOMES: dict[int, CacheWord] = {
    pb.CACHE_OUTCOME_EXACT: "exact",
    pb.CACHE_OUTCOME_SEMANTIC: "semantic",
    pb.CACHE_OUTCOME_STALE: "stale",
    pb.CACHE_OUTCOME_MISS: "miss",
    pb.CACHE_OUTCOME_BYPASS: "bypass",
    pb.CACHE_OUTCOME_UNAVAILABLE: "unavailable",
}
HITS = (pb.CACHE_OUTCOME_EXACT, pb.CACHE_OUTCOME_SEMANTIC, pb.CACHE_OUTCOME_STALE)
HEADERS = {
    "x-millrace-model": "Public name of the model that answered.",
    "x-millrace-target": "Who answered, or was asked last.",
    "x-millrace-attempts": "Tries that were made, so far where a stream begins.",
    "x-millrace-cache": "How the cache took part: `exact`, `semantic`, `stale`, `miss`, `bypass`, `unavailable`.",
    "age": "Seconds since a cached answer was stored.",
    "x-millrace-cache-similarity": "Similarity of the question that a `semantic` hit had answered, 0 to 1.",
    "x-millrace-cost-usd": "Price in US dollars, where it is known.",
    "x-millrace-ttft-ms": "Milliseconds from admission to the first token.",
    "x-millrace-prompt-tokens": "Tokens of the prompt.",
    "x-millrace-completion-tokens": "Tokens of the answer.",
}


class Answer(Protocol):
    """A complete answer: text, or vectors."""

    model: str

    @property
    def usage(self) -> pb.Usage:
        """Tokens used."""

    @property
    def receipt(self) -> pb.Receipt:
        """What was done."""


def set_all(exchange: Exchange, *answers: Answer) -> None:
    """Sets the headers of a complete answer; several prompts share one, so tries, tokens and cost are summed up."""
    first = answers[0].receipt
    set_model(exchange, answers[0].model)
    _set_target(exchange, first.target)
    set_cache(exchange, first.cache)
    if first.HasField("ttft"):
        exchange.set_header(b"x-millrace-ttft-ms", b"%.3f" % milliseconds(first.ttft))
    set_limits(exchange, (state for one in answers for state in one.receipt.limits))
    _set_count(exchange, b"x-millrace-attempts", sum(made_count(one.receipt.attempts) for one in answers))
    _set_count(exchange, b"x-millrace-prompt-tokens", sum(one.usage.prompt_token_count for one in answers))
    _set_count(exchange, b"x-millrace-completion-tokens", sum(one.usage.completion_token_count for one in answers))
    if all(one.receipt.HasField("cost_micro_usd") for one in answers):
        cost_usd = sum(one.receipt.cost_micro_usd for one in answers) / 1e6
        exchange.set_header(b"x-millrace-cost-usd", b"%.6f" % cost_usd)


def set_failed(exchange: Exchange, receipt: pb.Receipt) -> None:
    """Sets the headers of an error from the receipt of the call that failed.

    Where a target had begun to answer, its work may be billed: an automatic retry would pay for it twice. And where
    several tries were made here, the SDKs' own would multiply them.
    """
    made = [one for one in receipt.attempts if one.outcome != pb.ATTEMPT_OUTCOME_SKIPPED]
    _set_count(exchange, b"x-millrace-attempts", len(made))
    set_cache(exchange, receipt.cache)
    set_limits(exchange, receipt.limits)
    if made:
        _set_target(exchange, made[-1].target)
    if len(made) > 1 or any(one.HasField("ttft") for one in made):
        exchange.set_header(b"x-should-retry", b"false")


def set_step(exchange: Exchange, step: StreamGenerateResponse, made: set[int]) -> None:
    """Sets what a step of a stream tells before its text comes; `made` has the tries so far, as `set_attempt` says."""
    kind = step.WhichOneof("event")
    if kind == "started":
        set_model(exchange, step.started.model)
        set_cache(exchange, step.started.cache)
        set_limits(exchange, step.started.limits)
    elif kind == "cache":
        set_cache(exchange, step.cache)
    elif kind == "attempt":
        set_attempt(exchange, step.attempt.attempt, made)


def set_model(exchange: Exchange, model: str) -> None:
    """Sets the public name of the model that answers."""
    exchange.model = model
    _set(exchange, b"x-millrace-model", model)


def set_attempt(exchange: Exchange, attempt: pb.Attempt, made: set[int]) -> None:
    """Sets who is asked and how many tries there were so far; `made` has the numbers of those, and gets its own."""
    if attempt.outcome == pb.ATTEMPT_OUTCOME_SKIPPED:
        return
    made.add(attempt.number)
    _set_count(exchange, b"x-millrace-attempts", len(made))
    if attempt.outcome in (pb.ATTEMPT_OUTCOME_UNSPECIFIED, pb.ATTEMPT_OUTCOME_OK):
        _set_target(exchange, attempt.target)


def set_cache(exchange: Exchange, event: pb.CacheEvent) -> None:
    """Sets how the cache took part, where it is known; of a hit also its age, and how similar its question was."""
    if word := CACHE_OUTCOMES.get(event.outcome):
        exchange.set_header(b"x-millrace-cache", word.encode())
    if event.outcome in HITS and event.HasField("age"):
        exchange.set_header(b"age", b"%d" % event.age.seconds)
    else:
        exchange.drop_header(b"age")  # an answer that was shared and then made anew has none
    if event.HasField("similarity"):
        exchange.set_header(b"x-millrace-cache-similarity", b"%.4f" % event.similarity)


def is_hit(answer: pb.Generation) -> bool:
    """Whether the answer came from the cache."""
    return answer.receipt.cache.outcome in HITS


def made_count(attempts: Sequence[pb.Attempt]) -> int:
    """How many tries were made; those that were passed over were not."""
    return sum(attempt.outcome != pb.ATTEMPT_OUTCOME_SKIPPED for attempt in attempts)


def milliseconds(span: Duration) -> float:
    """A span of time in milliseconds, to the microsecond."""
    return round(span.seconds * 1000 + span.nanos / 1e6, 3)


def _set_target(exchange: Exchange, target: str) -> None:
    if target:
        _set(exchange, b"x-millrace-target", target)


def _set_count(exchange: Exchange, name: bytes, count: int) -> None:
    exchange.set_header(name, b"%d" % count)


def _set(exchange: Exchange, name: bytes, value: str) -> None:
    """Sets a header to a name; header values are visible ASCII, so anything else is percent-encoded."""
    if not (value.isascii() and value.isprintable()):
        value = quote(value)
    exchange.set_header(name, value.encode())
