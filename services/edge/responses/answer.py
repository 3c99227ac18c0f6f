"""A response as OpenAI's schema has it, made from a generation; beside it `millrace`: the receipt."""

from __future__ import annotations

import time
from typing import Any, Literal

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from millrace.inference.v1 import event_pb2 as pb
from services.edge.fault import Fault
from services.edge.jobs.identifiers import RESPONSE
from services.edge.openai.answer import chat_logprobs
from services.edge.openai.chat_answer import TokenLogprob
from services.edge.openai.receipt import Receipt, receipt
from services.edge.responses.request import JsonObjectFormat, JsonSchemaFormat, ResponseRequest, TextFormat

Status = Literal["queued", "in_progress", "completed", "incomplete", "failed", "cancelled"]
ItemStatus = Literal["in_progress", "completed", "incomplete"]


class OutputText(Struct, tag="output_text"):
    """What the model says."""

    text: str
    annotations: list[str] = []
    logprobs: list[TokenLogprob] = []


class RefusalPart(Struct, tag="refusal"):
    """Text by which the answer is declined."""

    refusal: str


class Message(Struct, tag="message"):
    """The model's message."""

    id: str
    status: ItemStatus
    content: list[OutputText | RefusalPart]
    role: Literal["assistant"] = "assistant"


class FunctionCall(Struct, tag="function_call"):
    """A call that the model asks for; the arguments are JSON text as the model wrote them."""

    id: str
    call_id: str
    name: str
    arguments: str
    status: ItemStatus


class ReasoningText(Struct, tag="reasoning_text"):
    """What the model thinks."""

    text: str


class ReasoningItem(Struct, tag="reasoning"):
    """The model's visible reasoning."""

    id: str
    content: list[ReasoningText]
    status: ItemStatus
    summary: list[str] = []


OutputItem = Message | FunctionCall | ReasoningItem


class CachedTokens(Struct):
    """Of the input's tokens, those that the engine did not compute again."""

    cached_tokens: int
    cache_write_tokens: int = 0


class ReasoningTokens(Struct):
    """Of the output's tokens, those that were reasoning."""

    reasoning_tokens: int


class ResponseUsage(Struct):
    """Tokens used."""

    input_tokens: int
    input_tokens_details: CachedTokens
    output_tokens: int
    output_tokens_details: ReasoningTokens
    total_tokens: int


class ResponseError(Struct):
    """Why there is no answer."""

    code: str
    message: str


class Incomplete(Struct):
    """Why the answer is not complete."""

    reason: Literal["max_output_tokens", "content_filter"]


class TextEcho(Struct):
    """The form of the answer's text, as it was asked for."""

    format: TextFormat | JsonObjectFormat | JsonSchemaFormat


class ReasoningEcho(Struct):
    """How long the model was to think, as it was asked for."""

    effort: str | None = None
    summary: str | None = None


class Response(Struct, kw_only=True):
    """A response."""

    id: str
    created_at: float
    model: str
    status: Status
    tools: Raw
    tool_choice: Raw
    text: TextEcho
    reasoning: ReasoningEcho
    metadata: dict[str, str]
    object: Literal["response"] = "response"
    output: list[OutputItem] = []
    error: ResponseError | None = None
    incomplete_details: Incomplete | None = None
    instructions: str | None = None
    background: bool = False
    store: bool = False
    max_output_tokens: int | None = None
    parallel_tool_calls: bool = True
    previous_response_id: str | None = None
    service_tier: Literal["default"] = "default"
    temperature: float | None = None
    top_logprobs: int | None = None
    top_p: float | None = None
    truncation: str = "disabled"
    usage: ResponseUsage | UnsetType = UNSET
    completed_at: float | None = None
    user: str | UnsetType = UNSET
    safety_identifier: str | None = None
    millrace: Receipt | UnsetType = UNSET


