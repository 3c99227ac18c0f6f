"""How complex a prompt looks: a small, explainable score that `auto` chooses by.

It looks at words, never at meaning, and it always says why.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

SIGNALS = (
    "compare", "difference", "why", "explain", "analyze", "analyse", "implement", "design", "architecture", "tradeoff",
    "trade-off", "pros and cons",
)  # fmt: skip
_SIGNAL = re.compile(r"\b(" + "|".join(SIGNALS) + r")", re.IGNORECASE)
_CODE = re.compile(r"```|\b(def|class|function|import|SELECT|return)\b.{0,100}[({;:=]")
_CHARS_MAX = 10_000  # where signals are looked for: few words are rarely longer, and hostile ones cost no more


@dataclass(frozen=True, slots=True)
class Complexity:
    """The judgement of one prompt."""

    is_complex: bool
    reason: str


def judge(text: str, simple_words_max: int, complex_words_min: int, score_min: float) -> Complexity:
    """Judges the last thing that the user said.

    Args:
        text: The user's words.
        simple_words_max: At most so many words are simple, whatever they are.
        complex_words_min: More words than this are complex.
        score_min: What signals (1 each), code (1) and several questions (0.5) must add up to in between.
    """
    word_count = len(text.split())
    if word_count > complex_words_min:
        return Complexity(True, f"complex: {word_count} words, more than {complex_words_min}")
    if word_count <= simple_words_max:
        return Complexity(False, f"simple: {word_count} words, at most {simple_words_max}")
    text = text[:_CHARS_MAX]
    signals = sorted({match.lower() for match in _SIGNAL.findall(text)})
    score = float(len(signals))
    reasons = [f"signal words {', '.join(signals)}"] if signals else []
    if _CODE.search(text):
        score += 1
        reasons.append("code")
    if text.count("?") > 1:
        score += 0.5
        reasons.append("several questions")
    why = "; ".join(reasons) or "no signal"
    return Complexity(score >= score_min, f"{'complex' if score >= score_min else 'simple'}: {word_count} words, {why}")
