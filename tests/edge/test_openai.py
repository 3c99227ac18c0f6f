"""/v1/completions, /v1/embeddings, /v1/moderations and /v1/models."""

from __future__ import annotations

import base64
import json
from array import array

import msgspec
import pytest

from millrace.inference.v1 import model_pb2
from services.edge.openai.completion_request import REFUSED, CompletionRequest
from services.edge.openai.embeddings import EmbeddingRequest
from services.edge.openai.models import model_card
from services.edge.openai.moderations import CATEGORIES, ModerationRequest
from tests.fakes.openai_wire import SCHEMAS, events_of, fields_of


async def test_completion_follows_openai_schema(edge, inference, openai_schema):
    """A raw prompt is passed on as it stands, with OpenAI's default of 16 tokens."""
    answer = await edge.post("/v1/completions", {"model": "echo", "prompt": "to be", "logprobs": 1})
    body = answer.json()

    openai_schema("CreateCompletionResponse", body)
    assert body["choices"][0]["text"] == "echo: to be"
    assert body["millrace"]["attempts"][0]["target"] == "fake-1"
    assert body["choices"][0]["logprobs"]["text_offset"] == [0, 5, 8]
    assert inference.specs[-1].raw_prompt == "to be"
    assert inference.specs[-1].sampling.max_tokens == 16


async def test_several_prompts_are_one_batch(edge, openai_schema):
    """Choices of prompt i have the indexes from i * n on; usage is added up, and so is what the headers tell."""
    answer = await edge.post("/v1/completions", {"model": "echo", "prompt": ["a", "b"], "n": 2})
    body, headers = answer.json(), answer.headers

    openai_schema("CreateCompletionResponse", body)
    assert [(c["index"], c["text"]) for c in body["choices"]] == [
        (0, "echo: a"),
        (1, "echo: a"),
        (2, "echo: b"),
        (3, "echo: b"),
    ]
    assert body["usage"]["total_tokens"] == 18
    assert (headers["x-millrace-attempts"], headers["x-millrace-cost-usd"]) == ("2", "0.002468")
    assert (headers["x-millrace-prompt-tokens"], headers["x-millrace-completion-tokens"]) == ("10", "8")
    assert "millrace" not in body  # which is one answer's


async def test_one_bad_prompt_fails_the_request_by_name(edge):
    """The prompt that failed is named."""
    answer = await edge.post("/v1/completions", {"model": "echo", "prompt": ["a", "fail"]})

    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "prompt[1]")


async def test_completion_stream(edge, openai_schema):
    """Chunks validate as completions, the text adds up, usage comes last."""
    body = {"model": "echo", "prompt": "to be", "stream": True, "stream_options": {"include_usage": True}}
    answer = await edge.post("/v1/completions", body)
    chunks = events_of(answer.text)

    for chunk in chunks:
        openai_schema("CreateCompletionResponse", _whole(chunk))
    assert "".join(c["choices"][0]["text"] for c in chunks if c["choices"]) == "echo: to be"
    assert chunks[-1]["usage"]["total_tokens"] == 9
    assert answer.text.endswith("data: [DONE]\n\n")


def _whole(chunk):
    """OpenAI's schema of a chunk is that of a whole answer, whose finish_reason and usage are never null."""
    choices = [{**choice, "finish_reason": choice["finish_reason"] or "stop"} for choice in chunk["choices"]]
    usage = chunk["usage"] or {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
    return {**chunk, "choices": choices, "usage": usage}


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"prompt": [1, 2]}, "prompt[0]"),
        ({"prompt": [[1, 2]]}, "prompt[0]"),
        ({"prompt": []}, "prompt"),
        ({"prompt": "x", "echo": True}, "echo"),
        ({"prompt": "x", "suffix": "y"}, "suffix"),
        ({"prompt": "x", "best_of": 3}, "best_of"),
        ({"prompt": "x", "logprobs": 6}, "logprobs"),
    ],
)
async def test_completion_refusals(edge, fields, param):
    """Token ids, echo, suffix and best_of are refused by name."""
    answer = await edge.post("/v1/completions", {"model": "echo", **fields})

    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)


async def test_embeddings_as_numbers(edge, openai_schema):
    """Vectors come as numbers by default, in the order of the input."""
    answer = await edge.post("/v1/embeddings", {"model": "echo", "input": ["a", "bcd"]})
    body = answer.json()

    openai_schema("CreateEmbeddingResponse", body)
    assert [item["embedding"] for item in body["data"]] == [[1.0, 0.5, -1.0], [3.0, 0.5, -1.0]]
    assert body["millrace"]["attempts"][0]["outcome"] == "ok"
    assert answer.headers["x-millrace-target"] == body["millrace"]["target"]


