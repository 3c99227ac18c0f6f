"""Safety's part before the answer: what is judged, and what a verdict or a failure means."""

from __future__ import annotations

from typing import Any

import pytest

from kit.errors import (
    Code,
    DeadlineExceeded,
    FailedPrecondition,
    InvalidArgument,
    MillraceError,
    Unavailable,
    Unimplemented,
)
from services.inference.events import Direction, Finding, SafetyEvent, Verdict
from services.inference.generation import (
    ImagePart,
    Message,
    OutputFormat,
    Prompt,
    Role,
    Sampling,
    TextPart,
    Tool,
    ToolCall,
)
from services.inference.routing.rules import SafetyRule
from services.inference.screening.safety_port import (
    LISTED_FINDINGS_MAX,
    OFF,
    Assessment,
    InputScreen,
    blocked,
    screen_prompt,
    unreachable,
)
from services.inference.screening.segments import TOOL_NAMES, Segment, segments_of, with_texts
from tests.inference.parts import FakeSafety

CLOSED, OPEN = SafetyRule(), SafetyRule(on_unavailable="open")
PICTURE = ImagePart("https://example.com/a.png")
TALK = Prompt(
    messages=(
        Message(Role.SYSTEM, (TextPart("be kind"),)),
        Message(Role.USER, (TextPart("look: "), PICTURE, TextPart(""), TextPart("me@x.y"))),
        Message(Role.TOOL, (TextPart("42"),), tool_call_id="c"),
    )
)


NOT_CONFIGURED = Unimplemented("SAFETY_NOT_CONFIGURED", "none")


def found(category: str, segment: int = 0, action: Verdict = Verdict.FLAG) -> Finding:
    return Finding(category, 0.9, "pii", 1, 4, segment, action)


def said(verdict: Verdict, *findings: Finding, **fields: Any) -> Assessment:
    return Assessment(verdict, findings, policy_version="v1", **fields)


async def screened(
    what: Assessment | MillraceError | None, asked: Prompt = TALK, rule: SafetyRule = CLOSED, profile: str = "default"
) -> InputScreen:
    return await screen_prompt(FakeSafety(what), asked, profile, rule)


async def refusal(what: Assessment | MillraceError, rule: SafetyRule = CLOSED) -> MillraceError:
    with pytest.raises(MillraceError) as caught:
        await screened(what, rule=rule)
    return caught.value


async def test_every_text_is_judged() -> None:
    """By who wrote it and where it stands, and joined; pictures and empty parts are not sent."""
    safety = FakeSafety(said(Verdict.ALLOW))
    await screen_prompt(safety, TALK, "default", CLOSED)

    assert safety.segments == [
        Segment(Role.SYSTEM, "be kind", 0, 0),
        Segment(Role.USER, "look: ", 1, 0),
        Segment(Role.USER, "me@x.y", 1, 3),
        Segment(Role.TOOL, "42", 2, 0),
        Segment(Role.USER, "look: me@x.y", 1, 0),
    ]


async def test_arguments_of_earlier_calls_are_judged() -> None:
    """What a model was told to do in an earlier turn goes upstream again; what replaces it stays JSON."""
    calls = (ToolCall("c1", "now", ""), ToolCall("c2", "call", '{"number": 2125550147}'))
    asked = Prompt(messages=(Message(Role.ASSISTANT, (TextPart("on it"),), tool_calls=calls),))
    safety = FakeSafety(said(Verdict.REDACT, replacements=(None, None, None, '{"number": <PHONE_NUMBER_1>}')))

    screen = await screen_prompt(safety, asked, "default", CLOSED)

    assert [one.text for one in safety.segments[:3]] == ["on it", "now", "call"]
    assert safety.segments[3] == Segment(Role.ASSISTANT, '{"number": 2125550147}', 0, 1, "arguments")
    changed = screen.prompt.messages[0]
    assert changed.parts == (TextPart("on it"),)
    assert [call.arguments_json for call in changed.tool_calls] == ["", '{"number": "<PHONE_NUMBER_1>"}']


