"""What a caller leaves behind is settled by what was really made for it, at whichever moment it leaves."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from typing import Any

import pytest

from millrace.inference.v1 import inference_service_pb2 as pb
from services.inference.engines.local.job import Answer
from services.inference.ledger.history import Scope
from tests.fakes.openai_upstream import OpenAIUpstream, Reply
from tests.inference.suite import Serve, Suite, failure

LEAVINGS, LOCAL_LEAVINGS = 25, 8
DEADLINE_S = 20.0
LOCAL = "  - {name: local, targets: [{engine: local, model: embedded, price: {prompt: 1, completion: 1}}]}"
WORDS = tuple(f" w{number}" for number in range(60))


async def leave(suite: Suite, model: str, read_count: int, **fields: Any) -> dict[str, Any]:
    """Reads so many words of a stream, hangs up and returns the row that this left."""
    call = suite.start(model, **fields)
    request_id, heard = "", 0
    async for response in call:
        request_id = response.started.request_id or request_id
        heard += response.delta.text.count(" ")
        if heard >= read_count and request_id:
            break
    call.cancel()
    return await row_of(suite, request_id)


async def row_of(suite: Suite, request_id: str) -> dict[str, Any]:
    """The row of a request, as soon as it has ended."""
    give_up_at = time.monotonic() + DEADLINE_S
    while True:
        for row in await suite.inference.books.history.page(Scope(), 5, None):
            if row["request_id"] == request_id:
                return row
        assert time.monotonic() < give_up_at
        await asyncio.sleep(0.005)


async def test_what_had_arrived_of_an_upstream_is_counted(serve: Serve, upstream: OpenAIUpstream) -> None:
    """A token for each piece that was sent before the caller left, and said to be counted."""
    suite, draw = await serve(), random.Random(7)
    for _ in range(LEAVINGS):
        sent = draw.randrange(1, len(WORDS))
        upstream.replies["gpt"] = Reply(WORDS, stall_after=sent)
        row = await leave(suite, "gpt", sent)

        assert (row["outcome"], row["completion_token_count"], row["usage_source"]) == ("cancelled", sent, "counted")
        assert row["prompt_token_count"] > 0
        assert row["cost_micro_usd"] == 2 * row["prompt_token_count"] + 10 * sent
        (tried,) = row["attempts"]
        assert (tried["outcome"], tried["completion_token_count"]) == ("cancelled", sent)


async def test_what_a_local_model_made_is_counted(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """To the last token, those that nobody read and the step in hand included, for several choices, too."""
    made: list[Answer] = []
    add: Callable[..., Any] = Answer.add

    def count(answer: Answer, *arguments: Any) -> Any:
        made.append(answer)
        return add(answer, *arguments)

    monkeypatch.setattr(Answer, "add", count)
    suite, draw = await serve(LOCAL), random.Random(11)
    for number in range(LOCAL_LEAVINGS):
        before = len(made)
        sampling = {"min_tokens": 60, "max_tokens": 60, "n": 1 + number % 2, "seed": number}
        row = await leave(suite, "local", draw.randrange(12), sampling=sampling)

        assert row["completion_token_count"] == len(made) - before
        assert row["usage_source"] == "counted"
        assert row["cost_micro_usd"] == row["prompt_token_count"] + row["completion_token_count"]


async def test_failed_and_overtaken_attempts_are_settled(serve: Serve, upstream: OpenAIUpstream) -> None:
    """An answer that broke counts beside the one that came; what the caller is told as usage is the answer's."""
    suite = await serve()
    upstream.replies["first"] = Reply(WORDS, cut_after=9)
    upstream.replies["second"] = Reply(("Hi",))
    answer = await suite.generate("spared")
    row = await row_of(suite, answer.request_id)

    broken, good = row["attempts"]
    assert (broken["outcome"], broken["completion_token_count"], broken["usage_source"]) == ("failed", 9, "counted")
    assert (good["outcome"], good["usage_source"]) == ("ok", "reported")
    assert row["completion_token_count"] == 9 + answer.usage.completion_token_count
    assert [one.usage.completion_token_count for one in answer.receipt.attempts] == [
        9,
        answer.usage.completion_token_count,
    ]
    assert row["cost_micro_usd"] is None  # its targets have no price


async def test_an_upstream_that_refuses_has_cost_nothing(serve: Serve, upstream: OpenAIUpstream) -> None:
    """Nor has one that cannot be reached; an error is an error in the row, too."""
    suite = await serve()
    upstream.replies["gpt"] = Reply(status=400)
    error = await failure(suite.generate())
    (row,) = await suite.inference.books.history.page(Scope(), 5, None)

    assert (row["outcome"], row["error_reason"], row["cost_micro_usd"]) == ("failed", error.reason, 0)
    assert (row["prompt_token_count"], row["usage_source"]) == (0, "")


async def test_an_embedding_has_a_row(serve: Serve, upstream: OpenAIUpstream) -> None:
    """Of its own kind."""
    suite = await serve()
    answer = await suite.stub.Embed(pb.EmbedRequest(model="vectors", texts=["a", "b"]), timeout=DEADLINE_S)
    row = await row_of(suite, answer.request_id)

    assert (row["kind"], row["outcome"], row["attempt_count"]) == ("embedding", "ok", 1)
    assert row["prompt_token_count"] == answer.usage.prompt_token_count
