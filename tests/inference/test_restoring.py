"""The way back: what was anonymised comes back to its own caller, however the answer is cut, and to nobody else."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from millrace.inference.v1 import event_pb2 as ev
from millrace.inference.v1 import generation_pb2 as pb
from services.inference.events import Event
from services.inference.generation import ChoiceFinished, Delta, FinishReason, TokenLogprob, ToolCallDelta
from services.inference.screening.restoring import WayBack, quoted
from tests.fakes.openai_upstream import OpenAIUpstream, Reply
from tests.inference.suite import Serve, Suite, text_of

STOP = ChoiceFinished(0, FinishReason.STOP)
KNOWN = [("<EMAIL_ADDRESS_1>", "a@b.co"), ("<PERSON_1>", 'Jo "<PERSON_2>" Öz'), ("<PERSON_2>", "Ann")]
PRIVATE: dict[str, Any] = {"safety": pb.SafetyPolicy(profile="private")}


@pytest.fixture
async def suite(serve: Serve) -> Suite:
    """Inference with cache and safety."""
    return await serve(cache=True, safety=True)


def text(events: list[Event], kind: str = "text") -> str:
    return "".join(getattr(event, kind) for event in events if isinstance(event, Delta))


def arguments(events: list[Event]) -> str:
    return "".join(call.arguments_json for event in events if isinstance(event, Delta) for call in event.tool_calls)


# One answer.


@settings(max_examples=300, deadline=None)
@given(
    pieces=st.lists(
        st.sampled_from(
            ["<EMAIL_ADDRESS_1>", "<email_address_1>", "<Person_2>", "<PERSON_1>", "<PERSON_3>", "<PERSON_11>", "<",
             ">", "<PER", "SON_2>", "<<PERSON_2>>", "İ", "ẞ", "e\u0301", "😀", "K", "hello ", "\\u003c", "PERSON_2"]
        ),
        max_size=10,
    ),
    seed=st.integers(0, 2**32),
)  # fmt: skip
def test_any_cutting_restores_the_same(pieces: list[str], seed: int) -> None:
    """Text that comes in pieces of any size is restored as the whole would be, and every known placeholder is."""
    answer = "".join(pieces)
    whole = text(WayBack(KNOWN).restorer()([Delta(text=answer), STOP]))
    expected = answer
    for token, original in (("PERSON_2", "Ann"), ("email_address_1", "a@b.co"), ("PERSON_1", "\0")):
        for form in (token, token.lower(), token.upper(), token.capitalize()):
            expected = expected.replace(f"<{form}>", original)
    assert whole == expected.replace("\0", KNOWN[1][1])

    restore, rng, at = WayBack(KNOWN).restorer(), random.Random(seed), 0
    events: list[Event] = []
    while at < len(answer):
        size = rng.randint(1, 6)
        events += restore([Delta(text=answer[at : at + size])])
        at += size
    events += restore([STOP])

    assert text(events) == whole
    assert events[-1] is STOP


def test_text_is_held_only_for_placeholders_of_the_prompt() -> None:
    """What cannot become one of them leaves at once."""
    restore = WayBack(KNOWN).restorer()

    assert text(restore([Delta(text="if a < b or <b>, <EMAIL")])) == "if a < b or <b>, "
    assert text(restore([Delta(text="S>")])) == "<EMAILS>"


def test_choices_and_parts_are_restored_apart() -> None:
    """A placeholder that began in one part does not end in another."""
    restore = WayBack(KNOWN).restorer()

    events = restore([Delta(0, "<PERSON_"), Delta(1, "2>"), Delta(0, reasoning="2>"), Delta(0, "2>"), STOP])

    assert [event.text for event in events if isinstance(event, Delta)] == ["2>", "", "Ann"]
    assert text(events, "reasoning") == "2>"


@pytest.mark.parametrize("written", ["<PERSON_1>", "\\u003cPERSON_1\\u003e", "<person_1>", "\\u003CPerson_1>"])
def test_arguments_stay_json(written: str) -> None:
    """Originals are escaped for the string that they stand in, however the brackets were written, in any pieces."""
    restore = WayBack(KNOWN).restorer()
    calls = [ToolCallDelta(0, "c", "mail", '{"to": "')]
    calls += [ToolCallDelta(0, arguments_json=character) for character in written + '", "n": 1}']

    events = [event for call in calls for event in restore([Delta(tool_calls=(call,))])] + restore([STOP])

    assert json.loads(arguments(events)) == {"to": KNOWN[1][1], "n": 1}


def test_what_never_ended_leaves_with_the_choice() -> None:
    """The beginning of a placeholder at the end of an answer is text, unless the answer was stopped."""
    restore = WayBack(KNOWN).restorer()
    assert text(restore([Delta(text="x <PERSON"), STOP])) == "x <PERSON"

    restore = WayBack(KNOWN).restorer()
    stopped = ChoiceFinished(0, FinishReason.CONTENT_FILTER)
    assert text(restore([Delta(text="x <PERSON"), stopped])) == "x "


def test_log_probabilities_go_with_what_the_model_wrote() -> None:
    """They leave with text that stays as it is, and not with what was put back."""

    def token(piece: str) -> Delta:
        return Delta(text=piece, logprobs=(TokenLogprob(piece, -1.0, piece.encode()),))

    events = WayBack(KNOWN).restorer()(list(map(token, ["a", "<PER", "SON_2>", "b", "<PER", "haps"])))

    told = [one.token for event in events if isinstance(event, Delta) for one in event.logprobs]
    assert (text(events), told) == ("aAnnb<PERhaps", ["a", "b", "<PER", "haps"])


def test_events_are_replaced_never_changed() -> None:
    """Who keeps an event, as the cache does, keeps it anonymised; and the way back shows itself nowhere."""
    delta = Delta(text="<PERSON_2>", tool_calls=(ToolCallDelta(0, "c", "f", '"<PERSON_2>"'),))
    before = msgspec.structs.replace(delta)
    way_back = WayBack(KNOWN)

    way_back.restorer()([delta])

    assert delta == before
    assert "Ann" not in repr(way_back)
    with pytest.raises(TypeError):
        msgspec.json.encode(way_back)


def test_placeholders_where_a_number_was_are_quoted() -> None:
    """Arguments of earlier calls stay JSON when a bare number of them is anonymised."""
    assert (
        quoted('{"n": <PHONE_NUMBER_1>, "s": "\\"<PERSON_1>, "}') == '{"n": "<PHONE_NUMBER_1>", "s": "\\"<PERSON_1>, "}'
    )


# The whole path.


@pytest.mark.parametrize("streamed", [True, False])
async def test_the_model_sees_placeholders_and_the_caller_the_data(
    suite: Suite, upstream: OpenAIUpstream, streamed: bool
) -> None:
    """The prompt goes upstream anonymised; the answer's placeholders, split over deltas, come back as they were."""
    upstream.replies["gpt"] = Reply(words=("Dear <EMAIL_ADD", "RESS_1", ">, call <phone_number_1", "> or <PERSON_9>."))
    asked = "I am ann@example.com, 212-555-0147"
    if streamed:
        answer = text_of(await suite.stream(text=asked, **PRIVATE))
    else:
        answer = (await suite.generate(text=asked, **PRIVATE)).choices[0].text

    assert upstream.asked[0].body["messages"][0]["content"] == "I am <EMAIL_ADDRESS_1>, <PHONE_NUMBER_1>"
    assert answer == "Dear ann@example.com, call 212-555-0147 or <PERSON_9>."


