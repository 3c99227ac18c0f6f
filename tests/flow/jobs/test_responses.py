"""/v1/responses through stock openai-python: at once, streamed, in the background, taken up again, continued."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import openai
import pytest

from tests.fakes.openai_upstream import OpenAIUpstream, Reply
from tests.fakes.openai_wire import validator
from tests.inference.jobs.parts import eventually

TOOL: Any = {"type": "function", "name": "weather", "parameters": {"type": "object", "properties": {}}, "strict": True}
SCHEMAS = {
    f"response.{kind}": f"Response{name}Event"
    for kind, name in {
        "created": "Created", "queued": "Queued", "in_progress": "InProgress", "completed": "Completed",
        "output_item.added": "OutputItemAdded", "output_item.done": "OutputItemDone",
        "content_part.added": "ContentPartAdded", "content_part.done": "ContentPartDone",
        "output_text.delta": "TextDelta", "output_text.done": "TextDone",
        "function_call_arguments.delta": "FunctionCallArgumentsDelta",
        "function_call_arguments.done": "FunctionCallArgumentsDone",
    }.items()
}  # fmt: skip
CALLS = Reply(words=(), calls=(("call_1", "weather", ('{"city":', '"Bern"}')),), finish="tool_calls")


async def ended(client: openai.AsyncOpenAI, response: Any) -> Any:
    """The response once it has ended."""

    async def look() -> Any:
        now = await client.responses.retrieve(response.id)
        return now if now.status not in ("queued", "in_progress") else None

    return await eventually(look)


def events_of(body: str) -> list[dict[str, Any]]:
    """The data of server-sent events."""
    return [json.loads(line.removeprefix("data: ")) for line in body.splitlines() if line.startswith("data: ")]


async def test_an_answer_at_once(client: openai.AsyncOpenAI, http: httpx.AsyncClient) -> None:
    """As OpenAI's schema has it, with its receipt beside it; nothing of it is kept."""
    body = {
        "model": "gpt",
        "input": "hi",
        "instructions": "Be brief.",
        "metadata": {"k": "v"},
        "temperature": 0,
        "store": False,
    }
    raw = (await http.post("/v1/responses", json=body)).json()
    answer = await client.responses.create(**body)

    validator()("Response", raw)
    assert (answer.output_text, answer.status, answer.instructions) == ("Hello, world!", "completed", "Be brief.")
    assert answer.usage
    assert answer.usage.total_tokens == answer.usage.input_tokens + answer.usage.output_tokens
    assert raw["millrace"]["request_id"] == raw["id"].removeprefix("resp_")
    with pytest.raises(openai.NotFoundError):
        await client.responses.retrieve(answer.id)


async def test_what_upstreams_are_asked(client: openai.AsyncOpenAI, upstream: OpenAIUpstream) -> None:
    """Items become the messages that they stand for; calls that stand together are one message's."""
    call = {"type": "function_call", "call_id": "c1", "name": "weather", "arguments": "{}"}
    items: Any = [
        {"role": "user", "content": [{"type": "input_text", "text": "hi"}]},
        call,
        {**call, "call_id": "c2"},
        {"type": "function_call_output", "call_id": "c1", "output": "sun"},
        {"type": "function_call_output", "call_id": "c2", "output": "rain"},
    ]
    await client.responses.create(
        model="gpt", input=items, instructions="Rules.", tools=[TOOL], max_output_tokens=20,
        tool_choice={"type": "function", "name": "weather"},
        text={"format": {"type": "json_schema", "name": "x", "schema": {"type": "object"}}},
    )  # fmt: skip
    body = (await upstream.next()).body

    assert [message["role"] for message in body["messages"]] == ["system", "user", "assistant", "tool", "tool"]
    assert [one["id"] for one in body["messages"][2]["tool_calls"]] == ["c1", "c2"]
    assert body["tool_choice"] == {"type": "function", "function": {"name": "weather"}}
    assert body["response_format"]["json_schema"]["schema"] == {"type": "object"}
    assert body["tools"][0]["function"]["strict"]


