"""POST /summarize, /generate and /batch-process."""

from __future__ import annotations

from datetime import UTC, datetime

from kit.errors import MillraceError, NotFound
from millrace.inference.v1 import event_pb2, generation_pb2, inference_service_pb2, model_pb2
from services.edge import provenance
from services.edge.batch_item import generation_of
from services.edge.controls import apply_controls
from services.edge.exchange import Exchange
from services.edge.fault import Fault
from services.edge.inference_client import InferenceClient
from services.edge.openai.spec import one_message_spec, raw_prompt_spec
from services.edge.service.bodies import (
    Batch,
    BatchAnswer,
    BatchError,
    BatchResult,
    Generate,
    GeneratedText,
    Summarize,
    Summary,
)

_CHAT, _COMPLETION = model_pb2.MODEL_CAPABILITY_CHAT, model_pb2.MODEL_CAPABILITY_COMPLETION
# What a model is told, and the most tokens that it may use: about four characters each.
_SUMMARY_LENGTHS = {"short": ("one or two sentences", 80), "medium": ("one paragraph", 200), "long": ("a page", 500)}
_SUMMARY_SYSTEM = "Summarize the user's text in {}. Keep its language and its facts. Answer with the summary only."


class TextEndpoints:
    """Endpoints that work on texts."""

    def __init__(self, inference: InferenceClient, default_model: str) -> None:
        self._inference = inference
        self._default_model = default_model

    async def summarize(self, exchange: Exchange, body: Summarize) -> Summary:
        """POST /summarize."""
        extent, token_count = _SUMMARY_LENGTHS[body.length]
        spec = one_message_spec(body.model or self._default_model, body.text, _SUMMARY_SYSTEM.format(extent))
        spec.sampling.max_tokens = token_count
        generation = await self._inference.generate(exchange, apply_controls(exchange, spec))
        provenance.set_all(exchange, generation)
        summary = _text(generation)
        return Summary(summary, len(body.text), len(summary), provenance.is_hit(generation))

    async def generate(self, exchange: Exchange, body: Generate) -> list[GeneratedText]:
        """POST /generate: one batch; a prompt that fails fails the request."""
        model = body.model or self._default_model
        make = raw_prompt_spec if await self._only_completes(exchange, model) else one_message_spec
        specs = [apply_controls(exchange, make(model, prompt)) for prompt in body.prompts]
        for spec in specs:
            spec.sampling.max_tokens = body.max_length
        items = await self._inference.batch(exchange, specs)
        generations = [_generation_of(item, index) for index, item in enumerate(items)]
        provenance.set_all(exchange, *generations)
        return [_generated(prompt, one) for prompt, one in zip(body.prompts, generations, strict=True)]

    async def process_batch(self, exchange: Exchange, body: Batch) -> BatchAnswer:
        """POST /batch-process: each item succeeds or fails by itself."""
        items = await self._inference.batch(exchange, self._batch_specs(exchange, body))
        results = []
        for index, (asked, item) in enumerate(zip(body.items, items, strict=True)):
            name = asked.id or str(index)
            try:
                results.append(_succeeded(name, generation_of(item, index)))
            except MillraceError as error:
                results.append(_failed(name, Fault.of(error, route=exchange.route)))
        failed = sum(result.status == "failed" for result in results)
        latency_ms = round(exchange.elapsed_s * 1000, 3)
        return BatchAnswer(exchange.request_id, results, len(results) - failed, failed, latency_ms)

    async def _only_completes(self, exchange: Exchange, name: str) -> bool:
        """Whether a model takes raw prompts and no conversations; `auto` is no model and takes both."""
        try:
            capabilities = (await self._inference.model(exchange, name)).capabilities
        except NotFound:
            return False
        return _COMPLETION in capabilities and _CHAT not in capabilities

    def _batch_specs(self, exchange: Exchange, body: Batch) -> list[generation_pb2.GenerationSpec]:
        specs = []
        for item in body.items:
            spec = one_message_spec(body.model or self._default_model, item.message)
            if item.temperature is not None:
                spec.sampling.temperature = item.temperature
            specs.append(apply_controls(exchange, spec))
        return specs


def _generation_of(item: inference_service_pb2.BatchItem, index: int) -> event_pb2.Generation:
    """The answer to one prompt of /generate; one that safety refuses is told under its name in the body."""
    try:
        return generation_of(item, index)
    except MillraceError as error:
        if error.reason == "CONTENT_BLOCKED":
            raise Fault.of(error, f"prompts[{index}]") from error
        raise


def _text(generation: event_pb2.Generation) -> str:
    choice = generation.choices[0]
    return choice.text or choice.refusal


def _generated(prompt: str, generation: event_pb2.Generation) -> GeneratedText:
    created = datetime.fromtimestamp(generation.created_time.seconds, UTC)
    return GeneratedText(generation.request_id, prompt, _text(generation), generation.model, created.isoformat())


def _succeeded(name: str, generation: event_pb2.Generation) -> BatchResult:
    return BatchResult(
        id=name,
        status="succeeded",
        response=_text(generation),
        model_used=generation.model,
        tokens_used=generation.usage.prompt_token_count + generation.usage.completion_token_count,
        cached=provenance.is_hit(generation),
    )


def _failed(name: str, fault: Fault) -> BatchResult:
    return BatchResult(id=name, status="failed", error=BatchError(fault.message, fault.code, fault.status))
