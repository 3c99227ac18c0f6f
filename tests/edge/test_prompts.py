"""Several prompts in one streamed POST /v1/completions."""

from __future__ import annotations

import asyncio
import json

import pytest

from kit.dial import REPLICA_WAITS_S
from tests.fakes.openai_wire import events_of

ASK = {"model": "echo", "prompt": ["to be", "or not"], "stream": True}


async def _post(edge, **fields):
    return await edge.post("/v1/completions", ASK | fields)


def _text(chunks, index):
    return "".join(choice["text"] for chunk in chunks for choice in chunk["choices"] if choice["index"] == index)


async def test_answers_come_in_one_stream(edge):
    """One id, one creation time and one model; each choice ends once, and so does the stream; no usage unasked."""
    answer = await _post(edge, n=2)
    chunks = events_of(answer.text)
    ends = [c for chunk in chunks for c in chunk["choices"] if c["finish_reason"]]

    assert [_text(chunks, index) for index in range(4)] == ["echo: to be"] * 2 + ["echo: or not"] * 2
    assert sorted((end["index"], end["finish_reason"]) for end in ends) == [(index, "stop") for index in range(4)]
    assert len({(chunk["id"], chunk["created"], chunk["model"]) for chunk in chunks}) == 1
    assert (answer.text.count("[DONE]"), answer.text.endswith("data: [DONE]\n\n")) == (1, True)
    assert not any("usage" in chunk for chunk in chunks)


async def test_usage_of_all_comes_last(edge):
    """It is added up; no receipt stands beside it, for a receipt is one answer's."""
    chunks = events_of((await _post(edge, stream_options={"include_usage": True})).text)

    assert [chunk["usage"] for chunk in chunks[:-1]] == [None] * (len(chunks) - 1)
    assert (chunks[-1]["choices"], chunks[-1]["usage"]["total_tokens"], "millrace" in chunks[-1]) == ([], 18, False)


async def test_offsets_are_those_of_each_choice(edge):
    """Log probabilities of one prompt's tokens count from the beginning of its own text."""
    chunks = events_of((await _post(edge, logprobs=0)).text)
    told = [choice for chunk in chunks for choice in chunk["choices"] if choice["logprobs"]]
    offsets = {i: [o for c in told if c["index"] == i for o in c["logprobs"]["text_offset"]] for i in (0, 1)}

    assert offsets == {0: [0, 5, 8], 1: [0, 5, 8]}


async def test_headers_are_those_of_whoever_begins_first(edge):
    """Model, cache, target and limits are known of it when the stream begins, whichever prompt it is."""
    headers = (await _post(edge)).headers

    assert (headers["x-millrace-model"], headers["x-millrace-cache"]) == ("echo", "miss")


async def test_prompts_are_answered_together(edge, inference):
    """Before either is complete, both have begun; each call has a name of its own."""
    async with edge.client.stream("POST", "/v1/completions", json=ASK | {"model": "gate"}) as answer:
        lines = answer.aiter_lines()
        first = await _chunks(lines, 2)
        inference.gate.set()
        rest = [line async for line in lines]

    assert {chunk["choices"][0]["index"] for chunk in first} == {0, 1}
    assert rest[-2:] == ["data: [DONE]", ""]


async def test_no_more_are_answered_at_once_than_set(serve, inference):
    """With one at a time, a prompt is asked when the one before it is complete."""
    edge = await serve(prompt_concurrency=1)
    async with edge.client.stream("POST", "/v1/completions", json=ASK | {"model": "gate"}) as answer:
        lines = answer.aiter_lines()
        await _chunks(lines, 1)
        begun = len(inference.specs)
        inference.gate.set()
        rest = [json.loads(line[6:]) async for line in lines if line.startswith("data: {")]
    indexes = [chunk["choices"][0]["index"] for chunk in rest]

    assert (begun, len(inference.specs)) == (1, 2)
    assert indexes == sorted(indexes)


async def test_one_that_fails_first_is_an_http_error(serve):
    """Nothing was told: the status says what is wrong, and the parameter which prompt it is."""
    edge = await serve(prompt_concurrency=1)
    answer = await _post(edge, prompt=["fail", "to be"])

    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "prompt[0]")


async def test_one_that_fails_later_ends_the_stream(edge, inference):
    """An error event with the prompt's name is the last one, and the other prompt's call is cancelled."""
    ask = ASK | {"model": "stall", "prompt": ["to be", "fail-late"]}
    async with edge.client.stream("POST", "/v1/completions", json=ask) as answer:
        lines = answer.aiter_lines()
        await _chunks(lines, 1)
        inference.gate.set()
        rest = [line async for line in lines if line]
    async with asyncio.timeout(5):
        await inference.cancelled.wait()

    assert [json.loads(line[6:])["error"]["param"] for line in rest] == ["prompt[1]"]


async def test_a_replica_that_is_lost_costs_nothing(edge, inference):
    """The one prompt that was not told of is asked again, while others go on."""
    ask = ASK | {"model": "gate", "prompt": ["to be", "lost"]}
    async with edge.client.stream("POST", "/v1/completions", json=ask) as answer:
        lines = answer.aiter_lines()
        told = await _chunks(lines, 2)
        inference.gate.set()
        told += [json.loads(line[6:]) async for line in lines if line.startswith("data: {")]

    assert [_text(told, index) for index in (0, 1)] == ["echo: to be", "echo: lost"]
    assert inference.lost_count == len(REPLICA_WAITS_S)


@pytest.mark.parametrize("model", ["break", "truncate"])
async def test_a_broken_answer_ends_the_stream(edge, model):
    """As with one prompt: an error event, and no end that looks like a success."""
    text = (await _post(edge, model=model)).text

    assert "error" in events_of(text)[-1]
    assert "[DONE]" not in text


async def _chunks(lines, count):
    """The next chunks of a stream that stays open."""
    chunks = []
    async with asyncio.timeout(10):
        while len(chunks) < count:
            if (line := await anext(lines)).startswith("data: "):
                chunks.append(json.loads(line[6:]))
    return chunks