def begun(body: ResponseRequest, name: str, is_kept: bool) -> Response:
    """A response of which nothing is there yet; `name` is its id without the prefix."""
    return Response(
        id=RESPONSE + name,
        created_at=int(time.time()),
        model=body.model,
        status="queued" if body.background else "in_progress",
        tools=Raw(msgspec.json.encode(body.tools or [])),
        tool_choice=Raw(msgspec.json.encode(body.tool_choice or "auto")),
        text=TextEcho((body.text.format if body.text else None) or TextFormat()),
        reasoning=ReasoningEcho(body.reasoning.effort if body.reasoning else None),
        metadata=body.metadata or {},
        instructions=body.instructions,
        background=bool(body.background),
        store=is_kept,
        max_output_tokens=body.max_output_tokens,
        parallel_tool_calls=body.parallel_tool_calls is not False,
        previous_response_id=body.previous_response_id,
        temperature=body.temperature,
        top_logprobs=body.top_logprobs,
        top_p=body.top_p,
        truncation=body.truncation or "disabled",
        user=body.user or UNSET,
        safety_identifier=body.safety_identifier,
    )


def answered(response: Response, generation: pb.Generation) -> Response:
    """The response once the answer is there."""
    choice = generation.choices[0]
    name = response.id.removeprefix(RESPONSE)
    output: list[OutputItem] = []
    status = item_status(choice.finish_reason)
    is_said = bool(choice.text or choice.refusal or choice.tool_calls)
    if choice.reasoning:  # what was cut short is what came last
        text = ReasoningText(choice.reasoning)
        output.append(ReasoningItem(f"rs_{name}_{len(output)}", [text], "completed" if is_said else status))
    content: list[OutputText | RefusalPart] = []
    if choice.text:
        content.append(OutputText(choice.text, logprobs=logprobs_of(choice.logprobs)))
    if choice.refusal:
        content.append(RefusalPart(choice.refusal))
    if content:
        output.append(Message(f"msg_{name}_{len(output)}", "completed" if choice.tool_calls else status, content))
    for call in choice.tool_calls:
        output.append(FunctionCall(f"fc_{name}_{len(output)}", call.id, call.name, call.arguments_json, status))
    done = receipt(generation.receipt, generation.route_reason)
    return ended(response, output, choice.finish_reason, generation.usage, generation.model, done)


def ended(
    response: Response, output: list[OutputItem], reason: int, used: pb.Usage, model: str, done: Receipt
) -> Response:
    """The response with its output, as it ended."""
    incomplete = _INCOMPLETE.get(reason)
    return msgspec.structs.replace(
        response,
        status="incomplete" if incomplete else "completed",
        incomplete_details=incomplete,
        output=output,
        model=model or response.model,
        usage=_usage(used),
        # Reckoned, so that it is the same however often the answer is told.
        completed_at=None if incomplete else int(response.created_at + done.duration_ms / 1000),
        millrace=done,
    )


def failed(response: Response, fault: Fault) -> Response:
    """The response that failed."""
    code = {429: "rate_limit_exceeded", 400: "invalid_prompt"}.get(fault.status, "server_error")
    return msgspec.structs.replace(response, status="failed", error=ResponseError(code, fault.message))


_INCOMPLETE: dict[int, Incomplete] = {
    pb.FINISH_REASON_LENGTH: Incomplete("max_output_tokens"),
    pb.FINISH_REASON_CONTENT_FILTER: Incomplete("content_filter"),
    pb.FINISH_REASON_DEADLINE: Incomplete("max_output_tokens"),
}


def item_status(reason: int) -> ItemStatus:
    """How an item ended."""
    return "incomplete" if reason in _INCOMPLETE else "completed"


def logprobs_of(tokens: Any) -> list[TokenLogprob]:
    """Log probabilities of a text."""
    found = chat_logprobs(tokens)
    return (found.content or []) if found else []


def _usage(used: pb.Usage) -> ResponseUsage:
    prompt, completed = used.prompt_token_count, used.completion_token_count
    cached, reasoning = CachedTokens(used.cached_prompt_token_count), ReasoningTokens(used.reasoning_token_count)
    return ResponseUsage(prompt, cached, completed, reasoning, prompt + completed)