@pytest.mark.parametrize("kept", [False, True])
async def test_a_stream_tells_every_step(client: openai.AsyncOpenAI, http: httpx.AsyncClient, kept: bool) -> None:
    """Numbered without gaps, each event as the schema has it, and the SDK puts it together; kept ones too."""
    body = {"model": "gpt", "input": "hi", "stream": True, "store": kept}
    events = events_of((await http.post("/v1/responses", json=body)).text)
    async with client.responses.stream(model="gpt", input="hi", store=kept) as stream:
        final = await stream.get_final_response()

    for event in events:
        validator()(SCHEMAS[event["type"]], event)
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    kinds = list(dict.fromkeys(event["type"].removeprefix("response.") for event in events))
    queued = ["queued"] if kept else []
    assert kinds == [
        "created", *queued, "in_progress", "output_item.added", "content_part.added", "output_text.delta",
        "output_text.done", "content_part.done", "output_item.done", "completed",
    ]  # fmt: skip
    assert final.output_text == "Hello, world!"


async def test_calls_are_items(client: openai.AsyncOpenAI, http: httpx.AsyncClient, upstream: OpenAIUpstream) -> None:
    """Whole and streamed, with the arguments as the model wrote them."""
    upstream.replies["gpt"] = CALLS
    body = {"model": "gpt", "input": "hi", "tools": [TOOL]}
    whole = await client.responses.create(**body)  # type: ignore[arg-type]
    events = events_of((await http.post("/v1/responses", json={**body, "stream": True})).text)

    for event in events:
        validator()(SCHEMAS[event["type"]], event)
    [call] = whole.output
    assert (call.type, call.name, call.arguments, call.call_id) == (
        "function_call", "weather", '{"city":"Bern"}', "call_1"
    )  # fmt: skip
    assert events[-1]["response"]["output"][0]["arguments"] == call.arguments


async def test_in_the_background(client: openai.AsyncOpenAI, http: httpx.AsyncClient, upstream: OpenAIUpstream) -> None:
    """It is there at once, answers while nobody waits, and can be read until it is forgotten."""
    upstream.replies["gpt"] = Reply(gate_after=0)  # so that it is not done before it was begun, as its maker sees it
    started = await client.responses.create(model="gpt", input="hi", background=True)
    (await upstream.next()).gate.set()
    done = await ended(client, started)
    validator()("Response", (await http.get(f"/v1/responses/{done.id}")).json())
    items = [item async for item in client.responses.input_items.list(done.id)]
    await client.responses.delete(done.id)

    assert started.status in ("queued", "in_progress")
    assert started.background
    assert (done.status, done.output_text, done.id) == ("completed", "Hello, world!", started.id)
    assert items[0].content[0].text == "hi"
    with pytest.raises(openai.NotFoundError):
        await client.responses.retrieve(done.id)


async def test_input_is_listed_in_either_order(client: openai.AsyncOpenAI) -> None:
    """The last item first unless asked otherwise; pages of any size, from any item on, hold each item once."""
    texts = [f"item {number}" for number in range(5)]
    made = await client.responses.create(
        model="gpt", input=[{"role": "user", "content": text} for text in texts], store=True
    )

    async def listed(**how: Any) -> list[str]:
        return [item.content[0].text async for item in client.responses.input_items.list(made.id, **how)]

    first = await client.responses.input_items.list(made.id, limit=2)
    assert first.has_more
    assert await listed(after=first.last_id) == texts[2::-1]
    assert await listed(after=first.last_id, order="asc", limit=1) == texts[4:]
    assert await listed() == await listed(order="desc", limit=2) == texts[::-1]
    assert await listed(order="asc") == await listed(order="asc", limit=3) == texts
    with pytest.raises(openai.BadRequestError, match="after"):
        await listed(after="msg_of_another")


