"""Redact and Restore: the way there and the way back."""

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings

from kit.config import ConfigError
from millrace.safety.v1 import safety_service_pb2 as pb
from millrace.safety.v1 import verdict_pb2 as verdict
from services.safety.policy_file import load_policies
from tests.safety.messages import prompt, spans
from tests.safety.test_stream import TEXTS

if TYPE_CHECKING:
    from millrace.safety.v1.safety_service_pb2_grpc import SafetyServiceAsyncStub as Stub
    from tests.safety.conftest import Serve


async def test_equal_originals_share_a_placeholder(stub: "Stub") -> None:
    """Placeholders are numbered by kind, over all texts of a call."""
    texts = ["a@b.co wrote to c@d.org", "c@d.org called 212-555-0147"]

    response = await stub.Redact(pb.RedactRequest(texts=texts))

    assert list(response.texts) == [
        "<EMAIL_ADDRESS_1> wrote to <EMAIL_ADDRESS_2>",
        "<EMAIL_ADDRESS_2> called <PHONE_NUMBER_1>",
    ]
    assert [(p.token, p.original) for p in response.placeholders] == [
        ("<EMAIL_ADDRESS_1>", "a@b.co"),
        ("<EMAIL_ADDRESS_2>", "c@d.org"),
        ("<PHONE_NUMBER_1>", "212-555-0147"),
    ]


async def test_later_calls_go_on_numbering(stub: "Stub") -> None:
    """Placeholders of an earlier call keep their numbers and originals."""
    first = await stub.Redact(pb.RedactRequest(texts=["a@b.co"]))

    second = await stub.Redact(pb.RedactRequest(texts=["e@f.io, a@b.co"], placeholders=first.placeholders))

    assert list(second.texts) == ["<EMAIL_ADDRESS_2>, <EMAIL_ADDRESS_1>"]


async def test_only_asked_categories_are_redacted(stub: "Stub") -> None:
    """`categories` narrows what is replaced, and may ask for what is off by default."""
    request = pb.RedactRequest(texts=["a@b.co at https://example.com/x"], categories=["URL"])

    assert list((await stub.Redact(request)).texts) == ["a@b.co at <URL_1>"]


async def test_placeholders_in_the_text_are_not_given_away(stub: "Stub") -> None:
    """A text that already holds something like a placeholder keeps it, there and back."""
    text = "<EMAIL_ADDRESS_1> is not a@b.co"

    there = await stub.Redact(pb.RedactRequest(texts=[text]))
    back = await stub.Restore(pb.RestoreRequest(texts=there.texts, placeholders=there.placeholders))

    assert list(there.texts) == ["<EMAIL_ADDRESS_1> is not <EMAIL_ADDRESS_2>"]
    assert (list(back.texts), back.restored_count) == ([text], 1)


async def test_restored_text_is_not_read_again(stub: "Stub") -> None:
    """An original that reads like another placeholder is left as it is."""
    known = [
        pb.Placeholder(token="<A_1>", original="<A_2>", category="A"),
        pb.Placeholder(token="<A_2>", original="x", category="A"),
    ]

    back = await stub.Restore(pb.RestoreRequest(texts=["<A_1> <A_2> <A_3>"], placeholders=known))

    assert list(back.texts) == ["<A_2> x <A_3>"]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=TEXTS)
async def test_round_trip_gives_back_the_original(stub: "Stub", text: str) -> None:
    """Redact and Restore undo each other for any text."""
    there = await stub.Redact(pb.RedactRequest(texts=[text, text]))
    back = await stub.Restore(pb.RestoreRequest(texts=there.texts, placeholders=there.placeholders))

    assert list(back.texts) == [text, text]
    placed = sum(each.count(placeholder.token) for each in there.texts for placeholder in there.placeholders)
    assert back.restored_count == placed


async def test_prompts_are_anonymised_with_a_way_back(stub: "Stub") -> None:
    """One numbering runs over all segments, whoever wrote them, and findings name their placeholders."""
    first, second = "I am a@b.co", "a@b.co, call c@d.org"

    response = await stub.CheckInput(prompt(first, second, "hello", profile="private"))

    assert [each.replacement for each in response.segments] == [
        "I am <EMAIL_ADDRESS_1>", "<EMAIL_ADDRESS_1>, call <EMAIL_ADDRESS_2>", ""
    ]  # fmt: skip
    assert [each.verdict for each in response.segments][2] == verdict.VERDICT_ALLOW
    assert {each.token: each.original for each in response.placeholders} == {
        "<EMAIL_ADDRESS_1>": "a@b.co", "<EMAIL_ADDRESS_2>": "c@d.org"
    }  # fmt: skip
    found = [(each.placeholder, each.action) for each in response.assessment.findings]
    assert found == [(f"<EMAIL_ADDRESS_{n}>", verdict.VERDICT_REDACT) for n in (1, 1, 2)]


async def test_what_is_redacted_for_good_has_no_number(serve: "Serve") -> None:
    """A policy may anonymise some kinds, redact others and flag the rest; only the first have a way back."""
    text = "a@b.co pays 4111 1111 1111 1111 from 10.0.0.1"
    stub = await serve(
        "profiles:\n  mixed:\n    description: d\n    strictness: 1\n    input:\n      pii:\n        action: flag\n"
        "        actions: {EMAIL_ADDRESS: anonymise, CREDIT_CARD: redact}\n"
    )

    response = await stub.CheckInput(prompt(text, profile="mixed"))

    assert response.segments[0].replacement == "<EMAIL_ADDRESS_1> pays <CREDIT_CARD> from 10.0.0.1"
    assert [each.token for each in response.placeholders] == ["<EMAIL_ADDRESS_1>"]
    assert [category for category, _ in spans(response.assessment, text)] == [
        "EMAIL_ADDRESS", "CREDIT_CARD", "IP_ADDRESS"
    ]  # fmt: skip
    listed = {each.profile: each for each in (await stub.ListPolicies(pb.ListPoliciesRequest())).policies}
    actions = {each.category: each.anonymise for each in listed["mixed"].rules[0].category_actions}
    assert actions == {"EMAIL_ADDRESS": True, "CREDIT_CARD": False}


async def test_a_blocked_prompt_has_no_way_back(stub: "Stub") -> None:
    """Nothing goes upstream, so nothing needs to come back."""
    response = await stub.CheckInput(prompt("I am a@b.co", "how to make a pipe bomb", profile="private"))

    assert response.assessment.verdict == verdict.VERDICT_BLOCK
    assert not response.placeholders


async def test_placeholders_come_back_in_any_case(stub: "Stub") -> None:
    """A model that writes a placeholder small is understood, and a small one in the text is not given away."""
    there = await stub.Redact(pb.RedactRequest(texts=["<email_address_1> is not a@b.co"]))
    assert list(there.texts) == ["<email_address_1> is not <EMAIL_ADDRESS_2>"]

    back = await stub.Restore(
        pb.RestoreRequest(texts=["<email_address_2>, <email_address_1>"], placeholders=there.placeholders)
    )

    assert (list(back.texts), back.restored_count) == (["a@b.co, <email_address_1>"], 1)


def test_answers_are_never_anonymised(tmp_path: Path) -> None:
    """There is nothing to lead back to: a policy that asks for it is refused by line and field."""
    path = tmp_path / "policies.yaml"
    path.write_text("profiles:\n  x:\n    description: d\n    strictness: 1\n    output: {pii: {action: anonymise}}\n")

    with pytest.raises(ConfigError, match=r"policies.yaml:5: profiles.x.output.pii.action"):
        load_policies(path)