EVERYWHERE = Prompt(
    messages=(Message(Role.ASSISTANT, (TextPart("t0"),), "t1", (ToolCall("c", "t15", '"t2"'),), refusal="t3"),),
    tools=(Tool("t16", "t4", '{"t5": 1}'),),
    sampling=Sampling(stop=("t6", "t7")),
    output_format=OutputFormat("json_schema", "x", "t8", '{"t9": 1}', regex="t10", choices=("t11",)),
    end_user_id="t12",
    metadata={"a": "t13", "b": "t14"},
)


def test_nothing_written_is_left_out() -> None:
    """Names, refusals, tools, schemas, stop strings, and what upstreams keep of the caller."""
    texts = [segment.text for segment in segments_of(EVERYWHERE)]
    order = (0, 15, 2, 1, 3, 16, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14)

    assert all(f"t{number}" in text for number, text in zip(order, texts, strict=True))


def test_what_is_replaced_leaves_the_prompt() -> None:
    """Every text has a way back to its place; names, the user and metadata are dropped, since they are keys."""
    new = {segment.place: f'"new {index}"' for index, segment in enumerate(segments_of(EVERYWHERE))}
    changed = with_texts(EVERYWHERE, new)

    left = [segment for segment in segments_of(changed) if segment.field not in TOOL_NAMES]
    assert not any("t" in segment.text.replace("text", "") for segment in left)
    assert (changed.messages[0].name, changed.end_user_id, changed.metadata) == (None, None, {})
    assert len(segments_of(changed)) == len(segments_of(EVERYWHERE)) - 4
    assert with_texts(EVERYWHERE, {}) == EVERYWHERE


async def test_a_tool_that_would_be_renamed_is_refused() -> None:
    """Its caller knows it by its name, so nothing can stand in for that; a declared one is judged once."""
    calls = (ToolCall("c", "me@x.y", ""),)
    asked = Prompt(messages=(Message(Role.ASSISTANT, tool_calls=calls),), tools=(Tool("me@x.y"),))
    assert [(one.text, one.field) for one in segments_of(asked)] == [("me@x.y", "tool_name")]
    found = Finding("EMAIL_ADDRESS", 1.0, "pii", 0, 6, 0, Verdict.REDACT)

    with pytest.raises(FailedPrecondition) as caught:
        await screened(Assessment(Verdict.REDACT, (found,), (Verdict.REDACT,), ("<EMAIL_ADDRESS>",)), asked)
    assert caught.value.metadata == {"categories": "EMAIL_ADDRESS"}


async def test_a_tool_that_would_be_renamed_is_refused_unlisted() -> None:
    """Where safety lists no more findings, what it redacted in a name is refused all the same."""
    asked = Prompt(messages=(Message(Role.USER, (TextPart("long"),)),), tools=(Tool("me@x.y"),))
    found = Finding("EMAIL_ADDRESS", 1.0, "pii", 0, 4, 0, Verdict.REDACT)
    many = Assessment(Verdict.REDACT, (found,) * LISTED_FINDINGS_MAX, (Verdict.REDACT,) * 2, ("<EMAIL>", "<EMAIL>"))

    with pytest.raises(FailedPrecondition) as caught:
        await screened(many, asked)
    assert caught.value.reason == "CONTENT_NOT_JUDGED"


async def test_a_raw_prompt_is_the_users() -> None:
    """It is one text."""
    safety = FakeSafety(said(Verdict.ALLOW))
    await screen_prompt(safety, Prompt(raw_prompt="Once"), "default", CLOSED)

    assert safety.segments == [Segment(Role.USER, "Once", 0, 0)]


@pytest.mark.parametrize(
    ("asked", "profile"), [(TALK, OFF), (Prompt(messages=(Message(Role.USER, (PICTURE,)),)), "default")]
)
async def test_nothing_to_judge_asks_nobody(asked: Prompt, profile: str) -> None:
    """A profile of `off`, or a prompt without text."""
    assert await screened(None, asked, profile=profile) == InputScreen(asked)


async def test_what_is_allowed_goes_on_silently() -> None:
    """No event; the policy's version is remembered for the cache."""
    assert await screened(said(Verdict.ALLOW)) == InputScreen(TALK, None, "v1")


async def test_what_is_flagged_goes_on_as_it_is() -> None:
    """And is told, by message, not by segment."""
    screen = await screened(said(Verdict.FLAG, found("EMAIL", 2), found("AGE", 3)))

    assert screen.prompt is TALK
    assert screen.event == SafetyEvent(
        Direction.INPUT, Verdict.FLAG, (found("EMAIL", 1), found("AGE", 2)), "default", "v1"
    )


