"""Answers screened while they are generated, over the real stream."""

import asyncio
import random
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from millrace.safety.v1 import safety_service_pb2 as pb
from millrace.safety.v1 import verdict_pb2 as verdict
from tests.safety.conftest import Serve
from tests.safety.messages import answer, deltas, random_chunks, released, screen

if TYPE_CHECKING:
    from millrace.safety.v1.safety_service_pb2_grpc import SafetyServiceAsyncStub as Stub

DEADLINE_S = 20
# Where no model holds a text, it leaves as soon as the patterns are sure.
PATTERNS_ONLY = """
profiles:
  patterns: {description: Redacts by patterns., strictness: 500, output: {pii: {action: redact}}}
"""

# What texts are made of: things to find, things that only look like it, and what hides one or the other.
PIECES = (
    "a@b.co|john.doe+x@mail.example.com|x@y@z.com|@|212-555-0147|(212) 555-0147|+44 20 7946 0958|4111 1111 1111 1111|"
    "4111111111111111|1234 |DE89370400440532013000|DE89 3704 0044 0532 0130 00|AB12 CDEF|212-45-6789|10.0.0.1|fe80::1|"
    "12345 6789 |030 1234567|7 |0|020 7946 0958|20120102 08:00|z.i_will_kill_you.x@b.co|"
    "4111_1111_1111_1111|4111\n1111\n1111\n1111|3782\u200b822463\u200b10005|4111\n|1111\n|in 2024|my ssn is |536221234|"
    "gb29nwbk60161331926819|de89 3704 0044 0532 0130 00 now|gb29|jo\uff20mail.internal|root@localhost|"
    "::ffff:1.2.3.4|::|2024-01-15|12:30|kill you|I will |i will k i l l y o u|I w1ll k!ll you|k.i.l.l|how to make a |"
    "pipe bomb|b0mb|my name is |My name is |I am |Ann|Lee|Ann Lee|O'Neil|J. |NOT|AKIAIOSFODNN7EXAMPLE|sk-|sk_live_|eyJ|"
    "ghp_0123456789abcdefghijABCDEFGHIJ012345|sk-ant-api03-0123456789abcdefghijABCDEFGHIJ0123456789|passport no |"
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9PlFUP0THsR8U|-----BEGIN |"
    "-----BEGIN RSA PRIVATE KEY-----\nMIIEowIBAAKCAQEAz4eT0aJrBbCkMIIEowIBAAKCAQEAz4eT0aJrBbCkMIIE\nowIBAAKCAQEA"
    "z4eT0a==\n-----END RSA PRIVATE KEY-----|123456789|L01X00T47|12345678Z|1BvBMSEYstWetqTFn5Au4m4GFg7xJaNVN2|"
    "0x71C7656EC7ab88b098defB751B7401B5f6d8976F|RSSMRA85T10A562S|2234 5678 9012|529.982.247-25|912-70-1234|"
    "pipe bomb|b0mb|rape|HELLO WORLD|e\u0301|\u200b|\u202e|😀|👩‍👩‍👧|й|кill|ｋｉｌｌ|Straße|!|'|-|+|(|...|?|how do i "
).split("|")
TEXTS = st.lists(
    st.tuples(st.sampled_from(PIECES), st.sampled_from(["", " ", "  ", ", ", ". ", "\n", "\n\n", ":"])), max_size=12
).map(lambda pairs: "".join(piece + gap for piece, gap in pairs))


def expected(response: pb.CheckOutputResponse, text: str) -> str:
    """What may leave of a text by CheckOutput's judgement of the whole: up to the first block, redacted."""
    pieces, at, category, end = [], 0, "", len(text)
    for finding in response.assessment.findings:
        start = finding.span.start
        if finding.action == verdict.VERDICT_BLOCK:
            end = start
            break
        if finding.action == verdict.VERDICT_REDACT:
            if start > at or (start == at and category != finding.category):
                pieces += [text[at:start], finding.placeholder]
                category = finding.category
            at = max(at, finding.span.end)
    return "".join([*pieces, text[at:end] if at < end else ""])


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=TEXTS, seed=st.integers(0, 2**32), profile=st.sampled_from(["default", "strict", "strict"]))
async def test_any_chunking_releases_the_whole_texts_result(stub: "Stub", text: str, seed: int, profile: str) -> None:
    """However a text is cut, down to one code point, what is released equals the judgement of the whole."""
    whole = await stub.CheckOutput(answer(text, profile=profile))
    if whole.parts[0].HasField("replacement"):
        assert expected(whole, text) == whole.parts[0].replacement

    events = await screen(stub, [deltas([piece]) for piece in random_chunks(text, random.Random(seed))], profile)

    assert released(events) == expected(whole, text)
    found = [event.judgement.finding for event in events if event.HasField("judgement")]
    assert found == list(whole.assessment.findings)
    assert events[-1].completed.assessment.verdict == whole.assessment.verdict