async def test_tool_calls_are_restored_and_anonymised_again(suite: Suite, upstream: OpenAIUpstream) -> None:
    """A call gets the data that the tool needs; sent back as history, it is anonymised like everything else."""
    upstream.replies["gpt"] = Reply(calls=(("c1", "mail", ('{"to": "<EMAIL_', 'ADDRESS_1>"}')),), finish="tool_calls")
    tools: dict[str, Any] = {"tools": [pb.Tool(name="mail")]}
    call = (await suite.generate(text="mail ann@example.com", **tools, **PRIVATE)).choices[0].tool_calls[0]
    assert call.arguments_json == '{"to": "ann@example.com"}'

    upstream.replies["gpt"] = Reply()
    history = [
        pb.Message(role="ROLE_USER", parts=[pb.ContentPart(text="mail ann@example.com")]),
        pb.Message(role="ROLE_ASSISTANT", tool_calls=[call]),
        pb.Message(role="ROLE_TOOL", tool_call_id="c1", parts=[pb.ContentPart(text="sent to ann@example.com")]),
    ]
    await suite.generate(conversation=pb.Conversation(messages=history), **tools, **PRIVATE)

    sent = upstream.asked[1].body["messages"]
    assert sent[1]["tool_calls"][0]["function"]["arguments"] == '{"to": "<EMAIL_ADDRESS_1>"}'
    assert "ann@example.com" not in json.dumps(sent)


async def test_a_kept_answer_holds_nobodys_data(suite: Suite, upstream: OpenAIUpstream, tmp_path: Path) -> None:
    """The entry is anonymised and restored with each caller's own prompt; another's data is another question."""
    upstream.replies["gpt"] = Reply(words=("I wrote to <EMAIL_ADDRESS_1>.",))

    answers = [
        await suite.generate(text=f"mail {name}@example.com", **PRIVATE) for name in ("ann", "ann", "bob", "bob")
    ]

    outcomes = [answer.receipt.cache.outcome for answer in answers]
    assert outcomes == [ev.CACHE_OUTCOME_MISS, ev.CACHE_OUTCOME_EXACT] * 2
    said = [answer.choices[0].text for answer in answers]
    assert said == ["I wrote to ann@example.com."] * 2 + ["I wrote to bob@example.com."] * 2
    assert len(upstream.asked) == 2
    kept = b"".join(path.read_bytes() for path in tmp_path.glob("cache.sqlite3*"))
    assert b"<EMAIL_ADDRESS_1>" in kept
    assert b"ann@example" not in kept
    assert b"bob@example" not in kept


async def test_what_a_model_makes_up_is_not_taken_for_the_callers(suite: Suite, upstream: OpenAIUpstream) -> None:
    """A card that was redacted from the answer has no way back, not even to a caller who named a card."""
    upstream.replies["gpt"] = Reply(words=("Use 5500 0055 5555 5559", ", not <CREDIT_CARD_1>."))

    answer = await suite.generate(text="My card is 4111 1111 1111 1111", **PRIVATE)

    assert answer.choices[0].text == "Use <CREDIT_CARD>, not 4111 1111 1111 1111."


async def test_nothing_of_it_is_traced(
    suite: Suite, upstream: OpenAIUpstream, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither spans nor logs hold an original."""
    upstream.replies["gpt"] = Reply(words=("Hi <EMAIL_ADDRESS_1>",))
    with caplog.at_level("DEBUG"):
        await suite.generate(text="mail ann@example.com", **PRIVATE)

    assert "ann@example" not in caplog.text + "".join(str(vars(record)) for record in caplog.records)
    assert "ann@example" not in "".join(span.to_json() for span in suite.spans.spans)
