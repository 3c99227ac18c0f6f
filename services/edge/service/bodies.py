"""Bodies and answers of the suite's own endpoints."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from services.edge.openai import fields

SessionId = Annotated[str, Meta(min_length=1, max_length=128, description="A label on the trace; keeps no history.")]
ChatMessage = Annotated[str, Meta(min_length=1, max_length=4096)]
SummaryLength = Literal["short", "medium", "long"]


class SmartChat(Struct, forbid_unknown_fields=True):
    """A message to a model that the router chooses."""

    message: ChatMessage
    session_id: SessionId | None = None
    temperature: fields.Temperature | None = None


class Chat(Struct, forbid_unknown_fields=True):
    """A message to a model."""

    message: ChatMessage
    session_id: SessionId | None = None
    model: fields.ModelName | None = None
    temperature: fields.Temperature | None = None


class ChatAnswer(Struct):
    """The model's answer."""

    request_id: str
    session_id: str
    response: str
    model_used: str
    tokens_used: int
    latency_ms: float
    cached: bool


class Token(Struct):
    """Data of the event `token`: a piece of the answer."""

    token: str


class Done(Struct):
    """Data of the event `done`: the answer is complete."""

    request_id: str
    session_id: str
    model_used: str
    tokens_used: int
    latency_ms: float
    cached: bool
    finish_reason: str


class Summarize(Struct, forbid_unknown_fields=True):
    """A text to summarize."""

    text: Annotated[str, Meta(min_length=10, max_length=5000)]
    length: SummaryLength = "medium"
    model: fields.ModelName | None = None


class Summary(Struct):
    """A summary; lengths are in characters."""

    summary: str
    original_length: int
    summary_length: int
    cached: bool


class Generate(Struct, forbid_unknown_fields=True):
    """Prompts to answer as one batch; `max_length` is in tokens."""

    prompts: Annotated[list[Annotated[str, Meta(min_length=1)]], Meta(min_length=1, max_length=10)]
    max_length: Annotated[int, Meta(ge=10, le=200)] = 100
    model: fields.ModelName | None = None


class GeneratedText(Struct):
    """The answer to one prompt; `created_at` is in ISO 8601, UTC."""

    id: str
    prompt: str
    generated_text: str
    model_name: str
    created_at: str


class BatchMessage(Struct, forbid_unknown_fields=True):
    """One item of a batch; without an id its place in the batch is its id."""

    message: ChatMessage
    id: Annotated[str, Meta(min_length=1, max_length=128)] | None = None
    temperature: fields.Temperature | None = None


class Batch(Struct, forbid_unknown_fields=True):
    """Items to process concurrently."""

    items: Annotated[list[BatchMessage], Meta(min_length=1, max_length=100)]
    model: fields.ModelName | None = None


class BatchError(Struct):
    """Why an item failed."""

    message: str
    code: str | None
    status: int


class BatchResult(Struct):
    """The outcome of one item: `response` where it succeeded, `error` where it failed."""

    id: str
    status: Literal["succeeded", "failed"]
    response: str | None = None
    model_used: str | None = None
    tokens_used: int = 0
    cached: bool = False
    error: BatchError | None = None


class BatchAnswer(Struct):
    """The outcomes, in the order of the items."""

    request_id: str
    results: list[BatchResult]
    succeeded: int
    failed: int
    latency_ms: float


class Health(Struct):
    """That the process lives."""

    status: Literal["ok", "draining"]
    version: str
    uptime_s: float


class Probe(Struct):
    """The answer to a probe."""

    status: str


class Dependency(Struct):
    """One dependency as it was seen just now."""

    status: Literal["up", "down", "unknown"]
    needed: bool
    latency_ms: float | UnsetType = UNSET


class DetailedHealth(Struct):
    """Each dependency; `degraded` while one that is not needed is down."""

    status: Literal["ok", "degraded", "down"]
    version: str
    uptime_s: float
    dependencies: dict[str, Dependency]
    models: dict[str, str]


class TokenFigures(Struct):
    """Tokens of all attempts."""

    prompt: int
    completion: int
    total: int


class Figures(Struct):
    """Counters of one model, or of all; the cost is in US dollars and leaves out unpriced requests."""

    total_requests: int
    failed_requests: int
    cache_hits: int
    cache_misses: int
    cache_hit_rate: float
    blocked: int
    tokens: TokenFigures
    cost_usd: float
    unpriced_requests: int


class Latency(Struct):
    """Of recent requests, in milliseconds."""

    p50: float
    p95: float
    ttft_p50: float
    ttft_p95: float


class TargetFigures(Struct):
    """How one model at one target fares; absent: `retry_after_ms` where it may be asked now, times nobody knows yet."""

    target: str
    model: str
    breaker: Literal["closed", "open", "half_open"]
    running: int
    waiting: int
    calls: int
    failures: int
    retries: int
    hedges: int
    skipped: int
    retry_after_ms: float | UnsetType = UNSET
    ttft_ms: float | UnsetType = UNSET
    ttft_p95_ms: float | UnsetType = UNSET


class CacheSavings(Struct):
    """What was not spent because answers came from the cache; money as far as prices are known."""

    tokens: TokenFigures
    cost_usd: float
    generation_s: float


class CacheError(Struct):
    """The estimated share of wrong answers to similar questions, the ends of its 95 % interval, and its sample."""

    share: float
    low: float
    high: float
    samples: int


class CacheFigures(Struct, kw_only=True):
    """What the cache service that was asked holds, and has done since it started, for all tenants.

    `entries` and `size_bytes` are absent while its store does not answer, `semantic_error` where it answers no similar
    questions. `shared` hits waited for an answer that another call was making.
    """

    store: str
    available: bool
    entries: int | UnsetType = UNSET
    size_bytes: int | UnsetType = UNSET
    hits: dict[str, int]
    shared: int
    misses: dict[str, int]
    false_hits: int
    saved: CacheSavings
    semantic_error: CacheError | UnsetType = UNSET


class Stats(Figures, kw_only=True):
    """Counters as far as the caller may see them.

    `source` says of what they are: `ledger`, every replica since the ledger began; `process`, while the database is
    away, the one that answered since it started. `models`, `targets`, `running` and `uptime_s` are of that one always.
    """

    source: Literal["ledger", "process"]
    total_api_keys: int | UnsetType = UNSET
    requests_by_key: dict[str, int] | UnsetType = UNSET
    latency_ms: Latency
    uptime_s: float
    running: int
    models: dict[str, Figures]
    targets: list[TargetFigures]
    cache: CacheFigures | UnsetType = UNSET
