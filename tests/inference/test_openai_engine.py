"""The openai engine against an upstream on a real socket."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing

import pytest

from kit.errors import Code, MillraceError
from services.inference.engines.openai_engine import OpenAIEngine
from services.inference.generation import (
    ChoiceFinished,
    Delta,
    EngineCompleted,
    EngineEvent,
    FinishReason,
    Message,
    Prompt,
    Role,
    Sampling,
    TextPart,
    Usage,
)
from services.inference.routing.catalog import Upstream
from tests.fakes.openai_upstream import OpenAIUpstream, Reply
from tests.inference.suite import only_tasks, tasks_now

HANG_UP_S = 0.1


@pytest.fixture
def streamed() -> bool:
    """Whether the upstream streams; tests of both kinds say so."""
    return True


@pytest.fixture
async def engine(upstream: OpenAIUpstream, streamed: bool) -> AsyncIterator[OpenAIEngine]:
    """The engine of the fake upstream."""
    made = OpenAIEngine("fake", _upstream(upstream, streams=streamed), "secret-key")
    await made.warm()
    yield made
    await made.close()


def _upstream(upstream: OpenAIUpstream, **fields: object) -> Upstream:
    return Upstream.model_validate({"base_url": upstream.url, **fields})


def chat(model: str = "gpt", **sampling: object) -> Prompt:
    messages = (Message(Role.USER, (TextPart("hi"),)),)
    return Prompt(model, messages=messages, sampling=Sampling(**sampling))  # type: ignore[arg-type]


async def answer(engine: OpenAIEngine, prompt: Prompt) -> list[EngineEvent]:
    return [event async for batch in engine.generate(prompt, None) for event in batch]


async def failed(engine: OpenAIEngine, prompt: Prompt) -> tuple[list[EngineEvent], MillraceError]:
    """What came before the failure, and the failure."""
    seen: list[EngineEvent] = []
    try:
        async for batch in engine.generate(prompt, None):
            seen += batch
    except MillraceError as error:
        return seen, error
    raise AssertionError(f"it succeeded: {seen}")


def text(events: Sequence[EngineEvent], index: int = 0) -> str:
    return "".join(event.text for event in events if isinstance(event, Delta) and event.choice_index == index)


@pytest.mark.parametrize("streamed", [True, False])
async def test_an_answer_is_complete(engine: OpenAIEngine, upstream: OpenAIUpstream, streamed: bool) -> None:
    """Text, end, usage, the upstream's own model name and its fingerprint arrive, streamed or whole."""
    events = await answer(engine, chat())

    assert text(events) == "Hello, world!"
    assert events[-2] == ChoiceFinished(0, FinishReason.STOP)
    assert events[-1] == EngineCompleted(Usage(11, 4, 3), "gpt-0613", "fp_1")
    assert upstream.asked[0].body.get("stream", False) is engine.streams is streamed


@pytest.mark.parametrize("streamed", [True, False])
async def test_several_choices_are_kept_apart(engine: OpenAIEngine) -> None:
    """Each of n choices has its own text and its own end."""
    events = await answer(engine, chat(n=3))

    assert [text(events, index) for index in range(3)] == ["Hello, world!"] * 3
    assert sorted(e.choice_index for e in events if isinstance(e, ChoiceFinished)) == [0, 1, 2]


