"""Files and batches through stock openai-python and plain HTTP, answers checked against OpenAI's schemas."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import openai
import pytest

from services.edge.exchange import Exchange
from services.edge.jobs import batch_file
from tests.fakes.openai_upstream import OpenAIUpstream, Reply
from tests.fakes.openai_wire import validator
from tests.inference.jobs.parts import eventually

CHAT = "/v1/chat/completions"


def line(custom_id: str, url: str = CHAT, **body: Any) -> dict[str, Any]:
    """A request of a batch."""
    body = {"model": "gpt", "messages": [{"role": "user", "content": "hi"}]} | body
    return {"custom_id": custom_id, "method": "POST", "url": url, "body": body}


def jsonl(*lines: Any) -> bytes:
    """Lines as a file."""
    return b"".join(json.dumps(one).encode() + b"\n" for one in lines)


async def start(client: openai.AsyncOpenAI, *lines: Any, endpoint: Any = CHAT, **more: Any) -> Any:
    """A batch of these lines."""
    kept = await client.files.create(file=("in.jsonl", jsonl(*lines)), purpose="batch")
    return await client.batches.create(input_file_id=kept.id, endpoint=endpoint, completion_window="24h", **more)


async def ended(client: openai.AsyncOpenAI, batch: Any) -> Any:
    """The batch once it has ended."""

    async def look() -> Any:
        now = await client.batches.retrieve(batch.id)
        return now if now.status not in ("in_progress", "cancelling") else None

    return await eventually(look)


async def lines_of(client: openai.AsyncOpenAI, file_id: str) -> list[Any]:
    """The lines of a file."""
    return [json.loads(one) for one in (await client.files.content(file_id)).text.splitlines()]


async def test_a_file_comes_back(client: openai.AsyncOpenAI, http: httpx.AsyncClient) -> None:
    """Kept, listed, read byte for byte and forgotten, as OpenAI's schemas have it."""
    data = jsonl(line("a")) * 2_000
    kept = await client.files.create(file=("in.jsonl", data), purpose="batch")
    listed = [one async for one in client.files.list(purpose="batch")]
    raw = (await http.get(f"/v1/files/{kept.id}")).json()
    read = (await client.files.content(kept.id)).content
    gone = await client.files.delete(kept.id)

    validator()("OpenAIFile", raw)
    validator()("ListFilesResponse", (await http.get("/v1/files")).json() | {"first_id": "", "last_id": ""})
    assert (kept.filename, kept.bytes, kept.purpose, kept.status) == ("in.jsonl", len(data), "batch", "processed")
    assert [one.id for one in listed] == [kept.id]
    assert read == data
    assert gone.deleted
    with pytest.raises(openai.NotFoundError):
        await client.files.retrieve(kept.id)


async def test_a_batch_is_answered(client: openai.AsyncOpenAI, http: httpx.AsyncClient) -> None:
    """Each request gets what it would have got by itself, by its own name; those that fail stand in the error file."""
    bad = line("bad-body", nonsense=1)
    batch = await start(
        client, line("a"), line("b", model="any-x"), line("lost", model="nothing"), bad, metadata={"k": "v"}
    )
    done = await ended(client, batch)
    validator()("Batch", (await http.get(f"/v1/batches/{batch.id}")).json())
    answered = {one["custom_id"]: one for one in await lines_of(client, done.output_file_id)}
    failed = {one["custom_id"]: one["response"] for one in await lines_of(client, done.error_file_id)}

    assert (batch.status, batch.metadata, batch.endpoint) == ("in_progress", {"k": "v"}, CHAT)
    assert (done.status, done.request_counts.completed, done.request_counts.failed) == ("completed", 2, 2)
    for one in answered.values():
        validator()("CreateChatCompletionResponse", one["response"]["body"])
    assert {name: one["response"]["body"]["model"] for name, one in answered.items()} == {"a": "gpt", "b": "any-x"}
    assert (failed["lost"]["status_code"], failed["lost"]["body"]["error"]["code"]) == (404, "model_not_found")
    assert (failed["bad-body"]["status_code"], failed["bad-body"]["body"]["error"]["param"]) == (400, "nonsense")
    output = await client.files.retrieve(done.output_file_id)
    assert (output.purpose, output.bytes) == ("batch_output", len((await client.files.content(output.id)).content))


async def test_other_endpoints_are_answered(client: openai.AsyncOpenAI) -> None:
    """Embeddings, completions and responses, with their own bodies."""
    asked = {"custom_id": "e", "method": "POST", "url": "/v1/embeddings", "body": {"model": "vectors", "input": "a"}}
    text = {"custom_id": "t", "method": "POST", "url": "/v1/completions", "body": {"model": "gpt", "prompt": "a"}}
    vectors = await ended(client, await start(client, asked, endpoint="/v1/embeddings"))
    texts = await ended(client, await start(client, text, endpoint="/v1/completions"))
    item = {"custom_id": "r", "method": "POST", "url": "/v1/responses", "body": {"model": "gpt", "input": "hi"}}
    responses = await ended(client, await start(client, item, endpoint="/v1/responses"))
    [vector], [answer], [said] = [await lines_of(client, one.output_file_id) for one in (vectors, texts, responses)]

    validator()("CreateEmbeddingResponse", vector["response"]["body"])
    validator()("CreateCompletionResponse", answer["response"]["body"])
    validator()("Response", said["response"]["body"])
    assert said["response"]["body"]["output"][0]["content"][0]["text"] == "Hello, world!"


