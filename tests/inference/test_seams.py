"""What is cut in two by parts or messages is judged as a model reads it: as one."""

from __future__ import annotations

import re
from collections.abc import Sequence

import msgspec
import pytest

from kit.errors import FailedPrecondition
from services.inference.events import Finding, Redacted, Verdict
from services.inference.generation import Delta, Message, Prompt, Role, TextPart
from services.inference.routing.rules import SafetyRule
from services.inference.screening.restoring import WayBack
from services.inference.screening.safety_port import LISTED_FINDINGS_MAX, Assessment, screen_prompt
from services.inference.screening.seams import REACH, Seam, seams_of
from services.inference.screening.segments import Segment, segments_of
from tests.inference.parts import FakeSafety


class Searching(FakeSafety):
    """Finds one word, wherever it stands whole."""

    def __init__(self, word: str, action: Verdict) -> None:
        super().__init__()
        self.word, self.action, self.calls = word, action, 0

    async def check_input(self, profile: str, segments: Sequence[Segment]) -> Assessment:
        self.calls += 1
        found = [
            Finding("word", 1.0, "terms", *match.span(), index, self.action)
            for index, segment in enumerate(segments)
            for match in re.finditer(self.word, segment.text)
        ]
        hit = {one.message_index for one in found}
        verdicts = tuple(self.action if index in hit else Verdict.ALLOW for index in range(len(segments)))
        texts = tuple(
            re.sub(self.word, "<WORD_1>", one.text) if index in hit and self.action is Verdict.REDACT else None
            for index, one in enumerate(segments)
        )
        return Assessment(max(verdicts), tuple(found), verdicts, texts)


def parts(*texts: str) -> Prompt:
    return Prompt(messages=(Message(Role.USER, tuple(map(TextPart, texts))),))


def turns(*texts: str) -> Prompt:
    return Prompt(messages=tuple(Message(Role.USER, (TextPart(text),)) for text in texts))


def texts_of(asked: Prompt) -> list[str]:
    return [part.text for message in asked.messages for part in message.parts if isinstance(part, TextPart)]


@pytest.mark.parametrize("made", [parts, turns])
@pytest.mark.parametrize(
    "texts", [("say pipe", "bomb now"), ("pipe ", "bomb"), ("pipe", " ", "bomb"), tuple("pipe bomb")]
)
async def test_a_word_over_a_seam_is_blocked(made: type, texts: tuple[str, ...]) -> None:
    """Whether the cut is at a blank or not, and however many cuts there are."""
    with pytest.raises(FailedPrecondition) as caught:
        await screen_prompt(Searching("pipe bomb", Verdict.BLOCK), made(*texts), "default", SafetyRule())

    assert caught.value.metadata == {"categories": "word"}


@pytest.mark.parametrize("made", [parts, turns])
async def test_a_word_over_a_seam_is_redacted(made: type) -> None:
    """Where it begins stands what replaces it, and what else was found in a text is replaced as ever."""
    safety = Searching("secret", Verdict.REDACT)
    screen = await screen_prompt(safety, made("a secret, a sec", "r", "et and"), "default", SafetyRule())

    assert texts_of(screen.prompt) == ["a <WORD_1>, a <WORD>", "", " and"]
    assert screen.event
    assert screen.event.verdict is Verdict.REDACT
    assert safety.calls == 2


async def test_what_one_text_holds_is_its_own_matter() -> None:
    """It is told once, and found once: the seam adds nothing."""
    safety = Searching("word", Verdict.FLAG)
    screen = await screen_prompt(safety, parts("my word", "and yours"), "default", SafetyRule())

    assert safety.calls == 1
    assert screen.event
    assert len(screen.event.findings) == 1


async def test_the_next_word_is_not_drawn_in() -> None:
    """An address at the end of a text is found there; glued to the word behind it, it would take that along."""
    screen = await screen_prompt(Searching("a@[a-z.]+", Verdict.REDACT), parts("a@b.com", "thanks"), "", SafetyRule())

    assert texts_of(screen.prompt)[1] == "thanks"


