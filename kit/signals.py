"""Every metric of the suite: what it is called, what it tells, what tells it apart, and who shows it.

The names themselves are in `kit.names`, beside those of spans' attributes. The table of docs/telemetry.md is made of
this, and tests hold the pages that the services serve, the rules and the dashboards against it. Every label has a
bounded set of values: what a caller can make up is counted as `other` beyond a number.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from kit import names

Kind = Literal["counter", "gauge", "histogram"]
ALL: Final = ("edge", "inference", "cache", "safety")
_CALL: Final = (names.LABEL_METHOD, names.LABEL_STATUS_CODE)
_GEN: Final = (names.LABEL_OPERATION, names.LABEL_REQUEST_MODEL)


@dataclass(frozen=True, slots=True)
class Signal:
    """A metric.

    Attributes:
        name: As Prometheus shows it, unit included.
        kind: Counter, gauge or histogram.
        meaning: What it tells.
        labels: What tells its series apart.
        services: Who shows it.
    """

    name: str
    kind: Kind
    meaning: str
    labels: tuple[str, ...] = ()
    services: tuple[str, ...] = ("inference",)


def _cache(name: str, kind: Kind, meaning: str, *labels: str) -> Signal:
    return Signal(name, kind, meaning, labels, ("cache",))


def _edge(name: str, kind: Kind, meaning: str, *labels: str) -> Signal:
    return Signal(name, kind, meaning, labels, ("edge",))


def _local(name: str, kind: Kind, meaning: str) -> Signal:
    return Signal(name, kind, meaning, (names.LABEL_MODEL,))


SIGNALS: Final = (
    Signal(names.RPC_SERVER_CALL_DURATION, "histogram", "Time a call was served.", _CALL, ALL[1:]),
    Signal(names.RPC_CLIENT_CALL_DURATION, "histogram", "Time a call to another service took.", _CALL, ALL),
    Signal(names.RPC_SERVER_ACTIVE_CALLS, "gauge", "Calls being served.", (), ALL),
    Signal(
        names.TELEMETRY_DROPPED,
        "counter",
        "Spans and logs that no collector took.",
        (names.LABEL_SIGNAL,),
        ALL,
    ),
    Signal(
        names.GEN_AI_SERVER_REQUEST_DURATION,
        "histogram",
        "From a request to the end of its answer.",
        (*_GEN, names.LABEL_ERROR_TYPE),
    ),
    Signal(names.GEN_AI_SERVER_TTFT, "histogram", "From a request to the first token of its answer.", _GEN),
    Signal(
        names.GEN_AI_SERVER_TIME_PER_OUTPUT_TOKEN, "histogram", "Time per token of an answer after its first.", _GEN
    ),
    Signal(
        names.GEN_AI_CLIENT_OPERATION_DURATION,
        "histogram",
        "Time of one attempt at a target.",
        (names.LABEL_OPERATION, names.LABEL_PROVIDER, names.LABEL_REQUEST_MODEL, names.LABEL_ERROR_TYPE),
    ),
    Signal(
        names.GEN_AI_CLIENT_TOKEN_USAGE,
        "histogram",
        "Tokens of one attempt at a target, input or output.",
        (names.LABEL_OPERATION, names.LABEL_PROVIDER, names.LABEL_REQUEST_MODEL, names.LABEL_TOKEN_TYPE),
    ),
    Signal(names.REQUESTS, "counter", "Requests that ended.", (names.LABEL_MODEL, names.LABEL_OUTCOME)),
    Signal(names.REFUSALS, "counter", "Requests that limits did not let in.", (names.LABEL_REASON,)),
    Signal(names.ATTEMPTS, "counter", "Attempts that ended.", (names.LABEL_TARGET, names.LABEL_OUTCOME)),
    Signal(names.COST_USD, "counter", "Price of the requests whose price is known.", (names.LABEL_MODEL,)),
    Signal(names.VERDICTS, "counter", "Requests by what safety decided.", (names.LABEL_VERDICT,)),
    Signal(names.UNSCREENED, "counter", "Requests that were let through while safety was away.", (names.LABEL_MODEL,)),
    Signal(
        names.OVERHEAD,
        "histogram",
        "Time to the first token that no target took: limits, routing, screening, cache.",
        (names.LABEL_OUTCOME,),
    ),
    Signal(
        names.BREAKER_OPEN,
        "gauge",
        "Whether a target's breaker is open: 1, 0.5 while half open, 0 closed.",
        (names.LABEL_TARGET, names.LABEL_MODEL),
    ),
    Signal(
        names.TARGET_WAITING,
        "gauge",
        "Calls that wait for a place at a target.",
        (names.LABEL_TARGET, names.LABEL_MODEL),
    ),
    Signal(names.TARGET_RUNNING, "gauge", "Calls that a target serves.", (names.LABEL_TARGET, names.LABEL_MODEL)),
    Signal(names.DEPENDENCY_UP, "gauge", "Whether what inference leans on answers.", (names.LABEL_DEPENDENCY,)),
    Signal(names.LEDGER_WAITING_BYTES, "gauge", "Bytes of rows that wait for the database."),
    Signal(names.LEDGER_LAG, "gauge", "For how long rows have been waiting in vain."),
    _local(names.LOCAL_RUNNING, "gauge", "Answers that are computed."),
    _local(names.LOCAL_WAITING, "gauge", "Answers that wait for a place, preempted ones included."),
    _local(names.LOCAL_KV_CACHE_USED, "gauge", "Share of the KV cache that running answers hold."),
    _local(names.LOCAL_PROMPT_TOKENS, "counter", "Tokens of prompts taken on."),
    _local(names.LOCAL_REUSED_TOKENS, "counter", "Tokens of prompts that were copied, not computed."),
    _local(names.LOCAL_COMPLETION_TOKENS, "counter", "Tokens drawn."),
    _local(names.LOCAL_DRAFT_TOKENS, "counter", "Tokens that were guessed and computed."),
    _local(names.LOCAL_ACCEPTED_TOKENS, "counter", "Guessed tokens that were right."),
    _local(names.LOCAL_PREEMPTIONS, "counter", "Answers that lost their place and were computed again."),
    _local(names.LOCAL_QUEUE_TIME, "histogram", "Time from arrival to the first step."),
    _local(names.LOCAL_TTFT, "histogram", "Time from arrival to the first token."),
    _local(names.LOCAL_INTER_TOKEN, "histogram", "Time from one token to the next."),
    _local(names.LOCAL_PREFILL_STEP, "histogram", "Time of a step that reads prompts, answers beside them included."),
    _local(names.LOCAL_DECODE_STEP, "histogram", "Time of a step that only decodes."),
    _cache(names.CACHE_LOOKUPS, "counter", "Lookups answered.", names.LABEL_OUTCOME),
    _cache(names.CACHE_SHARED_HITS, "counter", "Hits whose answer was in the making."),
    _cache(names.CACHE_REFRESHES, "counter", "Leases given to produce an answer anew."),
    _cache(names.CACHE_STORES, "counter", "Answers stored."),
    _cache(names.CACHE_FALSE_HITS, "counter", "Entries reported as false hits."),
    _cache(names.CACHE_EVICTIONS, "counter", "Entries let go.", names.LABEL_REASON),
    _cache(names.CACHE_SAVED_TOKENS, "counter", "Tokens that hits saved.", names.LABEL_TOKEN_KIND),
    _cache(names.CACHE_SAVED_USD, "counter", "Money that hits saved."),
    _cache(names.CACHE_SAVED_SECONDS, "counter", "Generation time that hits saved."),
    _cache(names.CACHE_LEASES, "gauge", "Leases held by callers."),
    _cache(names.CACHE_STORE_UP, "gauge", "Whether the store answers."),
    _cache(names.CACHE_ENTRIES, "gauge", "Entries held."),
    _cache(names.CACHE_BYTES, "gauge", "Bytes held."),
    _cache(names.CACHE_SEMANTIC_ENTRIES, "gauge", "Entries found by similarity."),
    _cache(
        names.CACHE_SEMANTIC_ERROR,
        "gauge",
        "Wrong answers among semantic hits, as estimated, with the 95 % interval.",
        names.LABEL_END,
    ),
    _cache(names.CACHE_SEMANTIC_ALARMS, "counter", "Times that hits were found to have become wrong."),
    _edge(
        names.EDGE_REQUESTS,
        "counter",
        "Requests that were answered or given up.",
        names.LABEL_HTTP_METHOD,
        names.LABEL_ROUTE,
        names.LABEL_STATUS,
    ),
    _edge(
        names.EDGE_DURATION,
        "histogram",
        "From the request's head to the last byte of the answer.",
        names.LABEL_ROUTE,
    ),
    _edge(names.EDGE_DISCONNECTS, "counter", "Requests whose client left early.", names.LABEL_ROUTE),
    _edge(names.EDGE_GENERATIONS, "counter", "Requests that a model answered.", names.LABEL_MODEL),
    _edge(names.EDGE_ACTIVE, "gauge", "Requests in flight."),
)
BY_NAME: Final = {signal.name: signal for signal in SIGNALS}


def table() -> str:
    """Returns the Markdown table of every metric."""
    rows = ["| Metric | Kind | Labels | Service | Meaning |", "|---|---|---|---|---|"]
    for one in SIGNALS:
        labels = ", ".join(f"`{label}`" for label in one.labels)
        services = "all" if one.services == ALL else ", ".join(one.services)
        rows.append(f"| `{one.name}` | {one.kind} | {labels} | {services} | {one.meaning} |")
    return "\n".join(rows) + "\n"


if __name__ == "__main__":
    print(table(), end="")
