"""OpenAI's endpoints: each translates its body, makes its call and translates the answer."""

from __future__ import annotations

from millrace.inference.v1 import event_pb2, generation_pb2
from services.edge import provenance
from services.edge.batch_item import generation_of
from services.edge.controls import apply_controls
from services.edge.exchange import Exchange
from services.edge.inference_client import InferenceClient
from services.edge.openai import answer, spec
from services.edge.openai.chat_answer import ChatCompletion
from services.edge.openai.chat_request import ChatRequest
from services.edge.openai.completion_request import Completion, CompletionRequest
from services.edge.openai.embeddings import EmbeddingList, EmbeddingRequest, embed_request, embedding_list
from services.edge.openai.frames import ChatFrames, CompletionFrames
from services.edge.openai.models import ModelCard, ModelList, model_card
from services.edge.openai.moderations import Moderation, ModerationRequest, moderation, texts_of
from services.edge.openai.prompts import CommonFrames
from services.edge.relay import relay, relay_all


class OpenAIEndpoints:
    """Chat, completions, embeddings, moderations and models.

    Args:
        inference: Answers.
        prompt_concurrency: Prompts of one stream that are answered at once.
    """

    def __init__(self, inference: InferenceClient, prompt_concurrency: int) -> None:
        self._inference, self._prompt_concurrency = inference, prompt_concurrency

    async def chat(self, exchange: Exchange, body: ChatRequest) -> ChatCompletion | None:
        """POST /v1/chat/completions."""
        asked = apply_controls(exchange, spec.chat_spec(body))
        if body.stream:
            include_usage = bool(body.stream_options and body.stream_options.include_usage)
            await relay(exchange, self._inference, asked, ChatFrames(exchange.request_id, include_usage))
            return None
        generation = await self._inference.generate(exchange, asked)
        provenance.set_all(exchange, generation)
        return answer.chat_completion(generation)

    async def complete(self, exchange: Exchange, body: CompletionRequest) -> Completion | None:
        """POST /v1/completions."""
        asked = [apply_controls(exchange, one) for one in spec.completion_specs(body)]
        if body.stream:
            include_usage = bool(body.stream_options and body.stream_options.include_usage)
            frames = CompletionFrames(exchange.request_id, include_usage)
            if len(asked) == 1:
                await relay(exchange, self._inference, asked[0], frames)
            else:
                common, choice_count = CommonFrames(frames), body.n or 1
                parts = [common.of_prompt(index * choice_count) for index in range(len(asked))]
                await relay_all(exchange, self._inference, asked, parts, common.end, self._prompt_concurrency)
            return None
        generations = await self._generate_all(exchange, asked)
        provenance.set_all(exchange, *generations)
        return answer.text_completion(exchange.request_id, generations)

    async def _generate_all(
        self, exchange: Exchange, asked: list[generation_pb2.GenerationSpec]
    ) -> list[event_pb2.Generation]:
        """Generates for every prompt; the first that fails fails the request."""
        if len(asked) == 1:
            return [await self._inference.generate(exchange, asked[0])]
        return [generation_of(item, index) for index, item in enumerate(await self._inference.batch(exchange, asked))]

    async def embed(self, exchange: Exchange, body: EmbeddingRequest) -> EmbeddingList:
        """POST /v1/embeddings."""
        response = await self._inference.embed(exchange, embed_request(body, exchange.request_id))
        provenance.set_all(exchange, response)
        return embedding_list(response, as_base64=body.encoding_format == "base64")

    async def moderate(self, exchange: Exchange, body: ModerationRequest) -> Moderation:
        """POST /v1/moderations."""
        return moderation(await self._inference.moderate(exchange, texts_of(body)), exchange.request_id)

    async def list_models(self, exchange: Exchange, _: None) -> ModelList:
        """GET /v1/models."""
        return ModelList([model_card(model) for model in await self._inference.models(exchange)])

    async def get_model(self, exchange: Exchange, _: None) -> ModelCard:
        """GET /v1/models/{model}; the id may contain slashes."""
        return model_card(await self._inference.model(exchange, exchange.params["model"]))