async def test_a_flag_over_a_seam_is_told() -> None:
    """With the message in which it begins."""
    screen = await screen_prompt(Searching("ab cd", Verdict.FLAG), turns("x ab", "cd y"), "default", SafetyRule())

    assert screen.event
    assert [(one.start, one.end, one.message_index) for one in screen.event.findings] == [(2, 4, 0)]


async def test_too_many_findings_hide_none() -> None:
    """Safety lists only so many; where more are to be redacted over seams, nothing passes."""
    found = tuple(Finding("word", 1.0, "terms", 0, 1, 0, Verdict.REDACT) for _ in range(LISTED_FINDINGS_MAX))
    said = Assessment(Verdict.REDACT, found, (Verdict.REDACT,) * 3, ("a", "b", "c"))
    with pytest.raises(FailedPrecondition) as caught:
        await screen_prompt(FakeSafety(said), parts("a ", "b"), "default", SafetyRule())

    assert caught.value.reason == "CONTENT_NOT_JUDGED"


def test_other_roles_and_single_texts_have_no_seams() -> None:
    """Who answers whom is no sentence."""
    asked = Prompt(messages=(Message(Role.SYSTEM, (TextPart("a"),)), Message(Role.USER, (TextPart("b"),))))

    assert seams_of(segments_of(asked)) == []


def test_long_texts_are_read_near_their_seams_only() -> None:
    """And every position leads back to the text that it is from."""
    long = "word " * 1000
    (seam,) = seams_of(segments_of(parts(long, "begin " + long)))
    at = seam.text.index("begin")

    assert len(seam.text) <= 2 * REACH
    assert [(one.part_index, one.text[start:end]) for one, start, end in _spans(seam, at - 5, at + 5)] == [
        (0, "word "),
        (1, "begin"),
    ]


def _spans(seam: Seam, start: int, end: int) -> list[tuple[Segment, int, int]]:
    return seam.spans(Finding("word", 1.0, "terms", start, end))


class Numbering(Searching):
    """Replaces what it finds with a way back, over all texts of a call."""

    async def check_input(self, profile: str, segments: Sequence[Segment]) -> Assessment:
        said = await super().check_input(profile, segments)
        found = tuple(
            Redacted(**msgspec.structs.asdict(one), placeholder=f"<WORD_{self.calls}>") for one in said.findings
        )
        texts = tuple(text and text.replace("<WORD_1>", f"<WORD_{self.calls}>") for text in said.replacements)
        return msgspec.structs.replace(
            said, findings=found, replacements=texts, way_back=WayBack([(f"<WORD_{self.calls}>", self.word)])
        )


async def test_what_is_cut_out_of_a_seam_has_a_way_back() -> None:
    """Its placeholder stands in the prompt, and the answer gets the whole of it back, beside those of the texts."""
    screen = await screen_prompt(
        Numbering("secret", Verdict.REDACT), parts("one sec", "ret, secret"), "p", SafetyRule()
    )

    assert texts_of(screen.prompt) == ["one <WORD_1>", ", <WORD_2>"]
    assert screen.way_back
    answer = screen.way_back.restorer()([Delta(0, "<WORD_1> and <word_2>")])
    assert [event.text for event in answer if isinstance(event, Delta)] == ["secret and secret"]


async def test_a_seam_alone_has_a_way_back() -> None:
    """Also where the texts that are left hold nothing to replace."""
    screen = await screen_prompt(Numbering("secret", Verdict.REDACT), parts("sec", "ret"), "p", SafetyRule())

    assert texts_of(screen.prompt) == ["<WORD_1>", ""]
    assert screen.way_back
    assert screen.way_back.restorer()([Delta(0, "<WORD_1>")]) == [Delta(0, "secret")]
