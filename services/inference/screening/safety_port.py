"""Safety's part in a generation: the prompt before, every piece of the answer after.

Says what to judge, and what a verdict or a failure means for the caller. What text is harmful is the safety service's
matter.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Protocol

import msgspec

from kit.errors import Code, FailedPrecondition, InvalidArgument, MillraceError, Unavailable
from services.inference.events import Direction, Finding, SafetyEvent, Verdict
from services.inference.generation import Prompt
from services.inference.routing.rules import SafetyRule
from services.inference.screening.restoring import WayBack
from services.inference.screening.seams import findings_over, placeholder_of, seams_of, without
from services.inference.screening.segments import TOOL_NAMES, Segment, segments_of, with_texts

OFF = "off"
GUESSED = frozenset({"PERSON", "LOCATION"})  # kinds that a model guesses, so that in a tool's name they are told only
LISTED_FINDINGS_MAX = 1000  # safety counts the rest
REFUSAL = "I can't share this answer: it was stopped by the safety policy."


class OutputPiece(msgspec.Struct):
    """A piece of an answer to be judged; `kind` is text, reasoning, refusal, tool_arguments or tool_name."""

    choice_index: int
    kind: str
    text: str = ""
    tool_call_index: int = 0
    end_of_part: bool = False
    end_of_choice: bool = False


class Released(msgspec.Struct, frozen=True):
    """Text of an answer that may leave; `released_through` counts code points of the original part."""

    choice_index: int
    kind: str
    tool_call_index: int
    text: str
    released_through: int


class Judged(msgspec.Struct, frozen=True):
    """Something was found in an answer; REDACT means that the span was or will be replaced."""

    choice_index: int
    kind: str
    verdict: Verdict
    finding: Finding


class ChoiceJudged(msgspec.Struct, frozen=True):
    """A choice is over: everything of it that may leave was released."""

    choice_index: int
    verdict: Verdict


class Assessment(msgspec.Struct, frozen=True):
    """The judgement of all texts of one call.

    `verdicts` and `replacements` go text by text; a replacement is None where the text stays as it is. Both are empty
    at the end of a stream. `way_back` leads from placeholders in the replacements to what they stand for.
    """

    verdict: Verdict
    findings: tuple[Finding, ...] = ()
    verdicts: tuple[Verdict, ...] = ()
    replacements: tuple[str | None, ...] = ()
    policy_version: str = ""
    unscreened: bool = False
    way_back: WayBack | None = None


class OutputStream(Protocol):
    """One answer while it is judged; failures are raised as `kit.errors` classes."""

    async def send(self, pieces: Sequence[OutputPiece]) -> None:
        """Hands pieces over, in order."""
        ...

    async def done(self) -> None:
        """Says that the answer is over."""
        ...

    def __aiter__(self) -> AsyncIterator[Sequence[Released | Judged | ChoiceJudged | Assessment]]:
        """What was decided, in order; the last item is the assessment."""
        ...

    def cancel(self) -> None:
        """Ends it; harmless when it is over."""
        ...


class SafetyPort(Protocol):
    """The safety service, or what stands for it; failures are raised as `kit.errors` classes."""

    async def check_input(self, profile: str, segments: Sequence[Segment]) -> Assessment:
        """Judges a prompt."""
        ...

    async def check_output(self, profile: str, pieces: Sequence[OutputPiece]) -> Assessment:
        """Judges a whole answer."""
        ...

    def stream_output(self, profile: str, choice_count: int) -> OutputStream:
        """Judges an answer as it grows."""
        ...


class InputScreen(msgspec.Struct, frozen=True):
    """What came of judging the prompt: the prompt to go on with, and the event to tell where there is one.

    `way_back` is for the answer, where the prompt was anonymised.
    """

    prompt: Prompt
    event: SafetyEvent | None = None
    policy_version: str = ""
    way_back: WayBack | None = None


async def screen_prompt(port: SafetyPort, prompt: Prompt, profile: str, rule: SafetyRule) -> InputScreen:
    """Judges the prompt.

    Raises:
        FailedPrecondition: The prompt is refused (CONTENT_BLOCKED); `categories` are in the metadata.
        Unavailable: The service cannot be reached and the rule is closed (SAFETY_UNAVAILABLE).
    """
    return await _screened(port, prompt, profile, rule)


Split = Sequence[tuple[Segment, Finding]]


async def _screened(
    port: SafetyPort, prompt: Prompt, profile: str, rule: SafetyRule, over: Sequence[Split] = ()
) -> InputScreen:
    """Judges texts and seams; what is redacted over a seam is cut out first, and the rest judged once more.

    The placeholders of seams stand in the texts by then, so their numbers are not given away again.
    """
    segments = segments_of(prompt)
    if profile == OFF or not segments:
        return InputScreen(prompt)
    seams = [] if over else seams_of(segments)
    try:
        said = await port.check_input(profile, [*segments, *(seam.asked for seam in seams)])
    except MillraceError as error:
        return InputScreen(prompt, unreachable(error, profile, rule, Direction.INPUT))
    if said.verdict is Verdict.BLOCK:
        raise blocked(said.findings)
    if seams:
        own = [(segments[one.message_index], one) for one in said.findings if one.message_index < len(segments)]
        over = list(findings_over(zip(seams, _by_seam(said, len(segments), len(seams)), strict=True), own))
        if new := without(over):
            screen = await _screened(port, with_texts(prompt, new), profile, rule, over)
            tokens = [placeholder_of(pieces[0][1]) for pieces in over]
            way_back = (screen.way_back or WayBack(())).joined(said.way_back, tokens) if said.way_back else None
            return msgspec.structs.replace(screen, way_back=way_back or screen.way_back)
    _all_told(said, (one for text, one in zip(segments, said.verdicts, strict=False) if text.field in TOOL_NAMES))
    if told := [one for one in said.findings if one.action is Verdict.REDACT and _is_in_tool_name(segments, one)]:
        raise blocked(told)
    new = {
        segment.place: text
        for segment, text in zip(segments, said.replacements, strict=False)  # seams' own are of no use
        if text is not None
    }
    event = _event(said, segments, over, profile)
    return InputScreen(with_texts(prompt, new) if new else prompt, event, said.policy_version, said.way_back)


def _is_in_tool_name(segments: Sequence[Segment], finding: Finding) -> bool:
    """Whether it stands in a name that nothing can replace, for the caller knows the tool by it; "Jira" is nobody's."""
    index = finding.message_index
    return index < len(segments) and segments[index].field in TOOL_NAMES and finding.category not in GUESSED


