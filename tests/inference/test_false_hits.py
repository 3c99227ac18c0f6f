"""Reports of answers from the cache that did not fit, over gRPC, with the real cache behind."""

from __future__ import annotations

from typing import Any

import pytest

from kit.errors import Code
from kit.identity import PRINCIPAL_KEY, TENANT_KEY
from millrace.inference.v1 import event_pb2 as ev
from millrace.inference.v1 import inference_service_pb2 as pb
from tests.inference.suite import Serve, Suite, failure, spec

MODELS = """
  - name: own
    targets: [{engine: openai, upstream: fake, model: gpt}]
    cache: {scope: user}
"""
DEADLINE_S = 10.0


@pytest.fixture
async def suite(serve: Serve) -> Suite:
    """Inference with a cache."""
    return await serve(MODELS, cache=True)


async def report(suite: Suite, entry_id: str, tenant: str = "default", principal: str = "", **fields: Any) -> bool:
    """Whether the entry was there."""
    metadata = [(TENANT_KEY, tenant), (PRINCIPAL_KEY, principal or "anonymous")]
    request = pb.ReportFalseHitRequest(request_id="r-1", entry_id=entry_id, **fields)
    answer = await suite.stub.ReportFalseHit(request, metadata=metadata, timeout=DEADLINE_S)
    assert answer.request_id == "r-1"
    return bool(answer.removed)


async def kept(suite: Suite, model: str = "gpt", **fields: Any) -> str:
    """The id of an entry that a second caller was answered from."""
    await suite.generate(model, **fields)
    cache = (await suite.generate(model, **fields)).receipt.cache
    assert cache.outcome == ev.CACHE_OUTCOME_EXACT
    return str(cache.entry_id)


async def test_a_reported_entry_is_never_served_again(suite: Suite) -> None:
    """The receipt names it; once it is removed the question is answered afresh, and a second report finds nothing."""
    entry_id = await kept(suite)

    assert await report(suite, entry_id, text="hi")
    assert (await suite.generate()).receipt.cache.outcome == ev.CACHE_OUTCOME_MISS
    assert not await report(suite, entry_id)


async def test_only_ones_own_entries_can_be_reported(suite: Suite) -> None:
    """Neither another tenant's nor another user's entry is removed."""
    shared = await kept(suite)
    own = await kept(suite, "own", end_user_id="ann")

    assert not await report(suite, shared, tenant="other")
    assert not await report(suite, own)
    assert not await report(suite, own, end_user_id="bob")
    assert await report(suite, own, end_user_id="ann")
    assert (await suite.generate()).receipt.cache.outcome == ev.CACHE_OUTCOME_EXACT


async def test_a_principal_reports_what_it_was_given(suite: Suite) -> None:
    """Its own entry, and one that its tenant shares, without naming an end user; never another principal's."""
    ann = [(PRINCIPAL_KEY, "ann")]
    shared = await kept(suite)
    for _ in range(2):
        request = pb.GenerateRequest(spec=spec("own", "hi"))
        answer = await suite.stub.Generate(request, metadata=ann, timeout=DEADLINE_S)
    own = answer.generation.receipt.cache
    assert own.outcome == ev.CACHE_OUTCOME_EXACT

    assert not await report(suite, own.entry_id, principal="bob")
    assert await report(suite, own.entry_id, principal="ann")
    assert await report(suite, shared, principal="ann")


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"entry_id": ""}, "entry_id"),
        ({"entry_id": "e" * 257}, "entry_id"),
        ({"entry_id": "e", "text": "x" * 32_769}, "text"),
        ({"entry_id": "e", "end_user_id": "u" * 257}, "end_user_id"),
    ],
)
async def test_a_bad_report_names_its_field(suite: Suite, fields: dict[str, str], field: str) -> None:
    """As the contract says."""
    error = await failure(suite.stub.ReportFalseHit(pb.ReportFalseHitRequest(**fields), timeout=DEADLINE_S))

    assert (error.code, field in error.message) == (Code.INVALID_ARGUMENT, True)


async def test_without_a_cache_there_is_nothing_to_report(serve: Serve) -> None:
    """And the caller is told which setting is missing."""
    suite = await serve()
    error = await failure(suite.stub.ReportFalseHit(pb.ReportFalseHitRequest(entry_id="e"), timeout=DEADLINE_S))

    assert (error.code, error.reason) == (Code.UNIMPLEMENTED, "CACHE_NOT_CONFIGURED")
