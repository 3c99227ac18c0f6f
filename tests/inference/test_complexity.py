"""How complex a prompt looks: the score, its bounds, and the reason that goes with it."""

from __future__ import annotations

import time

import pytest

from services.inference.complexity import judge

WORD = "word "


@pytest.mark.parametrize(
    ("text", "is_complex", "reason"),
    [
        ("", False, "simple: 0 words, at most 5"),
        ("why compare and explain this", False, "simple: 5 words, at most 5"),
        (WORD * 6, False, "simple: 6 words, no signal"),
        (WORD * 50, False, "simple: 50 words, no signal"),
        (WORD * 51, True, "complex: 51 words, more than 50"),
        (WORD * 5 + "WHY", True, "complex: 6 words, signal words why"),
        (WORD * 5 + "explained comparing", True, "complex: 7 words, signal words explain"),
        (WORD * 5 + "pros and cons", True, "complex: 8 words, signal words pros and cons"),
        (WORD * 5 + "nowhy inexplicable", False, "simple: 7 words, no signal"),
        ("what does this one say? ```x```", True, "complex: 6 words, code"),
        ("please tell me about: def f(x): pass", True, "complex: 7 words, code"),
        ("my class is on monday at nine", False, "simple: 7 words, no signal"),
        ("is it here? or is it there?", False, "simple: 7 words, several questions"),
        ("is it here? or there? compare the two", True, "complex: 8 words, signal words compare; several questions"),
    ],
)
def test_prompts_are_judged(text: str, is_complex: bool, reason: str) -> None:
    """Length decides at both ends; in between signals do, and the reason names them."""
    said = judge(text, 5, 50, 1.0)

    assert (said.is_complex, said.reason) == (is_complex, reason)


def test_a_signal_counts_once() -> None:
    """A word said twice is one signal, whatever its case."""
    text = WORD * 5 + "why Why WHY"

    assert not judge(text, 5, 50, 2.0).is_complex
    assert judge(text + " explain", 5, 50, 2.0).is_complex


def test_reasons_never_quote_the_user() -> None:
    """A reason goes into receipts and logs: it holds words of this module only."""
    said = judge(WORD * 5 + "explain Jane's diagnosis", 5, 50, 1.0)

    assert "Jane" not in said.reason
    assert "diagnosis" not in said.reason


def test_hostile_text_is_judged_fast() -> None:
    """A megabyte that almost is code, word upon word without a space, takes no more than a glance."""
    start = time.process_time()

    said = judge(WORD * 5 + "def-class-" * 100_000, 5, 50, 1.0)

    assert said.reason == "simple: 6 words, no signal"
    assert time.process_time() - start < 1
