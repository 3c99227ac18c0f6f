"""Receipts in trailing metadata: as bytes, and over real gRPC whatever became of the call."""

from __future__ import annotations

from typing import Any

import grpc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kit.errors import Unavailable
from kit.status import from_rpc_error, join_trailers, to_status
from millrace.inference.v1 import event_pb2
from millrace.inference.v1 import inference_service_pb2 as pb
from services.inference.events import (
    Attempt,
    AttemptOutcome,
    CacheEvent,
    CacheOutcome,
    Direction,
    Finding,
    Receipt,
    SafetyEvent,
    Verdict,
)
from services.inference.generation import Usage
from services.inference.receipt_wire import RECEIPT_BYTES_MAX, trailers
from tests.fakes.openai_upstream import OpenAIUpstream, Reply
from tests.inference.suite import DEADLINE_S, Serve, Suite, spec

RECEIPT = "x-millrace-receipt-bin"
FAILED, SKIPPED = AttemptOutcome.FAILED, AttemptOutcome.SKIPPED


@pytest.fixture
async def suite(serve: Serve) -> Suite:
    """Inference alone: no cache, no safety."""
    return await serve()


async def finished(call: Any) -> tuple[dict[str, Any], str]:
    """The trailing metadata of a call of either kind, and the reason of its failure."""
    reason = ""
    try:
        if isinstance(call, grpc.aio.UnaryUnaryCall):
            await call
        else:
            async for _ in call:
                pass
    except grpc.aio.AioRpcError as error:
        reason = from_rpc_error(error).reason
    return dict(await call.trailing_metadata()), reason


def start(suite: Suite, streamed: bool, model: str = "gpt") -> Any:
    if streamed:
        return suite.start(model)
    return suite.stub.Generate(pb.GenerateRequest(spec=spec(model)), timeout=DEADLINE_S)


@pytest.mark.parametrize("streamed", [True, False], ids=["stream", "whole"])
async def test_an_answer_has_its_receipt_behind_it(suite: Suite, streamed: bool) -> None:
    """The main facts in words, and the whole receipt for programs."""
    told, _ = await finished(start(suite, streamed))
    receipt = event_pb2.Receipt.FromString(told[RECEIPT])

    assert {name.removeprefix("x-millrace-"): told[name] for name in told if name != RECEIPT} == {
        "attempts": "1",
        "target": "fake:gpt",
        "cost-micro-usd": str(11 * 2 + receipt.usage.completion_token_count * 10),
        "cache": "bypass",
        "prompt-tokens": "11",
        "completion-tokens": str(receipt.usage.completion_token_count),
    }
    assert (receipt.model, receipt.target_model) == ("gpt", "gpt-0613")
    assert [(one.target, one.outcome) for one in receipt.attempts] == [("fake:gpt", event_pb2.ATTEMPT_OUTCOME_OK)]
    assert receipt.duration.ToNanoseconds() >= receipt.ttft.ToNanoseconds() > 0


@pytest.mark.parametrize("streamed", [True, False], ids=["stream", "whole"])
async def test_a_failure_has_its_receipt_beside_its_reason(
    suite: Suite, upstream: OpenAIUpstream, streamed: bool
) -> None:
    """Every target that was tried and why it failed; the error's own details arrive, too."""
    upstream.replies["first"] = Reply(status=400)
    told, reason = await finished(start(suite, streamed, "spared"))
    receipt = event_pb2.Receipt.FromString(told[RECEIPT])

    assert reason == "UPSTREAM_BAD_REQUEST"
    assert (told["x-millrace-attempts"], told["x-millrace-target"]) == ("1", "fake:first")
    assert [(one.target, one.outcome, one.error_reason) for one in receipt.attempts] == [
        ("fake:first", event_pb2.ATTEMPT_OUTCOME_FAILED, "UPSTREAM_BAD_REQUEST")
    ]
    assert "x-millrace-cost-micro-usd" not in told
    assert "x-millrace-prompt-tokens" not in told


async def test_who_is_not_let_in_gets_an_empty_receipt(serve: Serve) -> None:
    """No target was tried, and that is said."""
    suite = await serve()
    told, reason = await finished(start(suite, False, "nobody"))

    assert reason == "MODEL_NOT_FOUND"
    assert (told["x-millrace-attempts"], "x-millrace-target" in told) == ("0", False)
    assert event_pb2.Receipt.FromString(told[RECEIPT]).model == "nobody"


def words(receipt: Receipt) -> dict[str, Any]:
    return {name.removeprefix("x-millrace-"): value for name, value in trailers(receipt)}


def test_tries_that_were_not_made_do_not_count() -> None:
    """A target that was passed over was not tried; of a failed call the last that was tried is named."""
    tried = [Attempt(1, "openai", "a", FAILED), Attempt(2, "openai", "b", SKIPPED, "BREAKER_OPEN")]
    told = words(Receipt("r1", "gpt", attempts=tried))

    assert (told["attempts"], told["target"]) == ("1", "a")
    assert len(event_pb2.Receipt.FromString(told["receipt-bin"]).attempts) == 2


def test_a_hit_is_free() -> None:
    """A price of nothing is known, and said."""
    hit = CacheEvent(CacheOutcome.STALE, age_s=3.0)
    told = words(Receipt("r1", "gpt", cost_micro_usd=0, cache=hit, usage=Usage(3, 0)))

    assert (told["cost-micro-usd"], told["cache"], told["completion-tokens"]) == ("0", "stale", "0")


@settings(deadline=None)  # whether it fits is asked, not how fast
@given(st.text(max_size=300), st.text(max_size=10_000), st.integers(0, 60), st.integers(0, 500))
def test_it_always_fits(target: str, fingerprint: str, attempt_count: int, finding_count: int) -> None:
    """Whatever names, tries and findings there are, the metadata can be sent and the last try is in it."""
    finding = Finding("category", 0.5, "detector")
    receipt = Receipt(
        "r" * 128, "m" * 256, engine="openai", target=target, target_model=fingerprint,
        attempts=[Attempt(number, "openai", target, FAILED, "R" * 63) for number in range(1, attempt_count + 1)],
        safety=[SafetyEvent(Direction.INPUT, Verdict.FLAG, (finding,) * finding_count)],
        system_fingerprint=fingerprint,
    )  # fmt: skip
    told = words(receipt)
    read = event_pb2.Receipt.FromString(told["receipt-bin"])

    assert len(told["receipt-bin"]) <= RECEIPT_BYTES_MAX
    assert told.get("target", "").isascii()
    assert len(join_trailers(to_status(Unavailable("DOWN", "down")), trailers(receipt))) == 1 + len(trailers(receipt))
    assert [one.number for one in read.attempts][-1:] == [attempt_count] * bool(attempt_count)
    assert len(read.attempts) == attempt_count or not read.safety
