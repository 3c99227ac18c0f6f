"""How complex a prompt looks: a small, explainable score that `auto` chooses by.

It looks at words, never at meaning, and it always says why.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from services.inference.routing.rules import ComplexityRule, ComplexityWeights

SIGNALS = (
    "compare", "difference", "why", "explain", "analyze", "analyse", "implement", "design", "architecture", "tradeoff",
    "trade-off", "pros and cons",
)  # fmt: skip
_SIGNAL = re.compile(r"\b(" + "|".join(SIGNALS) + r")", re.IGNORECASE)
_CODE = re.compile(r"```|\b(def|class|function|import|SELECT|return)\b.{0,100}[({;:=]")
# "How many" and its like ask for a fact.
_OPEN_QUESTION = re.compile(
    r"\b(how(?! (?:many|much|old|long|far|often|big|tall)\b)|what if|in what way)\b", re.IGNORECASE
)
_CHARS_MAX = 10_000  # where signals are looked for: few words are rarely longer, and hostile ones cost no more


@dataclass(frozen=True, slots=True)
class Complexity:
    """The judgement of one prompt."""

    is_complex: bool
    reason: str


def judge(text: str, rule: ComplexityRule) -> Complexity:
    """Judges the last thing that the user said; few words are always simple, many always complex."""
    word_count = len(text.split())
    if word_count > rule.complex_words_min:
        return Complexity(True, f"complex: {word_count} words, more than {rule.complex_words_min}")
    if word_count <= rule.simple_words_max:
        return Complexity(False, f"simple: {word_count} words, at most {rule.simple_words_max}")
    score, seen = _score(text[:_CHARS_MAX], rule.weights)
    score += rule.weights.length * word_count / rule.complex_words_min
    is_complex = score >= rule.score_min
    reason = (
        f"{word_count} words, {'; '.join(seen) or 'no signal'} (score {score:.2f}, complex from {rule.score_min:g})"
    )
    return Complexity(is_complex, f"{'complex' if is_complex else 'simple'}: {reason}")


def _score(text: str, weights: ComplexityWeights) -> tuple[float, list[str]]:
    """What is seen in the text adds up to, and in words."""
    signals = sorted({match.lower() for match in _SIGNAL.findall(text)})
    seen = [(weights.signal * len(signals), f"signal words {', '.join(signals)}")] if signals else []
    if _CODE.search(text):
        seen.append((weights.code, "code"))
    if _OPEN_QUESTION.search(text):
        seen.append((weights.open_question, "open question"))
    if text.count("?") > 1:
        seen.append((weights.several_questions, "several questions"))
    return sum(points for points, _ in seen), [what for _, what in seen]