@pytest.mark.parametrize("streamed", [True, False])
async def test_tool_calls_refusals_reasoning_and_logprobs(engine: OpenAIEngine, upstream: OpenAIUpstream) -> None:
    """All that a delta can carry is carried."""
    upstream.replies["tools"] = Reply(
        calls=(("c1", "look", ('{"a":', "1}")), ("c2", "stop", ())), finish="tool_calls", reasoning=("Let", " me")
    )
    upstream.replies["no"] = Reply(words=(), refusal=("I ", "won't"))
    tools = [e for e in await answer(engine, chat("tools")) if isinstance(e, Delta)]
    refused = [e for e in await answer(engine, chat("no")) if isinstance(e, Delta)]
    likely = await answer(engine, chat(logprobs=True, top_logprobs=1))
    calls = [call for delta in tools for call in delta.tool_calls]

    assert "".join(delta.reasoning for delta in tools) == "Let me"
    assert [(c.index, c.id, c.name) for c in calls if c.id] == [(0, "c1", "look"), (1, "c2", "stop")]
    assert "".join(c.arguments_json for c in calls if c.index == 0) == '{"a":1}'
    assert "".join(delta.refusal for delta in refused) == "I won't"
    tokens = [one for e in likely if isinstance(e, Delta) for one in e.logprobs]
    assert [one.token for one in tokens] == ["Hello", ",", " world", "!"]
    assert (tokens[0].logprob, tokens[0].token_bytes, tokens[0].top[0].token) == (-0.25, b"Hello", "other")


@pytest.mark.parametrize("streamed", [True, False])
async def test_raw_prompts_use_completions(engine: OpenAIEngine, upstream: OpenAIUpstream) -> None:
    """Text without a template goes to the endpoint that takes it, streamed and whole."""
    events = await answer(engine, Prompt("gpt", raw_prompt="Once"))

    assert text(events) == "Hello, world!"
    assert [(asked.path, asked.body["prompt"]) for asked in upstream.asked] == [("/v1/completions", "Once")]


@pytest.mark.parametrize(
    "framing",
    [{"newline": "\r\n"}, {"newline": "\r"}, {"comments": True}, {"segment_bytes": 1}],
    ids=["crlf", "cr", "comments", "bytewise"],
)
async def test_framing_does_not_matter(
    engine: OpenAIEngine, upstream: OpenAIUpstream, framing: dict[str, object]
) -> None:
    """Line ends, comment lines and characters split over segments change nothing."""
    upstream.replies["gpt"] = Reply(words=("Grüße", " 日本", " 🎉"), **framing)  # type: ignore[arg-type]

    assert text(await answer(engine, chat())) == "Grüße 日本 🎉"


@pytest.mark.parametrize("streamed", [True, False])
async def test_missing_usage_is_estimated_and_says_so(engine: OpenAIEngine, upstream: OpenAIUpstream) -> None:
    """An upstream that counts nothing still has its answer settled, marked as an estimate, streamed or whole."""
    upstream.replies["gpt"] = Reply(usage=False, words=("four char", "s a token"))
    done = (await answer(engine, chat()))[-1]

    assert isinstance(done, EngineCompleted)
    assert done.usage.estimated
    assert done.usage.prompt_token_count > 0
    assert 2 <= done.usage.completion_token_count <= 5


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (Reply(cut_after=0), "UPSTREAM_TRUNCATED"),
        (Reply(cut_after=2), "UPSTREAM_TRUNCATED"),
        (Reply(finish=None), "UPSTREAM_TRUNCATED"),
        (Reply(done=False), "UPSTREAM_TRUNCATED"),
        (Reply(finish="because"), "UPSTREAM_MALFORMED"),
        (Reply(fault_after=2), "UPSTREAM_ERROR"),
        (Reply(fault_after=0), "UPSTREAM_ERROR"),
        (Reply(fault_after=1, fault='{"choices": [{"delta"'), "UPSTREAM_MALFORMED"),
        (Reply(fault_after=1, fault='{"choices": 7}'), "UPSTREAM_MALFORMED"),
        (Reply(fault_after=1, fault='{"choices": [{"index": 5, "delta": {"content": "x"}}]}'), "UPSTREAM_MALFORMED"),
        (Reply(content_type="application/json"), "UPSTREAM_MALFORMED"),
        (Reply(cut_after=-1), "UPSTREAM_DISCONNECTED"),
    ],
    ids=[
        "cut at once", "cut", "no finish", "no DONE", "odd finish", "error in-band", "error first", "bad JSON",
        "bad shape", "bad choice", "content type", "no answer",
    ],
)  # fmt: skip
async def test_a_broken_stream_is_never_an_answer(
    engine: OpenAIEngine, upstream: OpenAIUpstream, reply: Reply, reason: str
) -> None:
    """Whatever is missing or wrong, the stream fails as UNAVAILABLE and is never complete."""
    upstream.replies["gpt"] = reply
    seen, error = await failed(engine, chat())

    assert (error.code, error.reason) == (Code.UNAVAILABLE, reason)
    assert not any(isinstance(event, EngineCompleted) for event in seen)


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (Reply(finish=None), "UPSTREAM_TRUNCATED"),
        (Reply(cut_after=1), "UPSTREAM_TRUNCATED"),
        (Reply(cut_after=0), "UPSTREAM_DISCONNECTED"),
        (Reply(body=b'{"choices": ['), "UPSTREAM_MALFORMED"),
        (Reply(body=b'{"choices": []}'), "UPSTREAM_TRUNCATED"),
        (Reply(body=b'{"error": {"message": "no"}}'), "UPSTREAM_ERROR"),
        (Reply(body=b"\xff\xfe"), "UPSTREAM_MALFORMED"),
        (Reply(content_type="text/html"), "UPSTREAM_MALFORMED"),
    ],
    ids=["no finish", "cut", "no answer", "bad JSON", "no choices", "error in-band", "bad UTF-8", "content type"],
)
@pytest.mark.parametrize("streamed", [False])
async def test_a_broken_whole_answer_is_never_an_answer(
    engine: OpenAIEngine, upstream: OpenAIUpstream, reply: Reply, reason: str
) -> None:
    """The same holds for an answer in one piece."""
    upstream.replies["gpt"] = reply
    seen, error = await failed(engine, chat())

    assert (seen, error.code, error.reason) == ([], Code.UNAVAILABLE, reason)