async def test_a_stream_is_taken_up_again(client: openai.AsyncOpenAI, upstream: OpenAIUpstream) -> None:
    """A client that left mid-way gets the rest, and every number stands for the same event."""
    upstream.replies["gpt"] = Reply(words=tuple(f"{n} " for n in range(40)), gate_after=20)
    stream = await client.responses.create(model="gpt", input="hi", background=True, stream=True)
    first = []
    asked = await upstream.next()
    async for event in stream:
        first.append(event)
        if event.type == "response.output_text.delta" and "19" in event.delta:
            break
    await stream.close()
    asked.gate.set()
    identity = first[0].response.id
    rest = [
        event
        async for event in await client.responses.retrieve(
            identity, stream=True, starting_after=first[-1].sequence_number
        )
    ]
    again = [event async for event in await client.responses.retrieve(identity, stream=True)]
    text = "".join(event.delta for event in first + rest if event.type == "response.output_text.delta")

    assert text == "".join(f"{n} " for n in range(40))
    assert [event.sequence_number for event in first + rest] == list(range(len(first) + len(rest)))
    assert [(one.sequence_number, one.type) for one in again] == [(e.sequence_number, e.type) for e in first + rest]


async def test_a_response_can_be_cancelled(client: openai.AsyncOpenAI, upstream: OpenAIUpstream) -> None:
    """The upstream's work ends with it, and the answer says that it has; cancelled again, it stays as it is."""
    upstream.replies["gpt"] = Reply(stall_after=1)
    started = await client.responses.create(model="gpt", input="hi", background=True)
    asked = await upstream.next()
    cancelled = await client.responses.cancel(started.id)
    async with asyncio.timeout(10):
        await asked.hung_up.wait()

    assert cancelled.status == "cancelled"
    assert (await client.responses.cancel(started.id)).status == "cancelled"
    assert (await client.responses.retrieve(started.id)).status == "cancelled"


@pytest.mark.parametrize("stream", [False, True])
async def test_who_leaves_ends_what_it_waited_for(
    http: httpx.AsyncClient, upstream: OpenAIUpstream, stream: bool
) -> None:
    """A kept response that is not in the background ends with its client, and the upstream's work with it."""
    upstream.replies["gpt"] = Reply(stall_after=1)
    asking = asyncio.create_task(http.post("/v1/responses", json={"model": "gpt", "input": "hi", "stream": stream}))
    asked = await upstream.next()
    asking.cancel()
    async with asyncio.timeout(10):
        await asked.hung_up.wait()


async def test_a_conversation_goes_on(client: openai.AsyncOpenAI, upstream: OpenAIUpstream) -> None:
    """A kept response is continued by its id: the model sees all that went before."""
    first = await client.responses.create(model="gpt", input="one")
    second = await client.responses.create(model="gpt", input="two", store=True, previous_response_id=first.id)
    await client.responses.create(model="gpt", input="three", previous_response_id=second.id)
    asked = [await upstream.next(number) for number in (1, 2, 3)]

    assert [message["content"] for message in asked[-1].body["messages"]] == [
        "one", "Hello, world!", "two", "Hello, world!", "three"
    ]  # fmt: skip


async def test_failures_are_told(client: openai.AsyncOpenAI, upstream: OpenAIUpstream) -> None:
    """At once as an error, in the background as a response that failed, and what was cut as incomplete."""
    for background in (False, True):
        with pytest.raises(openai.NotFoundError, match="nothing"):
            await client.responses.create(model="nothing", input="hi", background=background)
    upstream.replies["gpt"] = Reply(status=400)
    failed = await ended(client, await client.responses.create(model="gpt", input="hi", background=True))
    with pytest.raises(openai.NotFoundError, match="response"):
        await client.responses.retrieve("resp_" + "0" * 32)
    upstream.replies["gpt"] = Reply(finish="length")
    cut = await client.responses.create(model="gpt", input="hi")

    assert (failed.status, failed.error.code) == ("failed", "invalid_prompt")
    assert (cut.status, cut.incomplete_details.reason) == ("incomplete", "max_output_tokens")


