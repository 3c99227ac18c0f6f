"""The contract, over the real server."""

import logging
from collections.abc import AsyncIterator, Awaitable
from typing import TYPE_CHECKING

import grpc
import pytest

from kit import identity
from kit.errors import Code, MillraceError
from kit.status import from_rpc_error
from millrace.safety.v1 import policy_pb2
from millrace.safety.v1 import safety_service_pb2 as pb
from millrace.safety.v1 import verdict_pb2 as verdict
from services.safety.policy import Direction
from tests.safety.messages import answer, deltas, prompt, screen, spans

if TYPE_CHECKING:
    from millrace.safety.v1.safety_service_pb2_grpc import SafetyServiceAsyncStub as Stub
    from services.safety.wiring import SafetyService

JO = "My name is Jo, email me at a@b.co or call 212-555-0147"
CARD = "😀 pay with 4111 1111 1111 1111 please"
BOMB = "how to make a pipe bomb"


async def refused(call: Awaitable[object]) -> MillraceError:
    """The error that a call ends with."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return from_rpc_error(caught.value)


async def test_harmless_prompt_is_allowed(stub: "Stub", embedded: "SafetyService") -> None:
    """What holds nothing of interest passes, with a state for each detector and the policy that was applied."""
    response = await stub.CheckInput(prompt("What is the capital of France?", profile="default"))

    assessment = response.assessment
    assert assessment.verdict == verdict.VERDICT_ALLOW
    assert not assessment.findings
    needed = {rule.detector for rule in embedded.safety.policies.profile("default").rules[Direction.INPUT]}
    assert {"forbidden_terms", "pii", "injection_phrases"} <= needed
    assert {run.detector: run.state for run in assessment.runs} == {
        name: verdict.EXECUTION_STATE_OK if name in needed else verdict.EXECUTION_STATE_SKIPPED
        for name in embedded.safety.detectors
    }
    assert (assessment.profile, assessment.policy_version[:7]) == ("default", "sha256:")


async def test_forbidden_prompt_is_blocked(stub: "Stub") -> None:
    """A forbidden phrase blocks the prompt and names its category and place."""
    response = await stub.CheckInput(prompt("Hello", f"😀 {BOMB}?"))

    assert response.assessment.verdict == verdict.VERDICT_BLOCK
    assert [text.verdict for text in response.segments] == [verdict.VERDICT_ALLOW, verdict.VERDICT_BLOCK]
    finding = response.assessment.findings[0]
    assert (finding.category, finding.segment_index, finding.detector) == ("illicit/violent", 1, "forbidden_terms")
    assert (finding.span.start, finding.span.end) == (2, 2 + len(BOMB))


async def test_personal_data_in_a_prompt_is_flagged(stub: "Stub") -> None:
    """The default profile reports personal data of a prompt and changes nothing."""
    response = await stub.CheckInput(prompt(JO))

    assert response.assessment.verdict == verdict.VERDICT_FLAG
    assert set(spans(response.assessment, JO)) == {
        ("PERSON", "Jo"), ("EMAIL_ADDRESS", "a@b.co"), ("PHONE_NUMBER", "212-555-0147")
    }  # fmt: skip
    assert not response.segments[0].HasField("replacement")


async def test_strict_profile_redacts_prompts(stub: "Stub") -> None:
    """The strict profile replaces all personal data by its kind."""
    response = await stub.CheckInput(prompt(JO, profile="strict"))

    assert response.assessment.verdict == verdict.VERDICT_REDACT
    assert response.segments[0].replacement == "My name is <PERSON>, email me at <EMAIL_ADDRESS> or call <PHONE_NUMBER>"


async def test_account_data_in_answers_is_redacted(stub: "Stub") -> None:
    """The default profile takes card numbers out of answers; spans count code points of the original."""
    response = await stub.CheckOutput(answer(CARD, JO))

    assert [part.verdict for part in response.parts] == [verdict.VERDICT_REDACT, verdict.VERDICT_FLAG]
    assert response.parts[0].replacement == "😀 pay with <CREDIT_CARD> please"
    first = response.assessment.findings[0]
    assert (first.span.start, first.span.end, first.placeholder) == (11, 30, "<CREDIT_CARD>")
    assert {finding.choice_index for finding in response.assessment.findings} == {0, 1}


async def test_off_profile_runs_nothing(stub: "Stub") -> None:
    """Under `off` everything passes, and the answer says that nothing looked at it."""
    response = await stub.CheckInput(prompt(BOMB, profile="off"))

    assert response.assessment.verdict == verdict.VERDICT_ALLOW
    assert {run.state for run in response.assessment.runs} == {verdict.EXECUTION_STATE_SKIPPED}
    assert not response.assessment.scores


async def test_moderation_profile_scores_every_category(stub: "Stub") -> None:
    """`moderation` gives a score for each of OpenAI's categories and blocks nothing."""
    response = await stub.CheckInput(prompt("I will kill you", profile="moderation"))

    scores = {score.category: (score.score, score.flagged) for score in response.assessment.scores}
    assert len(scores) == 13
    assert scores["harassment/threatening"] == (1.0, True)
    assert scores["sexual"] < (0.3, False)
    assert response.assessment.verdict == verdict.VERDICT_FLAG


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (prompt("x", profile="nope"), "profile"),
        (pb.CheckInputRequest(), "segments"),
        (pb.CheckInputRequest(segments=[pb.Segment(text="x")]), "segments[0].role"),
        (prompt("x" * 600_000, "y" * 400_001), "segments"),
        (pb.CheckInputRequest(request_id="r" * 129, segments=prompt("x").segments), "request_id"),
        (pb.CheckOutputRequest(parts=[pb.OutputPart(choice_index=128)]), "parts[0].choice_index"),
        (pb.CheckOutputRequest(parts=[pb.OutputPart(kind=99)]), "parts[0].kind"),  # type: ignore[arg-type]
        (pb.CheckOutputRequest(parts=[pb.OutputPart(tool_call_index=0)]), "parts[0].tool_call_index"),
        (pb.RedactRequest(), "texts"),
        (pb.RedactRequest(texts=["x"], categories=["SHOE_SIZE"]), "categories[0]"),
        (pb.RestoreRequest(texts=["x"], placeholders=[pb.Placeholder(token="x")]), "placeholders[0].token"),
    ],
)
async def test_bad_requests_name_their_field(stub: "Stub", request_: object, field: str) -> None:
    """Each limit of the contract is checked, and BadRequest names the field."""
    method = getattr(stub, type(request_).__name__.removesuffix("Request"))

    error = await refused(method(request_))

    assert error.code == Code.INVALID_ARGUMENT
    assert [violation.field for violation in error.field_violations] == [field]


