"""Limits through the whole service over gRPC: what a caller is told, and what becomes of its reservation."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import grpc
import pytest
from pydantic import SecretStr

from kit.errors import Code
from kit.identity import CallContext, use
from kit.status import from_rpc_error
from millrace.inference.v1 import event_pb2, generation_pb2, usage_service_pb2, usage_service_pb2_grpc
from millrace.inference.v1 import inference_service_pb2 as pb
from services.inference.database.settings import DatabaseSettings
from services.inference.quota.settings import QuotaSettings
from tests.fakes.openai_upstream import OpenAIUpstream, Reply
from tests.inference.suite import DEADLINE_S, Serve, Suite, failure, kinds, spec

QUOTAS = """
version: 1
tiers: {{few: {{user: {user}}}}}
roles: {{anonymous: few}}
named: {{tiny: {{client: {{requests_per_minute: 2}}}}}}
"""


@pytest.fixture
def limited(serve: Serve, tmp_path: Path) -> Any:
    """Starts the service with these limits for every principal."""

    async def start(user: str, **fields: Any) -> Suite:
        path = tmp_path / "quotas.yaml"
        path.write_text(QUOTAS.format(user=user))
        return await serve(quotas=QuotaSettings(file=path), **fields)

    return start


def alice() -> Any:
    """Calls within are alice's."""
    return use(CallContext("r", "acme", "alice"))


def state(limits: Any, name: str) -> tuple[int, int]:
    """What a limit allows, and what was left of it."""
    [found] = [one for one in limits if one.name == name]
    return found.limit, found.remaining


async def test_answers_and_refusals_say_where_limits_stand(limited: Any) -> None:
    """The first event, the receipt and, of a refusal, details and trailers have the limits; no upstream is asked."""
    suite = await limited("{requests_per_minute: 2, tokens_per_day: 5000}")
    with alice():
        events = await suite.stream(sampling=generation_pb2.SamplingParams(max_tokens=50))
        whole = await suite.generate(sampling=generation_pb2.SamplingParams(max_tokens=50))
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await suite.generate()

    assert state(events[0].started.limits, "user_requests_per_minute") == (2, 1)
    assert state(whole.receipt.limits, "user_requests_per_minute") == (2, 0)
    error = from_rpc_error(caught.value)
    assert (error.code, error.reason) == (Code.RESOURCE_EXHAUSTED, "RATE_LIMITED")
    assert 0 < (error.retry_after_ms or 0) <= 30_000
    assert error.quota_violations[0][0] == "user:alice"
    trailers = dict(caught.value.trailing_metadata())
    refused = event_pb2.Receipt.FromString(trailers["x-millrace-receipt-bin"])
    assert state(refused.limits, "user_requests_per_minute") == (2, 0)
    assert not refused.attempts


async def test_what_was_used_is_charged(limited: Any) -> None:
    """Each request is charged the tokens that the upstream told, not those that it reserved."""
    suite = await limited("{tokens_per_day: 5000}")
    with alice():
        first = await suite.generate(sampling=generation_pb2.SamplingParams(max_tokens=1000))
        second = await suite.generate(sampling=generation_pb2.SamplingParams(max_tokens=1000))

    before, used = state(first.receipt.limits, "user_tokens_per_day")[1], first.usage
    after = state(second.receipt.limits, "user_tokens_per_day")[1]
    assert before - after == used.prompt_token_count + used.completion_token_count


async def test_a_budget_outlives_the_process_that_counts_it(limited: Any, database_url: str) -> None:
    """A process that begins anew counts on top of what the ledger says was used today, of tokens and of money."""
    small = generation_pb2.SamplingParams(max_tokens=50)
    database = DatabaseSettings(url=SecretStr(database_url), migrate=True)
    before = await limited("{tokens_per_day: 5000, tokens_per_month: 6000}", database=database)
    with alice():
        made = await before.generate(sampling=small)
    await before.inference.books.shipping.flush()
    after = await limited("{tokens_per_day: 5000, tokens_per_month: 6000}", database=database)
    with alice():
        next_one, *_ = await asyncio.gather(*(after.generate(sampling=small) for _ in range(5)))

    used = made.usage.prompt_token_count + made.usage.completion_token_count
    assert (
        state(next_one.receipt.limits, "user_tokens_per_day")[1]
        <= state(made.receipt.limits, "user_tokens_per_day")[1] - used
    )
    assert state(next_one.receipt.limits, "user_tokens_per_month")[1] <= 6000 - used - 50