async def test_card_number_split_over_chunks_never_leaves(stub: "Stub") -> None:
    """A number that no single delta holds is redacted all the same."""
    pieces = ["Pay with 4111", " 1111 ", "1111 11", "11 today"]

    events = await screen(stub, [deltas([piece]) for piece in pieces])

    assert released(events) == "Pay with <CREDIT_CARD> today"


async def test_a_long_secret_is_one_placeholder(stub: "Stub") -> None:
    """A key of thousands of characters is redacted as it comes, under one placeholder, and never held whole."""
    key = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0." + "dozjgNryP4J3jVmNHl0w5N" * 100
    pieces = ["Use ", *(key[at : at + 50] for at in range(0, len(key), 50)), " now"]

    events = await screen(stub, [deltas([piece]) for piece in pieces], "strict")

    assert released(events) == "Use <SECRET> now"
    seen = [event.judgement.finding.span for event in events if event.HasField("judgement")]
    assert (seen[0].start, seen[-1].end) == (4, 4 + len(key))


async def test_block_waits_for_what_begins_before_it(stub: "Stub") -> None:
    """A term inside of what is becoming an address blocks only once it is known what the address is."""
    text = "z.i_will_kill_you.x@b.co"
    whole = await stub.CheckOutput(answer(text, profile="strict"))

    events = await screen(stub, [deltas([character]) for character in text], "strict")

    assert released(events) == expected(whole, text) == "<EMAIL_ADDRESS>"
    assert events[-1].completed.assessment.verdict == verdict.VERDICT_BLOCK


async def test_released_through_counts_what_a_placeholder_covers(serve: Serve) -> None:
    """Who goes on alone from `released_through` does not send the tail of what was redacted."""
    stub = await serve(PATTERNS_ONLY)
    # "de:" may begin an IPv6 address, so that reading stops inside of the address that was found.
    events = await screen(stub, [deltas(["mail a@b.de:"]), deltas([" now"])], "patterns")

    first = next(event.released for event in events if event.HasField("released"))
    assert (first.text, first.released_through) == ("mail <EMAIL_ADDRESS>", len("mail a@b.de"))


async def test_number_waits_for_what_tells_it_from_a_time(stub: "Stub") -> None:
    """A time stamp reads like a phone number until its minutes arrive."""
    events = await screen(stub, [deltas([piece]) for piece in ("at 20120102 08", ":", "0", "0 sharp")], "strict")

    assert released(events) == "at 20120102 08:00 sharp"


async def test_nothing_past_a_block_leaves(stub: "Stub") -> None:
    """A blocked choice ends before the finding, and further deltas of it are ignored."""
    events = await screen(stub, [deltas(list("I will kill you")), deltas([" and then 4111"])])

    assert released(events) == ""
    done = [event.choice_done for event in events if event.HasField("choice_done")]
    assert [each.verdict for each in done] == [verdict.VERDICT_BLOCK]
    assert events[-1].completed.assessment.verdict == verdict.VERDICT_BLOCK


async def test_choices_are_judged_apart(stub: "Stub") -> None:
    """A block ends its own choice; the others go on."""
    messages = [
        [*deltas(["I will "], 0), *deltas(["Have a "], 1)],
        [*deltas(["kill you."], 0), *deltas(["nice day."], 1)],
    ]

    events = await screen(stub, messages, choices=2)

    assert released(events, 1) == "Have a nice day."
    done = {e.choice_done.choice_index: e.choice_done.verdict for e in events if e.HasField("choice_done")}
    assert done == {0: verdict.VERDICT_BLOCK, 1: verdict.VERDICT_ALLOW}