async def test_an_error_that_comes_in_pieces_is_read_whole(engine: OpenAIEngine, upstream: OpenAIUpstream) -> None:
    """The envelope of a refusal may be spread over segments; its code and message are still found."""
    error = {"message": "too long", "type": "invalid_request_error", "param": None, "code": "context_length_exceeded"}
    upstream.replies["gpt"] = Reply(status=400, error=error, segment_bytes=8)
    _, refused = await failed(engine, chat())

    assert (refused.code, refused.reason) == (Code.INVALID_ARGUMENT, "CONTEXT_LENGTH_EXCEEDED")
    assert "too long" in refused.message


async def test_an_upstream_that_is_not_there(engine: OpenAIEngine, upstream: OpenAIUpstream) -> None:
    """A refused connection is UNAVAILABLE and names the upstream."""
    await upstream.stop()
    _, error = await failed(engine, chat())

    assert (error.code, error.reason) == (Code.UNAVAILABLE, "UPSTREAM_UNREACHABLE")
    assert "fake" in error.message


@pytest.mark.parametrize("streamed", [True, False])
@pytest.mark.parametrize("after", [-1, 0, 2])
async def test_cancelling_hangs_up_at_once(
    engine: OpenAIEngine, upstream: OpenAIUpstream, streamed: bool, after: int
) -> None:
    """The upstream sees within 100 ms that nobody listens, before its headers, before its first token and later."""
    upstream.replies["gpt"] = Reply(stall_after=after if streamed else 0)
    before = tasks_now()
    work = asyncio.create_task(answer(engine, chat()))
    asked = await upstream.next()
    await asked.began.wait()
    work.cancel()
    async with asyncio.timeout(HANG_UP_S):
        await asked.hung_up.wait()
    await asyncio.wait({work})

    assert work.cancelled()
    await only_tasks(before)


async def test_closing_the_stream_hangs_up_at_once(engine: OpenAIEngine, upstream: OpenAIUpstream) -> None:
    """A reader that has had enough ends the upstream's work."""
    upstream.replies["gpt"] = Reply(stall_after=1)
    async with aclosing(engine.generate(chat(), None)) as batches:
        await anext(batches)
    async with asyncio.timeout(HANG_UP_S):
        await (await upstream.next()).hung_up.wait()