async def test_tokens_that_were_counted_here_are_marked(edge):
    """A count that is not the upstream's own says so."""
    asked = {"messages": [{"role": "user", "content": "hi"}]}
    told, counted = [
        (await edge.post("/v1/chat/completions", {"model": model, **asked})).json()["millrace"]
        for model in ("echo", "uncounted")
    ]

    assert "usage_estimated" not in told
    assert counted["usage_estimated"] is True


async def test_embeddings_as_base64(edge):
    """base64 holds little-endian 32-bit floats; dimensions shorten the vector."""
    asked = {"model": "echo", "input": "abc", "encoding_format": "base64", "dimensions": 2}
    body = (await edge.post("/v1/embeddings", asked)).json()

    assert list(array("f", base64.b64decode(body["data"][0]["embedding"]))) == [3.0, 0.5]


@pytest.mark.parametrize("bad", [[1, 2], [[1, 2]], [], "", [""], None])
async def test_embedding_refusals(edge, bad):
    """Token ids and empty input are refused by name."""
    answer = await edge.post("/v1/embeddings", {"model": "echo", "input": bad})

    assert answer.status_code == 400
    assert answer.json()["error"]["param"].startswith("input")


async def test_moderation_has_all_categories(edge, openai_schema):
    """Every category of OpenAI's is in the answer, under its own name, with its score and input types."""
    body = (await edge.post("/v1/moderations", {"input": ["all good", "pure hate"]})).json()
    calm, flagged = body["results"]

    openai_schema("CreateModerationResponse", body)
    assert (calm["flagged"], flagged["flagged"], flagged["categories"]["hate"]) == (False, True, True)
    assert flagged["category_scores"]["hate"] == 0.9
    assert set(flagged["categories"]) == set(flagged["category_applied_input_types"]) == set(CATEGORIES)


async def test_moderation_parts_are_one_input(edge):
    """A list of parts is one input; pictures are refused."""
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "hate"}]
    picture = [{"type": "image_url", "image_url": {"url": "https://x.test/a.png"}}]

    assert len((await edge.post("/v1/moderations", {"input": parts})).json()["results"]) == 1
    assert (await edge.post("/v1/moderations", {"input": picture})).json()["error"]["param"] == "input[0].type"


async def test_models(edge, openai_schema):
    """The list and each of its models validate."""
    body = (await edge.get("/v1/models")).json()

    openai_schema("ListModelsResponse", body)
    assert "org/model-with/slashes" in [model["id"] for model in body["data"]]
    assert not any("loaded_share" in model for model in body["data"])


def test_a_model_that_is_loading_says_how_far_it_is():
    """Its state and the part of its weights that has been read, none of which may be left out."""
    loading = model_pb2.Model(name="m", state=model_pb2.MODEL_STATE_LOADING, loaded_share=0.0)

    card = msgspec.to_builtins(model_card(loading))

    assert (card["state"], card["loaded_share"]) == ("loading", 0.0)


@pytest.mark.parametrize("path", ["/v1/models/org/model-with/slashes", "/v1/models/org%2Fmodel-with%2Fslashes"])
async def test_model_ids_may_have_slashes(edge, openai_schema, path):
    """An id with slashes is found, escaped or not."""
    body = (await edge.get(path)).json()

    openai_schema("Model", body)
    assert body["id"] == "org/model-with/slashes"


async def test_unknown_model_is_404(edge):
    """A model that is not there is model_not_found."""
    answer = await edge.get("/v1/models/nothing")

    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["param"]) == (404, "model_not_found", "model")


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/embeddings", {"model": "embed", "input": [[101, 102]]}),
        ("/v1/embeddings", {"model": "embed", "input": [101, 102]}),
        ("/v1/completions", {"model": "gpt", "prompt": [101, 102]}),
    ],
)
async def test_token_ids_are_refused_with_what_to_do(edge, path, body):
    """Clients that send them by default, as LangChain does, can be told not to."""
    error = (await edge.post(path, body)).json()["error"]

    assert error["param"].endswith("[0]")
    assert "Give text: token ids are not taken" in error["message"]


def test_no_field_of_openai_is_forgotten():
    """Each field of OpenAI's schemas is read, or refused with a reason."""
    completion = set(CompletionRequest.__struct_fields__) | REFUSED.keys()

    assert fields_of("CreateCompletionRequest") <= completion
    assert fields_of("CreateEmbeddingRequest") <= set(EmbeddingRequest.__struct_fields__)
    assert fields_of("CreateModerationRequest") <= set(ModerationRequest.__struct_fields__)


def test_categories_are_those_of_the_schema():
    """The categories are exactly the ones that OpenAI's schema requires."""
    schema = json.loads(SCHEMAS.read_text())["components"]["schemas"]["CreateModerationResponse"]
    item = schema["properties"]["results"]["items"]["properties"]

    assert set(item["categories"]["required"]) == set(CATEGORIES)
