"""The answers of GET /v1/models and GET /v1/models/{model}."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from millrace.inference.v1 import model_pb2

STATES = {
    model_pb2.MODEL_STATE_UNSPECIFIED: "unknown",
    model_pb2.MODEL_STATE_LOADING: "loading",
    model_pb2.MODEL_STATE_READY: "ready",
    model_pb2.MODEL_STATE_UNAVAILABLE: "unavailable",
}


class ModelCard(Struct):
    """A model that callers may name."""

    id: str
    created: int
    owned_by: str
    object: Literal["model"] = "model"


class ModelList(Struct):
    """The catalogue."""

    data: list[ModelCard]
    object: Literal["list"] = "list"


def model_card(model: model_pb2.Model) -> ModelCard:
    """One model in OpenAI's words."""
    return ModelCard(model.name, model.created_time.seconds, model.owner or "millrace")
