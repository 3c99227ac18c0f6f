"""InferenceService: translate in, call, translate out. It decides nothing."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, contextmanager
from dataclasses import dataclass
from typing import Any

from kit import identity, names, status
from kit.errors import Internal, InvalidArgument, MillraceError
from kit.spans import current
from millrace.inference.v1 import event_pb2, inference_service_pb2_grpc, model_pb2
from millrace.inference.v1 import inference_service_pb2 as pb2
from services.inference import limits, translate
from services.inference.access.permission import check_model, check_named, check_route, may_use
from services.inference.caching.answer_cache import AnswerCache
from services.inference.embedding import Embeddings
from services.inference.events import Completed, Event, Receipt
from services.inference.generation import Prompt
from services.inference.pipeline import Pipeline
from services.inference.receipt_wire import trailers
from services.inference.request import Request
from services.inference.routing.catalog import Model
from services.inference.routing.fleet import Fleet
from services.inference.routing.router import Router
from services.inference.screening.moderation import ScoringPort, moderate

log = logging.getLogger(__name__)

BATCH_COUNT_MAX = 100
# In words of the models file; the contract has no words for the rest.
CAPABILITIES = {
    "tools": model_pb2.MODEL_CAPABILITY_TOOLS,
    "vision": model_pb2.MODEL_CAPABILITY_IMAGE_INPUT,
    "json_schema": model_pb2.MODEL_CAPABILITY_STRUCTURED_OUTPUT,
}


class InferenceServicer(inference_service_pb2_grpc.InferenceServiceServicer):
    """Serves one pipeline and the catalogue in force."""

    def __init__(
        self,
        pipeline: Pipeline,
        embeddings: Embeddings,
        router: Router,
        fleet: Fleet,
        scoring: ScoringPort,
        cache: AnswerCache,
        start_time: float,
        batch_concurrency: int,
    ) -> None:
        self._pipeline, self._router, self._fleet = pipeline, router, fleet
        self._embeddings, self._cache = embeddings, cache
        self._scoring, self._start_time, self._batch_concurrency = scoring, start_time, batch_concurrency

    async def Generate(self, request: pb2.GenerateRequest, context: Any) -> pb2.GenerateResponse:
        """Generates a complete answer."""
        asked = _request(request, streamed=False)
        with _telling(asked, context) as told:
            generation = translate.generation(await self._run(asked, told.receipt))
            told.message = generation.receipt
            return pb2.GenerateResponse(generation=generation)

    async def StreamGenerate(
        self, request: pb2.StreamGenerateRequest, context: Any
    ) -> AsyncIterator[pb2.StreamGenerateResponse]:
        """Generates an answer as a stream of events."""
        sequence = 0
        asked = _request(request, streamed=True)
        with _telling(asked, context) as told:
            async with aclosing(self._pipeline.run(asked, told.receipt)) as batches:
                async for batch in batches:
                    for event in batch:
                        sequence += 1
                        response = translate.response(event, sequence)
                        if isinstance(event, Completed):
                            told.message = response.completed.receipt
                        yield response

    async def BatchGenerate(self, request: pb2.BatchGenerateRequest, context: Any) -> pb2.BatchGenerateResponse:
        """Generates answers to several prompts; each succeeds or fails by itself."""
        call = identity.current()
        request_id = limits.check_request_id(request.request_id, call.request_id)
        count = len(request.specs)
        if not 1 <= count <= BATCH_COUNT_MAX:
            raise InvalidArgument("specs", f"must have 1 to {BATCH_COUNT_MAX} items; it has {count}")
        for index, spec in enumerate(request.specs):
            limits.check_spec(spec, f"specs[{index}]")
        asked = [
            translate.request(spec, call, f"{request_id[:120]}.{index}", streamed=False)
            for index, spec in enumerate(request.specs)
        ]
        slots = asyncio.Semaphore(self._batch_concurrency)
        async with asyncio.TaskGroup() as group:
            items = [group.create_task(self._item(one, slots)) for one in asked]
        return pb2.BatchGenerateResponse(request_id=request_id, items=[item.result() for item in items])

    async def _item(self, asked: Request, slots: asyncio.Semaphore) -> pb2.BatchItem:
        async with slots:
            try:
                return pb2.BatchItem(generation=translate.generation(await self._run(asked)))
            except MillraceError as error:
                return pb2.BatchItem(error=_item_error(error))
            except Exception:  # a bug met by one item must not take the others' answers with it
                log.exception("an item of a batch failed")
                return pb2.BatchItem(error=_item_error(Internal("INTERNAL", "internal error; the log has it all")))

    async def _run(self, asked: Request, receipt: Receipt | None = None) -> list[Event]:
        happened: list[Event] = []
        async with aclosing(self._pipeline.run(asked, receipt)) as batches:
            async for batch in batches:
                happened += batch
        return happened

    async def Embed(self, request: pb2.EmbedRequest, context: Any) -> pb2.EmbedResponse:
        """Turns texts into vectors."""
        call = identity.current()
        request_id = limits.check_request_id(request.request_id, call.request_id)
        limits.check_texts(request.texts, 2_048, 1)
        dimension_count = request.dimension_count if request.HasField("dimension_count") else None
        if dimension_count is not None and dimension_count < 1:
            raise InvalidArgument("dimension_count", "must be at least 1")
        asked = Request(
            request_id, call.tenant, request.model, Prompt(streamed=False), call.deadline, caller=call.caller
        )
        with _telling(asked, context) as told:
            receipt = told.receipt
            done = await self._embeddings.embed(asked, request.texts, dimension_count, receipt)
        return pb2.EmbedResponse(
            request_id=request_id,
            model=receipt.model,
            embeddings=[pb2.Embedding(values=vector) for vector in done.vectors],
            usage=translate.usage(done.usage),
            receipt=translate.receipt(receipt),
        )

    async def CountTokens(self, request: pb2.CountTokensRequest, context: Any) -> pb2.CountTokensResponse:
        """Counts the tokens of a prompt as the model's first target would."""
        asked = _request(request, streamed=False)
        with self._router.hold() as snapshot:
            check_named(asked)
            route = self._router.choose(asked)
            check_route(asked, route)
            model = snapshot.catalog.find(route.model_name)
            with self._fleet.use(route.own[0].target) as engine:
                count = await engine.count_tokens(asked.prompt)
        return pb2.CountTokensResponse(
            request_id=asked.request_id, prompt_token_count=count, context_token_count_max=model.context_token_count_max
        )

    async def Moderate(self, request: pb2.ModerateRequest, context: Any) -> pb2.ModerateResponse:
        """Judges texts in the categories of OpenAI's moderation endpoint."""
        request_id = limits.check_request_id(request.request_id, identity.current().request_id)
        limits.check_texts(request.texts, 128, 0)
        judgements, version = await moderate(self._scoring, request.texts)
        results = [
            pb2.ModerationResult(
                flagged=one.is_flagged,
                categories=[
                    pb2.ModerationCategory(name=name, score=score, flagged=flagged)
                    for name, score, flagged in one.categories
                ],
            )
            for one in judgements
        ]
        return pb2.ModerateResponse(request_id=request_id, model=f"millrace-moderation-{version}", results=results)

    async def ListModels(self, request: pb2.ListModelsRequest, context: Any) -> pb2.ListModelsResponse:
        """Lists the models that can be named as they stand and are in the caller's scope, by name."""
        catalog, caller = self._router.catalog, identity.current().caller
        usable = [name for name in catalog.listed_names() if may_use(caller, name)]
        models = [self._model(name, catalog.find(name)) for name in usable]
        return pb2.ListModelsResponse(models=models)

    async def GetModel(self, request: pb2.GetModelRequest, context: Any) -> pb2.GetModelResponse:
        """Gets one model."""
        if not request.name:
            raise InvalidArgument("name", "must not be empty")
        check_model(identity.current().caller, [request.name])
        return pb2.GetModelResponse(model=self._model(request.name, self._router.catalog.find(request.name)))

    async def ReportFalseHit(self, request: pb2.ReportFalseHitRequest, context: Any) -> pb2.ReportFalseHitResponse:
        """Removes a cached answer that did not fit."""
        call = identity.current()
        request_id = limits.check_request_id(request.request_id, call.request_id)
        limits.check_report(request)
        text = request.text if request.HasField("text") else None
        removed = await self._cache.report_false_hit(call.caller, request.end_user_id, request.entry_id, text)
        return pb2.ReportFalseHitResponse(request_id=request_id, removed=removed)

    def _model(self, name: str, model: Model) -> model_pb2.Model:
        first = model.targets[0]
        return model_pb2.Model(
            name=name,
            description=model.description,
            owner=first.upstream or "millrace",
            created_time=translate.timestamp(self._start_time),
            capabilities=_capabilities(model),
            context_token_count_max=model.context_token_count_max,
            state=int(self._fleet.state_of(model)),  # type: ignore[arg-type]
            targets=[target.label for target in model.targets],
            loaded_share=self._fleet.loaded_share_of(model),
        )


