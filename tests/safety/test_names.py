"""Names at work in the real service: found, replaced, given back, and the same however the text arrived."""

import random

import pytest

from millrace.safety.v1 import safety_service_pb2 as pb
from millrace.safety.v1 import verdict_pb2 as verdict
from tests.safety.messages import answer, deltas, prompt, random_chunks, released, screen

POLICIES = """
profiles:
  named:
    description: Replaces people.
    strictness: 500
    input: {names: {action: anonymise}, pii: {action: anonymise}}
    output: {names: {action: redact}, pii: {action: redact}}
  placed:
    description: Replaces people and places.
    strictness: 501
    input: {names: {action: redact, actions: {LOCATION: redact}}}
"""
WHO = "My name is {}, email me at {} or call {}."
LETTER = (
    "Dear Maria,\nthank you for your letter. Yesterday Thomas Baker and Dr. Ravi Krishnan came to see the house, and "
    "they were delighted with the garden. Tom's brother Peter lives around the corner. We talked for hours about the "
    "bridge, the weather and the price of bread, and nobody noticed how late it had become. Please call Ingrid "
    "Lindström at +1 212-555-0147 before Friday.\nKind regards,\nSarah O'Connor"
)
PEOPLE = ("Maria", "Thomas Baker", "Ravi Krishnan", "Tom", "Peter", "Ingrid", "Lindström", "Sarah", "O'Connor")


async def redacted(stub, text, profile):
    request = pb.CheckInputRequest(profile=profile, segments=[pb.Segment(role=verdict.ROLE_USER, text=text)])
    return (await stub.CheckInput(request, timeout=30)).segments[0].replacement


@pytest.mark.parametrize("name", ["Anna Schmidt", "John Smith", "Priya Raghunathan", "Luis Hernández", "Mehmet Yılmaz"])
async def test_an_introduction_is_redacted_exactly(serve, name):
    """Name, address and number of somebody who introduces himself are replaced, and nothing else."""
    stub = await serve(POLICIES)
    text = WHO.format(name, "someone@example.org", "212-555-0147")

    assert await redacted(stub, text, "named") == WHO.format("<PERSON_1>", "<EMAIL_ADDRESS_1>", "<PHONE_NUMBER_1>")
    events = await screen(stub, [deltas([text])], "named")
    assert released(events) == WHO.format("<PERSON>", "<EMAIL_ADDRESS>", "<PHONE_NUMBER>")


async def test_people_are_found_without_an_introduction(serve):
    """In a letter no name of a person is left, and the rest of it is as it was."""
    left = await redacted(await serve(POLICIES), LETTER, "named")

    assert not any(name in left for name in PEOPLE)
    assert "they were delighted with the garden." in left
    assert "We talked for hours about the bridge, the weather and the price of bread" in left


async def test_names_come_back(serve):
    """The placeholders of a prompt lead back to its names."""
    stub = await serve(POLICIES)
    said = await stub.CheckInput(prompt(LETTER, profile="named"))
    there = said.segments[0].replacement
    back = await stub.Restore(pb.RestoreRequest(texts=[there], placeholders=said.placeholders))

    assert list(back.texts) == [LETTER]
    assert {"PERSON", "PHONE_NUMBER"} <= {each.category for each in said.placeholders}


async def test_places_are_found_where_a_policy_names_them(serve):
    """A town is nobody's name, and is replaced only where it is asked for."""
    stub = await serve(POLICIES)
    text = "We flew from Stockholm to Buenos Aires on Friday."

    assert await redacted(stub, text, "named") in ("", text)
    assert await redacted(stub, text, "placed") == "We flew from <LOCATION> to <LOCATION> on Friday."


@pytest.mark.parametrize(
    "text",
    [
        "How do I install Python on Windows with Docker?",
        "The Terms of Service changed on Monday, and Excel crashes.",
        "What is the difference between TCP and UDP?",
        "Write a poem about the sea in spring.",
        "def main() -> None: return None",
    ],
)
async def test_what_is_nobodys_name_stays(serve, text):
    """Products, days and titles are no people."""
    assert await redacted(await serve(POLICIES), text, "named") in ("", text)


async def test_a_stream_hides_the_names_that_the_whole_does(serve):
    """However a text is cut, down to one code point, the same text leaves."""
    stub = await serve(POLICIES)
    text = LETTER + "\n" + LETTER
    whole = (await stub.CheckOutput(answer(text, profile="named"))).parts[0].replacement
    for seed in range(8):
        events = await screen(stub, [deltas([piece]) for piece in random_chunks(text, random.Random(seed))], "named")
        assert released(events) == whole

    assert "<PERSON>" in whole
