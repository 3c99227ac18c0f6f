"""The answers of GET /v1/models and GET /v1/models/{model}."""

from __future__ import annotations

from typing import Literal

from msgspec import UNSET, Struct, UnsetType

from millrace.inference.v1 import model_pb2

STATES = {
    model_pb2.MODEL_STATE_UNSPECIFIED: "unknown",
    model_pb2.MODEL_STATE_LOADING: "loading",
    model_pb2.MODEL_STATE_READY: "ready",
    model_pb2.MODEL_STATE_UNAVAILABLE: "unavailable",
    model_pb2.MODEL_STATE_IDLE: "idle",
}


_PREFIX = "MODEL_CAPABILITY_"


class ModelCard(Struct):
    """A model that callers may name.

    Not OpenAI's: `capabilities`, such as `chat` and `embedding`; `state`; and `loaded_share`, how far it is, 0 to 1,
    while it is being loaded.
    """

    id: str
    created: int
    owned_by: str
    object: Literal["model"] = "model"
    description: str | UnsetType = UNSET
    capabilities: list[str] | UnsetType = UNSET
    state: str = "unknown"
    loaded_share: float | UnsetType = UNSET


class ModelList(Struct):
    """The catalogue."""

    data: list[ModelCard]
    object: Literal["list"] = "list"


def model_card(model: model_pb2.Model) -> ModelCard:
    """One model in OpenAI's words."""
    words = [model_pb2.ModelCapability.Name(one).removeprefix(_PREFIX).lower() for one in model.capabilities]
    return ModelCard(
        model.name,
        model.created_time.seconds,
        model.owner or "millrace",
        description=model.description or UNSET,
        capabilities=words or UNSET,
        state=STATES.get(model.state, "unknown"),
        loaded_share=model.loaded_share if model.HasField("loaded_share") else UNSET,
    )
