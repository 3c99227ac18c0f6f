"""How complex a prompt looks: the score, its bounds, and the reason that goes with it."""

from __future__ import annotations

import time

import pytest

from services.inference.routing.complexity import SIGNALS, judge
from services.inference.routing.rules import ComplexityRule, ComplexityWeights

WORD = "word "


RULE = ComplexityRule()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "simple: 0 words, at most 5"),
        ("why compare and explain this", "simple: 5 words, at most 5"),
        (WORD * 6, "simple: 6 words, no signal (score 0.06, complex from 1)"),
        (WORD * 50, "simple: 50 words, no signal (score 0.50, complex from 1)"),
        (WORD * 51, "complex: 51 words, more than 50"),
        (WORD * 5 + "WHY", "complex: 6 words, signal words why (score 1.06, complex from 1)"),
        (WORD * 5 + "explained comparing", "complex: 7 words, signal words explain (score 1.07, complex from 1)"),
        (WORD * 5 + "pros and cons", "complex: 8 words, signal words pros and cons (score 1.08, complex from 1)"),
        (WORD * 5 + "nowhy inexplicable", "simple: 7 words, no signal (score 0.07, complex from 1)"),
        ("what does this one say? ```x```", "complex: 6 words, code (score 1.06, complex from 1)"),
        ("please tell me about: def f(x): pass", "complex: 7 words, code (score 1.07, complex from 1)"),
        ("my class is on monday at nine", "simple: 7 words, no signal (score 0.07, complex from 1)"),
        ("is it here? or is it there?", "simple: 7 words, several questions (score 0.57, complex from 1)"),
        ("how do people boil an egg", "simple: 6 words, open question (score 0.56, complex from 1)"),
        ("how many eggs are there now", "simple: 6 words, no signal (score 0.06, complex from 1)"),
        (
            "what if it rains? how then shall we go?",
            "complex: 9 words, open question; several questions (score 1.09, complex from 1)",
        ),
        ("how " + WORD * 49, "complex: 50 words, open question (score 1.00, complex from 1)"),
    ],
)
def test_prompts_are_judged(text: str, reason: str) -> None:
    """Length decides at both ends; in between signals add up, and the reason names them."""
    said = judge(text, RULE)

    assert said.reason == reason
    assert said.is_complex == reason.startswith("complex")


@pytest.mark.parametrize("signal", SIGNALS)
def test_each_signal_makes_complex(signal: str) -> None:
    """One of the words is enough, as the file's weights stand."""
    assert judge(WORD * 5 + signal, RULE).reason.startswith(f"complex: {5 + len(signal.split())} words, signal words")


def test_the_rule_has_the_weights() -> None:
    """What counts for how much is the file's to say."""
    quiet = ComplexityRule(weights=ComplexityWeights(signal=0, length=0))
    strict = ComplexityRule(simple_words_max=1, complex_words_min=100, score_min=0.03)

    assert judge(WORD * 5 + "why", quiet).reason == "simple: 6 words, signal words why (score 0.00, complex from 1)"
    assert judge(WORD * 6, strict).is_complex


def test_a_signal_counts_once() -> None:
    """A word said twice is one signal, whatever its case."""
    text = WORD * 5 + "why Why WHY"

    assert not judge(text, ComplexityRule(score_min=2)).is_complex
    assert judge(text + " explain", ComplexityRule(score_min=2)).is_complex


def test_reasons_never_quote_the_user() -> None:
    """A reason goes into receipts and logs: it holds words of this module only."""
    said = judge(WORD * 5 + "explain Jane's diagnosis", RULE)

    assert "Jane" not in said.reason
    assert "diagnosis" not in said.reason


def test_hostile_text_is_judged_fast() -> None:
    """A megabyte that almost is code, word upon word without a space, takes no more than a glance."""
    start = time.process_time()

    said = judge(WORD * 5 + "def-class-" * 100_000, RULE)

    assert said.reason.startswith("simple: 6 words, no signal")
    assert time.process_time() - start < 1