@pytest.mark.parametrize("streamed", [True, False])
async def test_connections_are_used_again(engine: OpenAIEngine, upstream: OpenAIUpstream) -> None:
    """One request after the other needs one connection."""
    for _ in range(3):
        before = tasks_now()
        await answer(engine, chat())
        await only_tasks(before)  # what drains the end of the body

    assert upstream.connection_count == 1


async def test_headers(upstream: OpenAIUpstream) -> None:
    """Key, organization, project and the operator's own headers go with each request; without a key there is none."""
    full = _upstream(upstream, organization="org-1", project="proj-1", headers={"x-team": "blue"})
    for made in (OpenAIEngine("fake", full, "secret-key"), OpenAIEngine("fake", _upstream(upstream), None)):
        await made.warm()
        await answer(made, chat())
        await made.close()
    with_key, without = (asked.headers for asked in upstream.asked)

    assert with_key["authorization"] == "Bearer secret-key"
    assert with_key["openai-organization"] == "org-1"
    assert with_key["openai-project"] == "proj-1"
    assert with_key["x-team"] == "blue"
    assert "authorization" not in without


async def test_embeddings_come_in_the_order_of_the_texts(engine: OpenAIEngine, upstream: OpenAIUpstream) -> None:
    """The upstream may order them as it likes."""
    vectors, usage = await engine.embed("v", ["a", "abc"], 2, None)

    assert vectors == [[1.0, 0.5], [3.0, 0.5]]
    assert usage == Usage(2)
    assert upstream.asked[0].body == {
        "model": "v", "input": ["a", "abc"], "encoding_format": "float", "dimensions": 2,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (Reply(body=b'{"data": []}'), "UPSTREAM_MALFORMED"),
        (Reply(body=b"{"), "UPSTREAM_MALFORMED"),
        (Reply(body=b'{"data": [{"embedding": [], "index": 0}]}'), "UPSTREAM_MALFORMED"),
        (Reply(cut_after=0), "UPSTREAM_TRUNCATED"),
        (Reply(status=503), "UPSTREAM_INTERNAL_SERVER"),
    ],
    ids=["too few", "bad JSON", "of no length", "cut", "down"],
)
async def test_broken_embeddings(engine: OpenAIEngine, upstream: OpenAIUpstream, reply: Reply, reason: str) -> None:
    """Fewer vectors than texts, or half an answer, is a failure."""
    upstream.replies["v"] = reply
    with pytest.raises(MillraceError) as caught:
        await engine.embed("v", ["a"], None, None)

    assert caught.value.reason == reason


async def test_vectors_of_different_lengths_are_no_answer(engine: OpenAIEngine, upstream: OpenAIUpstream) -> None:
    """They cannot be of one model."""
    ragged = b'{"data": [{"embedding": [1], "index": 0}, {"embedding": [1, 2], "index": 1}]}'
    upstream.replies["v"] = Reply(body=ragged)
    with pytest.raises(MillraceError) as caught:
        await engine.embed("v", ["a", "b"], None, None)

    assert caught.value.reason == "UPSTREAM_MALFORMED"


async def test_embeddings_keep_to_the_deadline(engine: OpenAIEngine) -> None:
    """A deadline that is over is DEADLINE_EXCEEDED."""
    with pytest.raises(MillraceError) as caught:
        await engine.embed("v", ["a"], None, time.monotonic())

    assert caught.value.code is Code.DEADLINE_EXCEEDED


async def test_tokens_cannot_be_counted(engine: OpenAIEngine) -> None:
    """The API has no way to ask, and says so."""
    with pytest.raises(MillraceError) as caught:
        await engine.count_tokens(chat())

    assert (caught.value.code, caught.value.reason) == (Code.UNIMPLEMENTED, "COUNT_TOKENS_UNSUPPORTED")
