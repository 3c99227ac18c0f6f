"""POST /chat, /chat/stream, /chat/smart, /chat/safe and /chat/limited: one message in, one answer out.

A session id is a label on the trace. No history is kept here: callers who want one send a conversation to
/v1/chat/completions.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass

from kit.errors import FailedPrecondition
from millrace.inference.v1 import event_pb2, generation_pb2
from services.edge import provenance
from services.edge.controls import apply_controls
from services.edge.exchange import Exchange
from services.edge.inference_client import InferenceClient
from services.edge.openai.spec import one_message_spec
from services.edge.relay import relay
from services.edge.service.bodies import Chat, ChatAnswer, SmartChat
from services.edge.service.frames import TokenFrames

REFUSAL = "I cannot help with that."
LIMIT = "chat-limited"  # its name in the quotas file of inference, which counts


@dataclass(frozen=True)
class Defaults:
    """What the plain endpoints use where a body names nothing.

    Attributes:
        model: Public model of plain requests.
        auto_model: Name that lets the router choose.
        safe_profile: Safety profile of /chat/safe.
    """

    model: str
    auto_model: str
    safe_profile: str


class ChatEndpoints:
    """The plain chat endpoints."""

    def __init__(self, inference: InferenceClient, defaults: Defaults) -> None:
        self._inference = inference
        self._defaults = defaults

    async def chat(self, exchange: Exchange, body: Chat) -> ChatAnswer:
        """POST /chat."""
        spec = self._spec(exchange, body, body.model or self._defaults.model)
        return _answer(exchange, spec, await self._generate(exchange, spec))

    async def chat_smart(self, exchange: Exchange, body: SmartChat) -> ChatAnswer:
        """POST /chat/smart."""
        spec = self._spec(exchange, body, self._defaults.auto_model)
        return _answer(exchange, spec, await self._generate(exchange, spec))

    async def chat_safe(self, exchange: Exchange, body: Chat) -> ChatAnswer:
        """POST /chat/safe: a flagged prompt is refused, a flagged answer replaced."""
        spec = self._spec(exchange, body, body.model or self._defaults.model)
        spec.safety.profile = self._defaults.safe_profile
        generation = await self._generate(exchange, spec)
        _refuse_flagged_prompt(generation)
        answer = _answer(exchange, spec, generation)
        if _is_answer_flagged(generation):
            answer.response = generation.choices[0].refusal or REFUSAL
        return answer

    async def chat_limited(self, exchange: Exchange, body: Chat) -> ChatAnswer:
        """POST /chat/limited: counts against a limit of its own for each X-Client-Id, whoever else calls."""
        spec = self._spec(exchange, body, body.model or self._defaults.model)
        spec.limit = LIMIT
        return _answer(exchange, spec, await self._generate(exchange, spec))

    async def chat_stream(self, exchange: Exchange, body: Chat) -> None:
        """POST /chat/stream."""
        spec = self._spec(exchange, body, body.model or self._defaults.model)
        await relay(exchange, self._inference, spec, TokenFrames(exchange, spec.session_id))

    async def _generate(self, exchange: Exchange, spec: generation_pb2.GenerationSpec) -> event_pb2.Generation:
        generation = await self._inference.generate(exchange, spec)
        provenance.set_all(exchange, generation)
        return generation

    def _spec(self, exchange: Exchange, body: Chat | SmartChat, model: str) -> generation_pb2.GenerationSpec:
        spec = one_message_spec(model, body.message)
        spec.session_id = body.session_id or str(uuid.uuid4())
        if body.temperature is not None:
            spec.sampling.temperature = body.temperature
        return apply_controls(exchange, spec)


def _answer(exchange: Exchange, spec: generation_pb2.GenerationSpec, generation: event_pb2.Generation) -> ChatAnswer:
    choice = generation.choices[0]
    return ChatAnswer(
        request_id=exchange.request_id,
        session_id=spec.session_id,
        response=choice.text or choice.refusal,
        model_used=generation.model,
        tokens_used=generation.usage.prompt_token_count + generation.usage.completion_token_count,
        latency_ms=round(exchange.elapsed_s * 1000, 3),
        cached=provenance.is_hit(generation),
    )


def _refuse_flagged_prompt(generation: event_pb2.Generation) -> None:
    """Refuses a prompt that the profile marked and let pass: here a mark is enough."""
    marked = (event_pb2.SAFETY_VERDICT_FLAG, event_pb2.SAFETY_VERDICT_BLOCK)
    for event in generation.receipt.safety:
        if event.direction == event_pb2.SAFETY_DIRECTION_INPUT and event.verdict in marked:
            categories = ",".join(sorted({finding.category for finding in event.findings}))
            raise FailedPrecondition(
                "CONTENT_BLOCKED", "The message was refused by the safety policy.", metadata={"categories": categories}
            )


def _is_answer_flagged(generation: event_pb2.Generation) -> bool:
    """Whether safety marked, cut or blocked the answer."""
    marked = (event_pb2.SAFETY_VERDICT_FLAG, event_pb2.SAFETY_VERDICT_BLOCK)
    return generation.choices[0].finish_reason == event_pb2.FINISH_REASON_CONTENT_FILTER or any(
        event.direction == event_pb2.SAFETY_DIRECTION_OUTPUT and event.verdict in marked
        for event in generation.receipt.safety
    )
