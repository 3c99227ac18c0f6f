"""What fields of the contract are called in JSON bodies."""

from __future__ import annotations

import pytest

from services.edge.field_names import ASKED, param_of

CHAT, COMPLETION, RESPONSE = "/v1/chat/completions", "/v1/completions", "/v1/responses"


@pytest.mark.parametrize(
    ("field", "param"),
    [
        ("spec.model", "model"),
        ("spec.sampling.max_tokens", "max_tokens"),
        ("specs[3].sampling.n", "n"),
        ("spec.output_format.json_schema.schema_json", "response_format.json_schema.schema"),
        ("spec.tools[0].parameters_json", "tools[0].function.parameters"),
        ("spec.tools[0].name", "tools[0].function.name"),
        ("spec.end_user_id", "user"),
        ("texts[5]", "input[5]"),
        ("dimension_count", "dimensions"),
        ("request_id", "request_id"),
        ("safety.profile", "X-Millrace-Safety-Profile"),
        ("page_token", "after"),
        ("spec", None),
    ],
)
def test_fields_have_the_names_of_the_body(field, param):
    """The contract's names come out as those that the caller wrote."""
    assert param_of(field, CHAT) == param


@pytest.mark.parametrize(
    ("field", "param"),
    [
        ("spec.input", "messages"),
        ("spec.conversation", "messages"),
        ("spec.conversation.messages", "messages"),
        ("spec.conversation.messages[1].role", "messages[1].role"),
        ("spec.conversation.messages[2].parts[1].image.url", "messages[2].content[1].image_url.url"),
        ("spec.conversation.messages[0].parts[0].audio.data", "messages[0].content[0].input_audio.data"),
        ("spec.conversation.messages[0].parts[0].file.data", "messages[0].content[0].file.file_data"),
    ],
)
def test_a_chat_is_asked_with_messages(field, param):
    """As OpenAI calls them, with the place within them where it is known."""
    assert param_of(field, CHAT) == param


@pytest.mark.parametrize(
    ("route", "field", "param"),
    [
        (COMPLETION, "spec.input", "prompt"),
        (COMPLETION, "spec.raw_prompt", "prompt"),
        (COMPLETION, "specs[3].raw_prompt", "prompt[3]"),
        (COMPLETION, "specs[3].input", "prompt[3]"),
        (RESPONSE, "spec.input", "input"),
        (RESPONSE, "spec.conversation.messages[2].parts[1]", "input"),
        ("/chat", "spec.conversation.messages[0].parts[0]", "message"),
        ("/generate", "specs[1].input", "prompts[1]"),
        (RESPONSE, "items[0].generation.sampling.top_p", "top_p"),
        (RESPONSE, "items[0].generation.metadata", "metadata"),
        (RESPONSE, "items[0].generation.conversation.messages[2]", "input"),
        (RESPONSE, "items[0].attachment", "input"),
        ("/chat-async", "items[0].generation.conversation.messages[0]", "message"),
        ("/chat-async", "items[0].label", "session_id"),
        ("/v1/files", "ttl", "expires_after[seconds]"),
        ("/batch-process", "specs[1].conversation.messages[0]", "items[1].message"),
    ],
)
def test_other_bodies_call_it_otherwise(route, field, param):
    """Their own word for all of it: there are no messages in them to point at."""
    assert param_of(field, route) == param


def test_a_name_that_only_begins_alike_is_its_own():
    """Fields whose name goes on are no part of what the model is asked with."""
    assert param_of("spec.input_mode", CHAT) == "input_mode"


ASKS = {
    CHAT: {"messages": [{"role": "user", "content": "too-long"}]},
    COMPLETION: {"prompt": "too-long"},
    RESPONSE: {"input": "too-long", "store": False},
    "/chat": {"message": "too-long"},
    "/chat/smart": {"message": "too-long"},
    "/chat/safe": {"message": "too-long"},
    "/chat/limited": {"message": "too-long"},
    "/summarize": {"text": "too-long" + " text" * 20},
    "/generate": {"prompts": ["too-long"]},
}
STREAMED = ("/v1/chat/completions", "/v1/completions", "/v1/responses")


@pytest.mark.parametrize(
    ("route", "more"),
    [*((route, {}) for route in ASKS), *((route, {"stream": True}) for route in STREAMED)],
)
async def test_a_prompt_that_is_too_long_is_named_as_in_the_body(edge, route, more):
    """Every route says it by the field that its caller sent, in a stream's status, too."""
    model = {} if route == "/chat/smart" else {"model": "echo"}
    answer = await edge.post(route, model | ASKS[route] | more, headers={"x-client-id": "c"})
    error, param = answer.json()["error"], ASKED[route].replace("[]", "[0]" if route == "/generate" else "")

    assert (answer.status_code, error["code"], error["param"]) == (400, "context_length_exceeded", param)
    assert error["message"] == f"{param}: longer than the context"


@pytest.mark.parametrize("stream", [False, True])
async def test_one_prompt_of_several_is_told_by_its_number(edge, stream):
    """The place in the list, whether it is answered as a stream or not."""
    answer = await edge.post("/v1/completions", {"model": "echo", "prompt": ["a", "too-long"], "stream": stream})
    told = answer.text.rsplit("data: ", 1)[-1] if stream and answer.status_code == 200 else answer.text

    assert '"param":"prompt[1]"' in told


async def test_an_item_of_a_batch_is_told_by_its_number(edge):
    """The message says which item, as the body has it."""
    body = (await edge.post("/batch-process", {"items": [{"message": "a"}, {"message": "too-long"}]})).json()

    assert body["results"][1]["error"]["message"] == "items[1].message: longer than the context"


async def test_a_response_has_no_messages_to_point_at(edge):
    """A file that is no base64 is told as the input's: the messages of the chat that it is made into are nobody's."""
    part = {"type": "input_file", "file_data": "!", "filename": "x"}
    answer = await edge.post("/v1/responses", {"model": "echo", "input": [{"content": [part], "role": "user"}]})
    error = answer.json()["error"]

    assert (answer.status_code, error["param"], error["message"]) == (400, "input", "input: Not base64.")


async def test_every_route_that_asks_a_model_is_known(edge):
    """The word is a field of that route's body, and no route that has such a field was forgotten."""
    document = (await edge.get("/openapi.json")).json()
    fields = {
        path: _body_fields(document, methods["post"])
        for path, methods in document["paths"].items()
        if "post" in methods
    }
    heads = {route: name.partition("[")[0] for route, name in ASKED.items()}

    assert {route: head for route, head in heads.items() if head not in fields[route]} == {}
    assert {path for path, names in fields.items() if names & (set(heads.values()) - {"text"})} <= set(ASKED)


def _body_fields(document, operation):
    schema = operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema", {})
    return set(
        document["components"]["schemas"].get(schema.get("$ref", "").rsplit("/", 1)[-1], {}).get("properties", ())
    )
