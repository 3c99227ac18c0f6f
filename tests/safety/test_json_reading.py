"""JSON is read as those read it who take its escapes apart, and stays JSON whatever is replaced in it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from millrace.safety.v1 import safety_service_pb2 as pb
from millrace.safety.v1 import verdict_pb2 as verdict
from services.safety.reading import Reading, Stretch

if TYPE_CHECKING:
    from millrace.safety.v1.safety_service_pb2_grpc import SafetyServiceAsyncStub as Stub

CALL = verdict.OUTPUT_KIND_TOOL_ARGUMENTS
CARD = r'{"c": "\u0034111\u00201111 1111 1111", "n": 4111111111111111, "k": "\ud83d\ude00"}'
TERM = r'{"q": "how to make a p\u0069pe b\u006fmb"}'


@pytest.mark.parametrize(
    "source",
    [r'{"a": "x\u0040y.z\n\"\\\/\ud83d\ude00\t!"}', "{}", "", r'"\ud800"', r"\u00", r'"cut \u004', '"end \\'],
)
def test_positions_lead_back(source: str) -> None:
    """From every character of the text to what it was made of, also where the JSON is broken."""
    reading = Reading(source, is_json=True)

    made_of = [source[reading.source_position(at) : reading.source_position(at + 1)] for at in range(len(reading.text))]
    assert "".join(made_of) == source
    assert all(text == piece or piece[0] == "\\" for text, piece in zip(reading.text, made_of, strict=True))


def test_escapes_are_taken_apart() -> None:
    """As a parser would; half of a pair stands for no character."""
    assert Reading(r'"a\u0040b\n\"\\\ud83d\ude00\ud800"', is_json=True).text == '"a@b\n"\\\U0001f600\ufffd"'
    assert Reading(r'"a\u0040b"', is_json=False).text == r'"a\u0040b"'


@pytest.mark.parametrize(
    ("source", "start", "end", "replaced"),
    [
        ('{"c": 411, "d": 1}', 6, 9, '{"c": "<X>", "d": 1}'),
        ('{"c": -411.0}', 7, 10, '{"c": "-<X>.0"}'),
        ('{"c": "a 411 b"}', 9, 12, '{"c": "a <X> b"}'),
        ('["ab", "cd"]', 3, 9, '["a<X>", "<X>d"]'),
        ('["ab", 12]', 1, 10, '["<X>", "<X>"]'),
        (r'["\u0061b"]', 2, 3, '["<X>b"]'),
        ("[a, 12 b]", 4, 6, "[a, <X> b]"),
    ],
)
def test_what_was_json_is_json_again(source: str, start: int, end: int, replaced: str) -> None:
    """A number becomes a string, and no quote or comma is lost; what never was JSON is replaced as it stands."""
    assert Reading(source, is_json=True).replaced([Stretch(start, end, "<X>")]) == replaced


async def test_escaped_arguments_of_an_answer_are_read(stub: Stub) -> None:
    """Whole and streamed alike, in whatever pieces they come."""
    part = pb.OutputPart(kind=CALL, tool_call_index=0, text=CARD)
    whole = await stub.CheckOutput(pb.CheckOutputRequest(profile="default", parts=[part]))
    deltas = [pb.OutputDelta(kind=CALL, tool_call_index=0, text=sign) for sign in CARD]
    first = pb.StreamCheckOutputRequest(start=pb.StreamStart(profile="default"), deltas=deltas)
    events = [event async for answer in stub.StreamCheckOutput(iter([first])) for event in answer.events]

    replacement = whole.parts[0].replacement
    assert json.loads(replacement) == {"c": "<CREDIT_CARD>", "n": "<CREDIT_CARD>", "k": "\U0001f600"}
    assert [event.released.text for event in events if event.HasField("released")] == [replacement]
    spans = [one.span for one in whole.assessment.findings]
    assert CARD[spans[0].start : spans[0].end] == r"\u0034111\u00201111 1111 1111"
    assert [event.judgement.finding.span for event in events if event.HasField("judgement")] == spans


async def test_escaped_arguments_are_blocked(stub: Stub) -> None:
    """A forbidden term in escapes is no less forbidden, in an answer and in the history of a prompt."""
    part = pb.OutputPart(kind=CALL, tool_call_index=0, text=TERM)
    answer = await stub.CheckOutput(pb.CheckOutputRequest(profile="default", parts=[part]))
    segment = pb.Segment(role=verdict.ROLE_ASSISTANT, text=TERM)
    prompt = await stub.CheckInput(pb.CheckInputRequest(profile="default", segments=[segment]))

    assert answer.assessment.verdict == prompt.assessment.verdict == verdict.VERDICT_BLOCK


async def test_the_way_back_of_escaped_data(stub: Stub) -> None:
    """Leads to what the escapes stand for, so that the same address in plain text has the same placeholder."""
    texts = [r'{"to": "bob\u0040example.com"}', "bob@example.com"]
    redacted = await stub.Redact(pb.RedactRequest(texts=texts, categories=["EMAIL_ADDRESS"]))

    assert list(redacted.texts) == ['{"to": "<EMAIL_ADDRESS_1>"}', "<EMAIL_ADDRESS_1>"]
    assert [each.original for each in redacted.placeholders] == ["bob@example.com"]


def nested(value: object, depth: int) -> str:
    """A value as JSON that stands in a string of JSON, and so on."""
    text = json.dumps(value)
    for _ in range(depth):
        text = json.dumps({"body": text})
    return text


def bare(text: str, depth: int) -> object:
    """What `nested` was given."""
    for _ in range(depth):
        text = json.loads(text)["body"]
    return json.loads(text)


@pytest.mark.parametrize("depth", [1, 2, 3, 8])
def test_json_in_strings_is_read_too(depth: int) -> None:
    """At every depth escapes are taken apart, and positions lead back to what each character was made of."""
    source = nested({"to": "bob@corp.com\n", "path": "C:\\news"}, depth).replace("@", "\\" * (2**depth - 1) + "\\u0040")
    reading = Reading(source, is_json=True)

    assert 'bob@corp.com\n", "path": "C:\\news"' in reading.text
    made_of = [source[reading.source_position(at) : reading.source_position(at + 1)] for at in range(len(reading.text))]
    assert "".join(made_of) == source


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_json_in_strings_stays_json(depth: int) -> None:
    """What is replaced deep inside leaves every level valid: a number becomes a string there as well."""
    reading = Reading(nested({"to": "é bob", "n": 411, "k": 'a"b'}, depth), is_json=True)
    first, second = (reading.text.index(found) for found in ("bob", "411"))

    replaced = reading.replaced([Stretch(first, first + 3, "<A>"), Stretch(second, second + 3, "<B>")])
    assert bare(replaced, depth) == {"to": "é <A>", "n": "<B>", "k": 'a"b'}


@pytest.mark.parametrize("source", [r'{"p": "[C:\\users\\bob@x.com"}', r'{"p": "{\"a\": bob\\u0040x"}', r'"\\u0040"'])
def test_what_is_no_json_inside_keeps_its_backslashes(source: str) -> None:
    """A path, broken JSON and plain text in a string lose one level of escapes and no more."""
    assert Reading(source, is_json=True).text == _once(source)


def _once(source: str) -> str:
    return source.replace("\\\\", "\\").replace('\\"', '"')


async def test_data_deep_in_arguments_is_redacted(stub: Stub) -> None:
    """A card and a forbidden term three strings deep are no better hidden than in plain sight."""
    part = pb.OutputPart(kind=CALL, tool_call_index=0, text=nested({"c": 4111111111111111, "t": "a\tb"}, 3))
    term = pb.OutputPart(kind=CALL, tool_call_index=0, text=nested({"q": TERM}, 2))
    card, blocked = [
        await stub.CheckOutput(pb.CheckOutputRequest(profile="default", parts=[each])) for each in (part, term)
    ]

    assert bare(card.parts[0].replacement, 3) == {"c": "<CREDIT_CARD>", "t": "a\tb"}
    assert blocked.assessment.verdict == verdict.VERDICT_BLOCK
