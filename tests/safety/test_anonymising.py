"""Redact and Restore: the way there and the way back."""

from typing import TYPE_CHECKING

from hypothesis import HealthCheck, given, settings

from millrace.safety.v1 import safety_service_pb2 as pb
from tests.safety.test_stream import TEXTS

if TYPE_CHECKING:
    from millrace.safety.v1.safety_service_pb2_grpc import SafetyServiceAsyncStub as Stub


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
