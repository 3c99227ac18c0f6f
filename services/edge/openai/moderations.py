"""The body and the answer of POST /v1/moderations."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

from millrace.inference.v1 import inference_service_pb2 as pb
from services.edge.openai import fields
from services.edge.openai.chat_request import TextPart

# OpenAI's categories, in the order of its schema.
CATEGORIES = (
    "harassment",
    "harassment/threatening",
    "hate",
    "hate/threatening",
    "illicit",
    "illicit/violent",
    "self-harm",
    "self-harm/instructions",
    "self-harm/intent",
    "sexual",
    "sexual/minors",
    "violence",
    "violence/graphic",
)


class ModerationRequest(Struct, forbid_unknown_fields=True):
    """Asks for a judgement of texts. A list of parts is one input; `model` is accepted and does not choose anything."""

    input: str | Annotated[list[str | TextPart], Meta(min_length=1, max_length=128)]
    model: fields.ModelName | None = None


def _by_category(name: str, kind: type, doc: str) -> type[Struct]:
    """A struct with one field per category."""
    named = [(category.replace("/", "_").replace("-", "_"), kind) for category in CATEGORIES]
    renamed = {field: category for (field, _), category in zip(named, CATEGORIES, strict=True)}
    return msgspec.defstruct(name, named, rename=renamed, namespace={"__doc__": doc}, module=__name__)


Flags = _by_category("Flags", bool, "Whether each category is flagged.")
Scores = _by_category("Scores", float, "Certainty per category, 0 to 1.")
InputTypes = _by_category("InputTypes", list[Literal["text"]], "Kinds of input that each category was judged on.")


class ModerationItem(Struct):
    """The judgement of one input."""

    flagged: bool
    categories: Flags  # type: ignore[valid-type]
    category_scores: Scores  # type: ignore[valid-type]
    category_applied_input_types: InputTypes  # type: ignore[valid-type]


class Moderation(Struct):
    """The judgements, in the order of the input."""

    id: str
    model: str
    results: list[ModerationItem]


def texts_of(body: ModerationRequest) -> list[str]:
    """The texts to judge: one per string, and one for all parts together."""
    if isinstance(body.input, str):
        return [body.input]
    parts = [item.text for item in body.input if isinstance(item, TextPart)]
    strings = [item for item in body.input if isinstance(item, str)]
    return strings + (["\n".join(parts)] if parts else [])


def moderation(answer: pb.ModerateResponse, request_id: str) -> Moderation:
    """Translates the answer."""
    return Moderation(f"modr-{request_id}", answer.model, [_item(result) for result in answer.results])


def _item(result: pb.ModerationResult) -> ModerationItem:
    found = {category.name: category for category in result.categories}
    judged = [found.get(name) or pb.ModerationCategory(name=name) for name in CATEGORIES]
    return ModerationItem(
        flagged=result.flagged,
        categories=Flags(*(category.flagged for category in judged)),
        category_scores=Scores(*(category.score for category in judged)),
        category_applied_input_types=InputTypes(*(["text"] for _ in CATEGORIES)),
    )
