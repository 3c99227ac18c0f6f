"""The body and the answer of POST /v1/embeddings."""

from __future__ import annotations

import base64
import sys
from array import array
from typing import Annotated, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from millrace.inference.v1 import inference_service_pb2 as pb
from services.edge.openai import fields
from services.edge.openai.receipt import Receipt, receipt

# LangChain sends token ids unless it is told not to.
HINTS = {"input": "Give text: token ids are not taken (LangChain: check_embedding_ctx_length=False)."}

Text = Annotated[str, Meta(min_length=1)]


class EmbeddingRequest(Struct, forbid_unknown_fields=True):
    """Asks for vectors. Input is text; token ids are not taken."""

    model: fields.ModelName
    input: Text | Annotated[list[Text], Meta(min_length=1, max_length=2048)]
    dimensions: fields.TokenCount | None = None
    encoding_format: Literal["float", "base64"] | None = None
    user: fields.EndUser | None = None


class EmbeddingItem(Struct):
    """A vector, as numbers or as base64 of little-endian 32-bit floats."""

    index: int
    embedding: list[float] | str
    object: Literal["embedding"] = "embedding"


class EmbeddingUsage(Struct):
    """Tokens used."""

    prompt_tokens: int
    total_tokens: int


class EmbeddingList(Struct):
    """The vectors, in the order of the input."""

    data: list[EmbeddingItem]
    model: str
    usage: EmbeddingUsage
    object: Literal["list"] = "list"
    millrace: Receipt | UnsetType = UNSET


def embed_request(body: EmbeddingRequest, request_id: str) -> pb.EmbedRequest:
    """Translates the body."""
    return pb.EmbedRequest(
        request_id=request_id,
        model=body.model,
        texts=[body.input] if isinstance(body.input, str) else body.input,
        dimension_count=body.dimensions,
        end_user_id=body.user or "",
    )


def embedding_list(answer: pb.EmbedResponse, as_base64: bool) -> EmbeddingList:
    """Translates the answer."""
    items = [
        EmbeddingItem(index, _base64(one.values) if as_base64 else list(one.values))
        for index, one in enumerate(answer.embeddings)
    ]
    tokens = answer.usage.prompt_token_count
    done = receipt(answer.receipt, "") if answer.HasField("receipt") else UNSET
    return EmbeddingList(items, answer.model, EmbeddingUsage(tokens, tokens), millrace=done)


def _base64(values: object) -> str:
    floats = array("f", values)  # type: ignore[call-overload]
    if sys.byteorder == "big":
        floats.byteswap()
    return base64.b64encode(floats.tobytes()).decode()