def _request(
    request: pb2.GenerateRequest | pb2.StreamGenerateRequest | pb2.CountTokensRequest, streamed: bool
) -> Request:
    call = identity.current()
    request_id = limits.check_request_id(request.request_id, call.request_id)
    limits.check_spec(request.spec)
    if request.spec.session_id:
        current().set_attribute(names.GEN_AI_CONVERSATION_ID, request.spec.session_id)
    return translate.request(request.spec, call, request_id, streamed)


@dataclass
class _Told:
    """A receipt to fill in, and the same as a message where the answer has it already."""

    receipt: Receipt
    message: event_pb2.Receipt | None = None


@contextmanager
def _telling(asked: Request, context: Any) -> Iterator[_Told]:
    """Gives a receipt to fill in, and tells it in the trailing metadata however the call ends."""
    told = _Told(Receipt(asked.request_id, asked.model))
    try:
        yield told
    finally:
        context.set_trailing_metadata(trailers(told.receipt, told.message))


def _item_error(error: MillraceError) -> pb2.ItemError:
    full = status.to_proto(error)
    return pb2.ItemError(code=full.code, message=full.message, details=full.details)


def _capabilities(model: Model) -> list[model_pb2.ModelCapability]:
    if model.kind == "embedding":
        return [model_pb2.MODEL_CAPABILITY_EMBEDDING]
    declared = [number for name, number in CAPABILITIES.items() if name in model.abilities]
    return [model_pb2.MODEL_CAPABILITY_CHAT, model_pb2.MODEL_CAPABILITY_COMPLETION, *declared]