async def test_tool_arguments_are_held_to_their_end(stub: "Stub") -> None:
    """Arguments come back whole when their part ends, and not at all when they are blocked."""

    def call(index: int, text: str, ends: bool = False) -> pb.OutputDelta:
        kind = verdict.OUTPUT_KIND_TOOL_ARGUMENTS
        return pb.OutputDelta(kind=kind, tool_call_index=index, text=text, end_of_part=ends)

    first = [[call(0, '{"to": "a@b.co", '), call(0, '"card": "4111 1111 1111 1111"}', ends=True)]]
    fine = await screen(stub, first)
    assert [e.released.text for e in fine if e.HasField("released")] == ['{"to": "a@b.co", "card": "<CREDIT_CARD>"}']
    assert fine[-3].released.tool_call_index == 0

    blocked = await screen(
        stub, [[call(1, '{"long enough text to be let go": "')], [call(1, 'how to make a pipe bomb"}')]]
    )
    assert not any(event.HasField("released") for event in blocked)


async def test_parts_do_not_run_into_each_other(stub: "Stub") -> None:
    """Reasoning and text are two texts: a phrase that spans both is none."""
    reasoning = pb.OutputDelta(kind=verdict.OUTPUT_KIND_REASONING, text="I will kill ", end_of_part=True)

    events = await screen(stub, [[reasoning], deltas(["you"])])

    assert released(events) == "you"
    assert released(events, kind=verdict.OUTPUT_KIND_REASONING) == "I will kill "


async def test_text_is_held_only_while_it_may_begin_a_finding(stub: "Stub") -> None:
    """What cannot become a finding comes back at once, and `released_through` says how far."""
    queue: asyncio.Queue[pb.StreamCheckOutputRequest | None] = asyncio.Queue()

    async def requests() -> AsyncIterator[pb.StreamCheckOutputRequest]:
        while (request := await queue.get()) is not None:
            yield request

    call = stub.StreamCheckOutput(requests())
    queue.put_nowait(pb.StreamCheckOutputRequest(start=pb.StreamStart(), deltas=deltas(["The answer is forty"])))
    async with asyncio.timeout(DEADLINE_S):
        first = await anext(aiter(call))
        assert [(e.released.text, e.released.released_through) for e in first.events] == [("The answer is ", 14)]
        queue.put_nowait(pb.StreamCheckOutputRequest(deltas=deltas([" two, mail"])))
        second = await anext(aiter(call))
        assert [(e.released.text, e.released.released_through) for e in second.events] == [("forty two, ", 25)]
        queue.put_nowait(None)
        rest = [event async for response in call for event in response.events]
    assert released(rest) == "mail"


async def test_one_message_is_answered_by_at_most_one(stub: "Stub") -> None:
    """A message of many deltas gets one answer, and one that releases nothing gets none."""

    async def requests() -> AsyncIterator[pb.StreamCheckOutputRequest]:
        yield pb.StreamCheckOutputRequest(start=pb.StreamStart(choice_count=2))
        yield pb.StreamCheckOutputRequest(deltas=[*deltas(["Hello there, "]), *deltas(["good morning, "], 1)])
        yield pb.StreamCheckOutputRequest(deltas=deltas(["a"]))

    responses = [response async for response in stub.StreamCheckOutput(requests())]

    assert len(responses) == 2
    assert [event.WhichOneof("event") for event in responses[0].events] == ["released", "released"]
    assert responses[1].events[-1].WhichOneof("event") == "completed"


async def test_empty_stream_completes(stub: "Stub") -> None:
    """A generation of nothing is done and allowed."""
    events = await screen(stub, [])

    assert [event.WhichOneof("event") for event in events] == ["choice_done", "completed"]
    assert events[-1].completed.assessment.verdict == verdict.VERDICT_ALLOW


async def test_the_name_of_a_call_is_held_to_its_end(stub: "Stub") -> None:
    """What is replaced in it leaves replaced, and what is blocked takes its choice along."""
    kind = verdict.OUTPUT_KIND_TOOL_NAME
    pieces = [pb.OutputDelta(kind=kind, tool_call_index=0, text=text) for text in ("pay 4111 1111", " 1111 1111")]
    term = pb.OutputDelta(kind=kind, tool_call_index=1, text="how_to_make_a_pipe_bomb", end_of_part=True)
    ended = pb.OutputDelta(kind=kind, tool_call_index=0, end_of_part=True)

    events = await screen(stub, [pieces[:1], pieces[1:], [ended], [term]], "default")

    told = [event.WhichOneof("event") for event in events]
    assert released(events, kind=kind) == "pay <CREDIT_CARD>"
    assert told[-2:] == ["choice_done", "completed"]
    assert events[-1].completed.assessment.verdict == verdict.VERDICT_BLOCK