async def test_what_is_redacted_is_replaced() -> None:
    """In its own part alone; everything else, pictures included, stays where it was."""
    screen = await screened(said(Verdict.REDACT, found("EMAIL", 2), replacements=(None, None, "<EMAIL>", None)))

    system, user, tool = screen.prompt.messages
    assert user.parts == (TextPart("look: "), PICTURE, TextPart(""), TextPart("<EMAIL>"))
    assert (system, tool) == (TALK.messages[0], TALK.messages[2])
    assert screen.event
    assert screen.event.verdict is Verdict.REDACT


async def test_a_raw_prompt_is_redacted() -> None:
    """As a message would be; a text may also be replaced by nothing."""
    raw = Prompt(raw_prompt="me@x.y")

    for text in ("<EMAIL>", ""):
        screen = await screened(said(Verdict.REDACT, replacements=(text,)), raw)
        assert screen.prompt.raw_prompt == text


async def test_what_is_blocked_is_refused() -> None:
    """With the categories that blocked it, in order, without those that are only flagged and any word of the text."""
    blocking = [found("violence", 2, Verdict.BLOCK), found("hate", 0, Verdict.BLOCK), found("hate", 1, Verdict.BLOCK)]
    error = await refusal(said(Verdict.BLOCK, *blocking, found("EMAIL_ADDRESS")))

    assert (error.code, error.reason) == (Code.FAILED_PRECONDITION, "CONTENT_BLOCKED")
    assert error.metadata == {"categories": "hate,violence"}
    assert "me@x.y" not in error.message


def test_a_block_without_a_finding() -> None:
    """A detector that failed closed found nothing: the refusal says that it could not look."""
    assert blocked(()).metadata == {"categories": "unscreened"}


async def test_a_detector_that_failed_open_is_told() -> None:
    """Allowed without a look is not the same as allowed."""
    screen = await screened(said(Verdict.ALLOW, unscreened=True))

    assert screen.event
    assert (screen.event.verdict, screen.event.unscreened) == (Verdict.ALLOW, True)


async def test_a_safety_that_is_not_configured() -> None:
    """A closed rule tells the operator's mistake as it is, not as something that a retry would mend."""
    assert await refusal(NOT_CONFIGURED) is NOT_CONFIGURED
    assert (await screened(NOT_CONFIGURED, rule=OPEN)).event


@pytest.mark.parametrize(
    ("failure", "reason"),
    [(Unavailable("DOWN", "down"), "SAFETY_UNAVAILABLE"), (DeadlineExceeded("SLOW", "slow"), "SAFETY_TIMEOUT")],
)
async def test_a_safety_that_is_away(failure: MillraceError, reason: str) -> None:
    """Closed refuses and says when to come back; open goes on and says so."""
    error = await refusal(failure)
    assert (error.code, error.reason, error.retry_after_ms) == (Code.UNAVAILABLE, reason, 1000)
    assert error.__cause__ is failure

    screen = await screened(failure, rule=OPEN)
    assert screen.prompt is TALK
    assert screen.event == SafetyEvent(Direction.INPUT, Verdict.ALLOW, profile="default", unscreened=True)
    assert screen.policy_version == ""


@pytest.mark.parametrize("rule", [CLOSED, OPEN])
async def test_an_unknown_profile_is_the_callers_fault(rule: SafetyRule) -> None:
    """Not even an open rule lets a misspelt profile through unscreened."""
    error = await refusal(InvalidArgument("profile", "unknown"), rule)

    assert error.code is Code.INVALID_ARGUMENT
    assert error.field_violations[0].field == "spec.safety.profile"


@pytest.mark.parametrize("rule", [CLOSED, OPEN])
def test_what_safety_refuses_to_judge_does_not_pass(rule: SafetyRule) -> None:
    """Safety was reached: an open rule is for when it is not, else long text would be the way around it."""
    with pytest.raises(FailedPrecondition) as caught:
        unreachable(InvalidArgument("segments", "too many"), "default", rule, Direction.OUTPUT)

    assert caught.value.reason == "CONTENT_NOT_JUDGED"