def _all_told(said: Assessment, verdicts: Iterable[Verdict]) -> None:
    """Makes sure that what is to be redacted in some texts is known: those of `verdicts`.

    Raises:
        FailedPrecondition: There is more than safety lists (CONTENT_NOT_JUDGED).
    """
    if len(said.findings) >= LISTED_FINDINGS_MAX and Verdict.REDACT in verdicts:
        raise FailedPrecondition("CONTENT_NOT_JUDGED", "there is too much to redact in this text; send less")


def _by_seam(said: Assessment, first: int, count: int) -> list[list[Finding]]:
    """What was found in each seam; they were judged behind the segments.

    Raises:
        FailedPrecondition: Something is to be redacted, and there is more than safety lists (CONTENT_NOT_JUDGED).
    """
    _all_told(said, said.verdicts[first:])
    found: list[list[Finding]] = [[] for _ in range(count)]
    for one in said.findings:
        if one.message_index >= first:
            found[one.message_index - first].append(one)
    return found


def _event(said: Assessment, segments: Sequence[Segment], over: Sequence[Split], profile: str) -> SafetyEvent | None:
    """What there is to tell: what was found in the texts, and over their seams what was found in none of them."""
    findings = [
        msgspec.structs.replace(one, message_index=segments[one.message_index].message_index)
        for one in said.findings
        if one.message_index < len(segments)
    ]
    known = {(one.category, one.action) for one in findings}
    for pieces in over:
        finding = pieces[0][1]
        if (finding.category, finding.action) not in known:
            known.add((finding.category, finding.action))
            findings.append(finding)
    verdicts = said.verdicts[: len(segments)] or (said.verdict,)
    verdict = max((*verdicts, *(one.action for one in findings)))
    if verdict is Verdict.ALLOW and not said.unscreened:
        return None
    return SafetyEvent(
        Direction.INPUT, verdict, tuple(findings), profile, said.policy_version, unscreened=said.unscreened
    )


def unreachable(error: MillraceError, profile: str, rule: SafetyRule, direction: Direction) -> SafetyEvent:
    """What a failure of the safety service means: an error where the rule is closed, else an event that says so.

    Raises:
        MillraceError: The rule is closed, or safety was reached and refused to judge: it knows no such profile, or the
            text breaks a limit of its. Text that can be chosen so that it is not judged must not pass.
    """
    if any(violation.field == "profile" for violation in error.field_violations):
        raise InvalidArgument("spec.safety.profile", f"safety knows no profile {profile!r}") from error
    if error.code is Code.INVALID_ARGUMENT:
        raise FailedPrecondition(
            "CONTENT_NOT_JUDGED", "the safety service cannot judge this text; send less"
        ) from error
    if rule.on_unavailable == "closed" and error.code is Code.UNIMPLEMENTED:
        raise error  # the operator has configured none: a retry would not help
    if rule.on_unavailable == "closed" and error.code is Code.DEADLINE_EXCEEDED:
        message = "the safety service did not judge the text in time; retry, or send less at once"
        raise Unavailable("SAFETY_TIMEOUT", message, retry_after_ms=1_000) from error
    if rule.on_unavailable == "closed":
        raise Unavailable(
            "SAFETY_UNAVAILABLE",
            "the safety service cannot be reached and the policy is to refuse; retry",
            retry_after_ms=1000,
        ) from error
    return SafetyEvent(direction, Verdict.ALLOW, profile=profile, unscreened=True)


def blocked(findings: Sequence[Finding]) -> FailedPrecondition:
    """The refusal of a prompt; it names the categories that blocked it, never words."""
    categories = ",".join(sorted({one.category for one in findings if one.action >= Verdict.REDACT})) or "unscreened"
    message = "the prompt was refused by the safety policy"
    return FailedPrecondition("CONTENT_BLOCKED", message, metadata={"categories": categories})