async def test_a_kept_answer_costs_no_tokens(limited: Any) -> None:
    """A hit gives its tokens back, and counts as a request."""
    suite = await limited("{requests_per_minute: 9, tokens_per_day: 5000}", cache=True)
    bounded = generation_pb2.SamplingParams(max_tokens=100, temperature=0)
    with alice():
        made = await suite.generate(sampling=bounded)
        hits = [await suite.generate(sampling=bounded) for _ in range(3)]

    spent = made.usage.prompt_token_count + made.usage.completion_token_count
    reserved = 5000 - state(made.receipt.limits, "user_tokens_per_day")[1]
    assert [one.receipt.engine for one in hits] == ["cache"] * 3
    assert {state(one.receipt.limits, "user_tokens_per_day")[1] for one in hits} == {5000 - spent - reserved}
    assert state(hits[-1].receipt.limits, "user_requests_per_minute") == (9, 5)


async def test_a_caller_that_leaves_frees_its_slot(limited: Any, upstream: OpenAIUpstream) -> None:
    """The slot of a stream that was cancelled is free for the next, without waiting for any time to pass."""
    suite = await limited("{concurrent_requests: 1}")
    upstream.replies["any-silent"] = Reply(stall_after=1)
    with alice():
        call = suite.start("any-silent")
        async for event in call:
            if event.WhichOneof("event") == "delta":
                break
        refused = await failure(suite.generate())
        call.cancel()
        async with asyncio.timeout(DEADLINE_S):
            while suite.inference.limiting.keeper.open_count:  # noqa: ASYNC110 - the end tells nobody
                await asyncio.sleep(0.01)
        answered = await suite.generate()

    assert (refused.reason, refused.retry_after_ms) == ("CONCURRENCY_LIMITED", 1_000)
    assert answered.choices[0].text


async def test_every_item_of_a_batch_counts(limited: Any) -> None:
    """A batch is as many requests as it has items; those beyond the limit fail by themselves."""
    suite = await limited("{requests_per_minute: 3}")
    with alice():
        answer = await suite.stub.BatchGenerate(
            pb.BatchGenerateRequest(specs=[spec() for _ in range(5)]), timeout=DEADLINE_S
        )

    assert sorted(item.WhichOneof("result") for item in answer.items) == ["error"] * 2 + ["generation"] * 3


async def test_embeddings_count(limited: Any) -> None:
    """Texts to embed are requests and tokens like any other."""
    suite = await limited("{requests_per_minute: 1, tokens_per_day: 5000}")
    request = pb.EmbedRequest(model="vectors", texts=["some text", "more text"])
    with alice():
        answer = await suite.stub.Embed(request, timeout=DEADLINE_S)
        refused = await failure(suite.stub.Embed(request, timeout=DEADLINE_S))

    assert state(answer.receipt.limits, "user_tokens_per_day") == (5000, 5000 - 5)
    assert refused.reason == "RATE_LIMITED"


async def test_a_named_limit_is_the_specs(limited: Any) -> None:
    """A spec counts against the limit that it names, whoever calls; one that is not in the file is wrong."""
    suite = await limited("{}")
    for _ in range(2):
        await suite.generate(limit="tiny")
    refused, unknown = await failure(suite.generate(limit="tiny")), await failure(suite.generate(limit="none"))
    events = await suite.stream()

    assert refused.metadata["limit"] == "tiny_client_requests_per_minute"
    assert (unknown.code, unknown.field_violations[0].field) == (Code.INVALID_ARGUMENT, "spec.limit")
    assert kinds(events)[-1] == "completed"
    assert not events[0].started.limits


async def test_limits_can_be_looked_at(limited: Any) -> None:
    """A caller sees all of its limits and what is left of them; looking uses nothing up, others have theirs."""
    suite = await limited("{requests_per_minute: 2, concurrent_requests: 3, tokens_per_day: 5000}")
    stub = usage_service_pb2_grpc.UsageServiceStub(suite.channel)
    ask = usage_service_pb2.ListLimitsRequest()
    with alice():
        await suite.generate(sampling=generation_pb2.SamplingParams(max_tokens=50))
        for _ in range(3):
            seen = (await stub.ListLimits(ask, timeout=DEADLINE_S)).limits
    with use(CallContext("r", "acme", "bob")):
        others = (await stub.ListLimits(ask, timeout=DEADLINE_S)).limits

    assert state(seen, "user_requests_per_minute") == (2, 1)
    assert state(seen, "user_concurrent_requests") == (3, 3)
    assert 0 < state(seen, "user_tokens_per_day")[1] < 5000
    assert [one.remaining for one in others] == [one.limit for one in others]