@pytest.mark.parametrize("stream", [False, True])
async def test_who_waits_hears_of_a_limit_at_once(
    client: openai.AsyncOpenAI, upstream: OpenAIUpstream, stream: bool
) -> None:
    """As a status, before a stream begins; in the background it is tried again until there is room."""
    upstream.replies["gpt"] = Reply(status=429)
    with pytest.raises(openai.RateLimitError):
        await client.with_options(max_retries=0).responses.create(model="gpt", input="hi", stream=stream)
    waiting = await client.responses.create(model="gpt", input="hi", background=True)
    del upstream.replies["gpt"]

    assert (await ended(client, waiting)).status == "completed"


@pytest.mark.parametrize("limits", ["requests_per_minute: 1"])
@pytest.mark.parametrize("stream", [False, True])
async def test_a_kept_answer_has_the_headers_of_any_other(http: httpx.AsyncClient, stream: bool, limits: str) -> None:
    """Where its limits stand and what was done for it, told by answers and by refusals, streamed or not."""
    answers = {
        store: [await http.post("/v1/responses", json={"model": "gpt", "input": "hi", "stream": stream, "store": store},
                                headers={"x-client-id": f"stored-{store}"}) for _ in range(2)]
        for store in (True, False)
    }  # fmt: skip
    names = [
        [{name for name in one.headers if name.startswith(("x-ratelimit", "x-millrace", "retry-after"))} for one in two]
        for two in answers.values()
    ]

    assert [[one.status_code for one in two] for two in answers.values()] == [[200, 429]] * 2
    assert names[0] == names[1]
    assert {"x-ratelimit-remaining", "x-ratelimit-reset-requests", "x-millrace-target"} <= names[0][0]
    assert {"x-ratelimit-remaining", "x-ratelimit-reset-requests", "retry-after"} <= names[0][1]


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"input": []}, "input"),
        ({"input": [{"type": "item_reference", "id": "x"}]}, "input[0].type"),
        ({"input": [{"role": "user"}]}, "input[0]"),
        ({"input": "hi", "tools": [{"type": "web_search"}]}, "tools[0].type"),
        ({"input": "hi", "prompt": {"id": "x"}}, "prompt"),
        ({"input": "hi", "nonsense": 1}, "nonsense"),
        ({"input": "hi", "background": True, "store": False}, "store"),
    ],
)
async def test_bad_bodies_are_refused_by_field(http: httpx.AsyncClient, body: Any, param: str) -> None:
    """Each by the name that it has in the body."""
    answer = await http.post("/v1/responses", json={"model": "gpt", **body})

    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)


@pytest.mark.parametrize("name", ["resp_x", "resp_" + "0" * 32])
async def test_what_is_not_there_is_404(http: httpx.AsyncClient, name: str) -> None:
    """Where it was asked for is named, in the path and in the body."""
    shown = await http.get(f"/v1/responses/{name}")
    before = await http.post("/v1/responses", json={"model": "gpt", "input": "hi", "previous_response_id": name})

    errors = [one.json()["error"] for one in (shown, before)]
    assert [one.status_code for one in (shown, before)] == [404, 404]
    assert [error["code"] for error in errors] == ["response_not_found"] * 2
    assert [error["param"] for error in errors] == ["response_id", "previous_response_id"]


@pytest.mark.parametrize(
    ("field", "value"),
    [("top_p", 0), ("metadata", {str(number): "x" for number in range(200)})],
    ids=["top_p", "metadata"],
)
async def test_what_inference_refuses_is_named_as_the_body_does(
    http: httpx.AsyncClient, field: str, value: object
) -> None:
    """And not as a job's item has it."""
    answer = await http.post("/v1/responses", json={"model": "gpt", "input": "hi", "store": True, field: value})

    assert (answer.status_code, answer.json()["error"]["param"]) == (400, field)
    assert answer.json()["error"]["message"].startswith(f"{field}: ")
