"""Every endpoint of the edge, in one table."""

from __future__ import annotations

from dataclasses import dataclass

from services.edge.jobs.batches import BatchEndpoints
from services.edge.jobs.files import FileEndpoints
from services.edge.jobs.routes import batch_routes, file_routes, task_routes
from services.edge.jobs.tasks import TaskEndpoints
from services.edge.live import LiveEndpoint, LiveSnapshot
from services.edge.openai import chat_answer, chat_request, completion_request, embeddings, models, moderations
from services.edge.openai.endpoints import OpenAIEndpoints
from services.edge.page import PageEndpoints
from services.edge.responses.endpoints import ResponseEndpoints
from services.edge.responses.routes import response_routes
from services.edge.routes import Route
from services.edge.service import admin, bodies
from services.edge.service.admin import AdminEndpoints
from services.edge.service.cache_report import CacheReport, CacheReported, CacheReportEndpoint
from services.edge.service.chat import ChatEndpoints
from services.edge.service.health import HealthEndpoints
from services.edge.service.ledger import HistoryPage, HistoryQuery, LedgerEndpoints, UsagePage, UsageQuery
from services.edge.service.standing import LimitsEndpoint, StandingLimits
from services.edge.service.stats import StatsEndpoint
from services.edge.service.text import TextEndpoints
from services.edge.traces.endpoints import TraceEndpoints
from services.edge.traces.routes import trace_routes


@dataclass(frozen=True)
class Endpoints:
    """Who answers."""

    openai: OpenAIEndpoints
    chat: ChatEndpoints
    text: TextEndpoints
    health: HealthEndpoints
    stats: StatsEndpoint
    ledger: LedgerEndpoints
    limits: LimitsEndpoint
    cache_report: CacheReportEndpoint
    admin: AdminEndpoints
    tasks: TaskEndpoints
    files: FileEndpoints
    batches: BatchEndpoints
    responses: ResponseEndpoints
    traces: TraceEndpoints
    live: LiveEndpoint
    page: PageEndpoints


def table(ends: Endpoints) -> list[Route]:
    """The route table; the busiest first."""
    return [
        *_openai(ends.openai),
        *_chat(ends.chat),
        *_text(ends.text),
        *task_routes(ends.tasks),
        *file_routes(ends.files),
        *batch_routes(ends.batches),
        *response_routes(ends.responses),
        *_access(ends.admin),
        _own(
            "/v1/cache/report",
            ends.cache_report.report,
            "Report a cached answer that did not fit.",
            CacheReport,
            CacheReported,
        ),
        *trace_routes(ends.traces),
        *_operations(ends),
        *_pages(ends.page),
    ]


def _openai(openai: OpenAIEndpoints) -> list[Route]:
    return [
        Route(
            "POST",
            "/v1/chat/completions",
            openai.chat,
            "Continue a conversation.",
            "OpenAI",
            body=chat_request.ChatRequest,
            answer=chat_answer.ChatCompletion,
            events=(chat_answer.ChatCompletionChunk,),
            refused=chat_request.REFUSED,
        ),
        Route(
            "POST",
            "/v1/completions",
            openai.complete,
            "Continue raw text.",
            "OpenAI",
            body=completion_request.CompletionRequest,
            answer=completion_request.Completion,
            events=(completion_request.CompletionChunk,),
            refused=completion_request.REFUSED,
            hints=completion_request.HINTS,
        ),
        Route(
            "POST",
            "/v1/embeddings",
            openai.embed,
            "Turn texts into vectors.",
            "OpenAI",
            body=embeddings.EmbeddingRequest,
            answer=embeddings.EmbeddingList,
            hints=embeddings.HINTS,
        ),
        Route(
            "POST",
            "/v1/moderations",
            openai.moderate,
            "Judge texts.",
            "OpenAI",
            body=moderations.ModerationRequest,
            answer=moderations.Moderation,
        ),
        Route("GET", "/v1/models", openai.list_models, "List the models.", "OpenAI", answer=models.ModelList),
        Route("GET", "/v1/models/{model:path}", openai.get_model, "Get one model.", "OpenAI", answer=models.ModelCard),
    ]


def _chat(chat: ChatEndpoints) -> list[Route]:
    return [
        _own("/chat", chat.chat, "Send one message.", bodies.Chat, bodies.ChatAnswer),
        Route(
            "POST",
            "/chat/stream",
            chat.chat_stream,
            "Send one message and stream the answer: events token, done, error.",
            "Plain",
            body=bodies.Chat,
            events=(bodies.Token, bodies.Done),
            explains=True,
        ),
        _own("/chat/smart", chat.chat_smart, "Let the router choose the model.", bodies.SmartChat, bodies.ChatAnswer),
        _own("/chat/safe", chat.chat_safe, "Use the strict safety profile.", bodies.Chat, bodies.ChatAnswer),
        _own("/chat/limited", chat.chat_limited, "Use a limit per X-Client-Id.", bodies.Chat, bodies.ChatAnswer),
    ]


