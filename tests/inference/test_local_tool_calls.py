"""Calls of tools as models write them: recognised from templates, read as they come."""

from __future__ import annotations

import json
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.inference.engines.local.tool_calls import ToolCallReader, joined
from services.inference.engines.local.tool_format import HERMES, LLAMA, MISTRAL, ToolFormat, recognise
from services.inference.generation import ToolCallDelta

WEATHER = '{"city": "Köln \\"}{<", "days": [1, {"a": null}]}'
Read = tuple[str, list[tuple[str, str]]]


def read(
    tool_format: ToolFormat, pieces: list[str], *, is_cut: bool = False, call_count_max: int | None = None
) -> Read:
    """The text of an answer and its calls, each by name and arguments."""
    reader = ToolCallReader(tool_format, {"weather", "time"}, call_count_max)
    texts, deltas = [], list[ToolCallDelta]()
    for text, some in [*map(reader.add, pieces), reader.flush(is_cut)]:
        texts.append(text)
        deltas += some
    calls = joined(deltas)
    assert [call.index for call in calls] == list(range(len(calls)))
    assert len({call.id for call in calls}) == len(calls) == reader.call_count
    return "".join(texts), [(call.name, call.arguments_json) for call in calls]


def object_of(name: str, arguments: str, key: str = "arguments") -> str:
    """A call as JSON."""
    return f'{{"name": "{name}", "{key}": {arguments}}}'


CALL, TIME = object_of("weather", WEATHER), object_of("time", "{}")
BOTH = [("weather", WEATHER), ("time", "{}")]
ANSWERS: dict[str, tuple[ToolFormat, str, Read]] = {
    "hermes": (
        HERMES,
        f"I look.\n<tool_call>\n{CALL}\n</tool_call>\n<tool_call>\n{TIME}\n</tool_call>",
        ("I look.\n", BOTH),
    ),
    "hermes without text": (HERMES, f"\n\n<tool_call>{CALL}</tool_call>\n", ("", BOTH[:1])),
    "hermes, one block": (HERMES, f"<tool_call>{CALL}\n{TIME}</tool_call> done", (" done", BOTH)),
    "hermes, other order": (
        HERMES,
        f'<tool_call>{{"arguments": {WEATHER}, "name": "weather"}}</tool_call>',
        ("", BOTH[:1]),
    ),
    "hermes, arguments as text": (
        HERMES,
        f'<tool_call>{{"name": "weather", "arguments": {json.dumps(WEATHER)}}}</tool_call>',
        ("", BOTH[:1]),
    ),
    "hermes, no arguments": (HERMES, '<tool_call>{"name": "time"}</tool_call>', ("", BOTH[1:])),
    "hermes, never closed": (HERMES, f"<tool_call>{CALL}", ("", BOTH[:1])),
    "mistral": (MISTRAL, f'[TOOL_CALLS] [{CALL}, {TIME[:-1]}, "id": "a1"}}]', ("", BOTH)),
    "mistral, newer": (
        MISTRAL,
        f"Yes[TOOL_CALLS]weather[ARGS]{WEATHER}[TOOL_CALLS]time[CALL_ID]x[ARGS]{{}}",
        ("Yes", BOTH),
    ),
    "llama": (LLAMA, f"{object_of('weather', WEATHER, 'parameters')}; {TIME}", ("", BOTH)),
    "llama, marked": (LLAMA, f"<|python_tag|>{object_of('other', '{}', 'parameters')}", ("", [("other", "{}")])),
    "llama, text first": (LLAMA, f"Well. <|python_tag|>{CALL}", ("Well. ", BOTH[:1])),
}
TEXTS = {
    "a marker that is none": (HERMES, "1 <tool_cat> 2 <tool_call> three"),
    "a broken call": (HERMES, '<tool_call>{"name": 3}</tool_call>'),
    "no object": (MISTRAL, "see [TOOL_CALLS] [1, 2] and [ARGS]"),
    "another object": (LLAMA, '{"name": "Ada", "arguments": {}}'),
    "a list": (LLAMA, "[1, 2] <|python_tag|> print()"),
    "blanks": (HERMES, " \n "),
    "half a marker at the end": (HERMES, "a < b <tool"),
}