async def test_stream_must_start(stub: "Stub") -> None:
    """A stream whose first message does not start it is refused with a reason."""
    call = stub.StreamCheckOutput(iter([pb.StreamCheckOutputRequest(deltas=[pb.OutputDelta(text="x")])]))

    with pytest.raises(grpc.aio.AioRpcError) as caught:
        [_ async for _ in call]

    assert from_rpc_error(caught.value).reason == "STREAM_NOT_STARTED"


@pytest.mark.parametrize(
    ("delta", "field"),
    [
        (pb.OutputDelta(choice_index=2, text="x"), "deltas.choice_index"),
        (pb.OutputDelta(kind=17, text="x"), "deltas[0].kind"),  # type: ignore[arg-type]
    ],
)
async def test_stream_refuses_deltas_that_belong_nowhere(stub: "Stub", delta: pb.OutputDelta, field: str) -> None:
    """A delta of an unknown choice or kind is INVALID_ARGUMENT naming the field."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await screen(stub, [[delta]], choices=2)

    assert [violation.field for violation in from_rpc_error(caught.value).field_violations] == [field]


async def test_a_stream_is_told_what_is_awaited(stub: "Stub", embedded: "SafetyService") -> None:
    """Before anything happens, where models must see more first."""
    await embedded.safety.warm()

    async def requests() -> AsyncIterator[pb.StreamCheckOutputRequest]:
        yield pb.StreamCheckOutputRequest(start=pb.StreamStart(profile="strict"), deltas=deltas(["A first word"]))

    first, *_ = [response async for response in stub.StreamCheckOutput(requests())]

    (awaited,) = first.awaited
    assert not first.events
    assert (awaited.choice_index, awaited.kind) == (0, verdict.OUTPUT_KIND_TEXT)
    assert (awaited.least_through, awaited.most_through, "." in awaited.stops) == (160, 320, True)
    assert awaited.gather_max.ToMilliseconds() == 1_000


async def test_request_ids_are_echoed(stub: "Stub") -> None:
    """The request's own id comes back; without one, that of the call's metadata."""
    request = prompt("x")
    request.request_id = "mine"

    assert (await stub.CheckInput(request)).request_id == "mine"
    with identity.use(identity.CallContext("from-metadata")):
        assert (await stub.CheckInput(prompt("x"))).request_id == "from-metadata"


async def test_policies_are_listed_by_strictness(stub: "Stub") -> None:
    """ListPolicies shows profiles, rules and the one version, the most lenient profile first."""
    response = await stub.ListPolicies(pb.ListPoliciesRequest())

    assert [policy.profile for policy in response.policies] == ["off", "moderation", "default", "private", "strict"]
    assert {policy.version for policy in response.policies} == {response.version}
    rule = next(r for r in response.policies[2].rules if (r.direction, r.detector) == (verdict.DIRECTION_OUTPUT, "pii"))
    assert rule.on_failure == policy_pb2.FAILURE_MODE_CLOSED
    assert {each.category: each.action for each in rule.category_actions}["US_SSN"] == verdict.VERDICT_REDACT
    assert response.policies[0].hold_code_point_max == 0 < response.policies[4].hold_code_point_max <= 320


async def test_logs_hold_no_text(stub: "Stub", caplog: pytest.LogCaptureFixture) -> None:
    """A verdict is logged with categories and counts, and with nothing of what was judged."""
    caplog.set_level(logging.DEBUG)

    await stub.CheckInput(prompt(f"{JO}. {BOMB}. IBAN DE89 3704 0044 0532 0130 0É", profile="private"))

    record = next(record for record in caplog.records if record.message == "screened")
    categories = record.__dict__["categories"]
    assert {"PERSON", "EMAIL_ADDRESS", "PHONE_NUMBER", "illicit/violent"} <= categories.keys()
    assert categories["EMAIL_ADDRESS"] == 1
    everything = " ".join(str(record.__dict__) for record in caplog.records)
    assert not any(secret in everything for secret in ("a@b.co", "555-0147", "pipe bomb", "3704"))