async def test_a_batch_can_be_cancelled(client: openai.AsyncOpenAI, upstream: OpenAIUpstream) -> None:
    """What is done stays, the rest says why it was not."""
    upstream.replies["gpt"] = Reply(stall_after=1)
    batch = await start(client, *[line(f"r{number}") for number in range(10)])
    await upstream.next()
    cancelling = await client.batches.cancel(batch.id)
    done = await ended(client, batch)
    failed = await lines_of(client, done.error_file_id)

    assert cancelling.status in ("cancelling", "cancelled")
    assert (done.status, done.output_file_id, len(failed)) == ("cancelled", None, 10)
    assert {one["error"]["code"] for one in failed} == {"batch_cancelled"}


async def test_files_are_listed_in_either_order(client: openai.AsyncOpenAI) -> None:
    """The SDK walks over all pages, oldest first where it asks for that."""
    made = [(await client.files.create(file=("in.jsonl", b"x"), purpose="batch")).id for _ in range(3)]

    assert [one.id async for one in client.files.list(limit=2, order="asc")] == made
    assert [one.id async for one in client.files.list(limit=2)] == made[::-1]


async def test_reading_a_large_batch_lets_others_go_on() -> None:
    """What else the process serves has its turn again and again while the lines of a file are read."""
    turn_count = 0

    async def take_turns() -> None:
        nonlocal turn_count
        while True:
            turn_count += 1
            await asyncio.sleep(0)

    async def unused(*_: object) -> None:
        raise AssertionError("nobody reads or writes")

    scope = {"scheme": "http", "method": "POST", "path": "/", "query_string": b"", "headers": []}
    others = asyncio.create_task(take_turns())
    works = await batch_file.works(jsonl(*(line(f"r{n}") for n in range(5_000))), CHAT, Exchange(scope, unused, unused))
    others.cancel()

    assert len(works) == 5_000
    assert turn_count > 2


async def test_batches_are_listed_from_the_newest(client: openai.AsyncOpenAI, http: httpx.AsyncClient) -> None:
    """The SDK walks over all pages."""
    made = [(await start(client, line("a"))).id for _ in range(3)]

    assert [one.id async for one in client.batches.list(limit=2)] == made[::-1]
    validator()("ListBatchesResponse", (await http.get("/v1/batches")).json())


@pytest.mark.parametrize(
    ("lines", "why"),
    [
        ((), "no requests"),
        ((line("a"), "text"), "Line 2"),
        ((line("a"), line("a")), "comes twice"),
        ((line("a", url="/v1/embeddings"),), "endpoint"),
        (({**line("a"), "method": "GET"},), "Line 1: method: Invalid value 'GET'; expected one of POST"),
        (({"custom_id": "a"},), "Line 1: method: This field is required"),
        ((line("a"), line("b\0")), "Line 2: custom_id"),
    ],
)
async def test_a_file_that_is_no_batch_is_refused(client: openai.AsyncOpenAI, lines: Any, why: str) -> None:
    """By its line, before anything of it is begun."""
    with pytest.raises(openai.BadRequestError, match=why) as caught:
        await start(client, *lines)

    assert caught.value.param == "input_file_id"


async def test_uploads_are_checked(http: httpx.AsyncClient) -> None:
    """Each error names the field and what is allowed; a file that is too large is cut off as it comes."""
    form = {"purpose": "batch"}
    answers = [
        await http.post("/v1/files", json={}),
        await http.post("/v1/files", data=form, files={"other": b"x"}),
        await http.post("/v1/files", data={"purpose": "fun"}, files={"file": b"x"}),
        await http.post("/v1/files", data={**form, "expires_after[seconds]": "1"}, files={"file": b"x"}),
        await http.post("/v1/files", data=form, files={"file": b"x" * 310_000}),
        await http.post("/v1/files", content=b"x", headers={"content-type": "multipart/form-data; boundary=a"}),
    ]

    assert [(one.status_code, one.json()["error"]["param"]) for one in answers] == [
        (415, None), (400, "file"), (400, "purpose"), (400, "expires_after[seconds]"), (413, None), (400, None)
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("path", "param"),
    [
        ("files/file-x", "file_id"),
        ("files/file-" + "0" * 32, "file_id"),
        ("files/file-out-" + "0" * 32, "file_id"),
        ("files/x/content", "file_id"),
        ("files?after=file-x", "after"),
        ("batches/batch_x", "batch_id"),
        ("batches/batch_" + "0" * 32, "batch_id"),
        ("batches?after=x", "after"),
    ],
)
async def test_what_is_not_there_is_404(http: httpx.AsyncClient, path: str, param: str) -> None:
    """In the error envelope, with a code of its own and where it was asked for."""
    answer = await http.get(f"/v1/{path}")

    error = answer.json()["error"]
    assert (answer.status_code, error["param"]) == (404, param)
    assert error["code"].endswith("_not_found")


@pytest.mark.parametrize("file_id", ["file-x", "file-" + "0" * 32])
async def test_a_batch_of_a_file_that_is_not_there(http: httpx.AsyncClient, file_id: str) -> None:
    """The field of the body is named."""
    asked = {"input_file_id": file_id, "endpoint": "/v1/chat/completions", "completion_window": "24h"}
    answer = await http.post("/v1/batches", json=asked)

    error = answer.json()["error"]
    assert (answer.status_code, error["param"], error["code"]) == (404, "input_file_id", "file_not_found")