@pytest.mark.parametrize("case", ANSWERS)
@given(seed=st.integers(0, 10**6))
def test_calls_are_read_however_they_are_cut(case: str, seed: int) -> None:
    """Whatever pieces an answer comes in, its calls and its text are the same, and no marker is in the text."""
    tool_format, answer, expected = ANSWERS[case]

    assert read(tool_format, _pieces(answer, seed)) == expected


@pytest.mark.parametrize("case", TEXTS)
@given(seed=st.integers(0, 10**6))
def test_what_only_looks_like_a_call_is_text(case: str, seed: int) -> None:
    """Text with half a marker, broken JSON or another object arrives whole."""
    tool_format, answer = TEXTS[case]

    assert read(tool_format, _pieces(answer, seed)) == (answer, [])


def test_arguments_leave_as_they_come() -> None:
    """The first piece has the id and the name, each further one the arguments written since."""
    reader = ToolCallReader(HERMES, {"weather"})
    pieces = ["<tool_", 'call>{"na', 'me": "weather", ', '"arguments": {"ci', 'ty": "Ro', 'me"}}', "</tool_call>"]

    told = [reader.add(piece) for piece in pieces]

    assert [text for text, _ in told] == [""] * len(pieces)
    calls = [some for _, some in told]
    assert calls[:2] == [(), ()]
    assert (calls[2][0].name, bool(calls[2][0].id)) == ("weather", True)
    assert [some[0].arguments_json for some in calls[3:6]] == ['{"ci', 'ty": "Ro', 'me"}']
    assert not any(one.id or one.name for some in calls[3:] for one in some)


@pytest.mark.parametrize("length", range(1, len("<tool_call>")))
def test_half_a_marker_of_a_cut_answer_stays_unsaid(length: int) -> None:
    """An answer that its length or deadline cut within a marker ends before it."""
    assert read(HERMES, ["so: " + "<tool_call>"[:length]], is_cut=True) == ("so: ", [])


def test_one_call_may_be_enough() -> None:
    """Where calls may not be parallel, nothing after the first one counts."""
    assert read(HERMES, [f"<tool_call>{CALL}</tool_call><tool_call>{TIME}"], call_count_max=1) == ("", BOTH[:1])


@given(st.text(alphabet='<tool_ca>/{}[]":,\\ namergus1', max_size=80))
def test_nothing_is_lost_and_nothing_is_endless(text: str) -> None:
    """Whatever a model writes, reading ends, and what holds no call is what it wrote."""
    said, calls = read(HERMES, list(text))

    assert calls or said == text


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("{% if tools %}<tool_call>{{ x }}</tool_call>", HERMES),
        ("{% if tools %}[AVAILABLE_TOOLS]...[TOOL_CALLS]", MISTRAL),
        ("{% if tools %}{{ '<|python_tag|>' }}", LLAMA),
        ('{% if tools %}Environment: ipython ... "parameters": ', LLAMA),
        ({"default": "plain", "tool_use": "{% if tools %}<tool_call>"}, HERMES),
        ("<tool_call> is said, but nothing is given", None),
        ("{% if tools %}in a way of its own", None),
        (None, None),
    ],
)
def test_formats_are_recognised(template: str | dict[str, str] | None, expected: ToolFormat | None) -> None:
    """The chat template tells how its model writes calls."""
    assert recognise(template) == expected


def _pieces(text: str, seed: int) -> list[str]:
    rng = random.Random(seed)
    pieces, at = [], 0
    while at < len(text):
        size = rng.randint(1, 7)
        pieces.append(text[at : at + size])
        at += size
    return pieces