def _text(text: TextEndpoints) -> list[Route]:
    return [
        _own("/summarize", text.summarize, "Summarize a text.", bodies.Summarize, bodies.Summary),
        _own("/generate", text.generate, "Answer prompts as one batch.", bodies.Generate, list[bodies.GeneratedText]),
        _own("/batch-process", text.process_batch, "Process items concurrently.", bodies.Batch, bodies.BatchAnswer),
    ]


def _own(path: str, handle: object, summary: str, body: type, answer: object) -> Route:
    return Route("POST", path, handle, summary, "Plain", body=body, answer=answer, explains=True)  # type: ignore[arg-type]


def _access(ends: AdminEndpoints) -> list[Route]:
    return [
        _admin("POST", "/login", ends.login, "Log in with a name and a password.", admin.LoginBody, admin.LoginAnswer),
        _admin("POST", "/login/refresh", ends.refresh, "Get new tokens.", admin.RefreshBody, admin.LoginAnswer),
        _admin("GET", "/admin/keys", ends.list_keys, "List keys, newest first.", None, admin.KeyPage, admin.KeyQuery),
        _admin("POST", "/admin/keys", ends.create_key, "Make a key.", admin.NewKey, admin.KeyWithSecret),
        _admin("DELETE", "/admin/keys/{key_id}", ends.revoke_key, "Revoke a key at once.", None, admin.KeyCard),
        _admin(
            "POST",
            "/admin/keys/{key_id}/rotate",
            ends.rotate_key,
            "Give a key a new secret.",
            admin.Rotation,
            admin.KeyWithSecret,
        ),
    ]


def _admin(
    method: str, path: str, handle: object, summary: str, body: type | None, answer: type, query: type | None = None
) -> Route:
    return Route(method, path, handle, summary, "Access", body=body, answer=answer, query=query)  # type: ignore[arg-type]


def _operations(ends: Endpoints) -> list[Route]:
    health = ends.health
    return [
        _probe("/livez", health.live, "Whether the process lives.", bodies.Probe),
        _probe("/readyz", health.ready, "Whether requests can be answered.", bodies.Probe),
        _probe("/ready", health.ready, "The same as /readyz.", bodies.Probe),
        _probe("/health", health.health, "Version and uptime.", bodies.Health),
        Route(
            "GET",
            "/health/detailed",
            health.detail,
            "Each dependency; 503 while one that is needed is down.",
            "Operations",
            answer=bodies.DetailedHealth,
            errors=(503,),
        ),
        Route("GET", "/stats", ends.stats.stats, "Counters.", "Operations", answer=bodies.Stats),
        Route(
            "GET",
            "/admin/live",
            ends.live.live,
            "How it fares, once a second.",
            "Operations",
            events=(LiveSnapshot,),
        ),
        _past("/history", ends.ledger.history, "Past requests, newest first.", HistoryPage, HistoryQuery),
        Route("GET", "/v1/limits", ends.limits.limits, "What is left of your limits.", "Usage", answer=StandingLimits),
        _past("/v1/usage", ends.ledger.usage, "Tokens and cost by time.", UsagePage, UsageQuery),
        Route(
            "GET",
            "/metrics",
            ends.page.metrics,
            "Figures for Prometheus.",
            "Operations",
            text="text/plain",
        ),
    ]


def _past(path: str, handle: object, summary: str, answer: type, query: type) -> Route:
    return Route("GET", path, handle, summary, "Usage", answer=answer, query=query)  # type: ignore[arg-type]


def _probe(path: str, handle: object, summary: str, answer: type) -> Route:
    return Route("GET", path, handle, summary, "Operations", answer=answer)  # type: ignore[arg-type]


def _pages(page: PageEndpoints) -> list[Route]:
    return [
        Route("GET", "/", page.index, "The playground.", "Pages", text="text/html"),
        Route("GET", "/openapi.json", page.document, "This document.", "Pages", text="application/json"),
        Route("GET", "/docs", page.docs, "A page that shows this document.", "Pages", text="text/html"),
        Route("GET", "/assets/{version}/{name}", page.asset, "A file of a page.", "Pages", text="text/javascript"),
    ]
