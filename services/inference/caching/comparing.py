"""Comparing two answers: whether a kept one says the same as a fresh one, decided without asking any model.

It labels the cache's would-be hits, and a wrong "same" would let wrong answers through later, so it is conservative: it
says "same" only where the answers are equal but for case, spacing, punctuation and a few small words. Different wording
of one meaning counts as different; that costs hits and never correctness.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable
from typing import Any

from services.inference.answer import WholeChoice, put_together
from services.inference.generation import ToolCallDelta

WORD_COUNT_MAX = 400  # the comparison of word sequences takes quadratic time; longer answers must be equal
LIKENESS_MIN = 0.9  # of the word sequences: one small word in ten
_WORD = re.compile(r"\w+(?:['’.,:/-]\w+)*")  # 3.5, 10:30, don't and e-mail are one word each
_SIGN = re.compile(r"[-+/%=<>^$€£@&|(){}\[\]]")  # a minus turns a number, brackets turn a formula
# Words that may come or go; anything else that differs may turn the meaning.
_SMALL = frozenset(
    "a an the is are be it its this that these those of for so then also please here there very just you your i we our "
    "have has about sure".split()
)


def same_answer(fresh: Iterable[Any], kept: Iterable[Any]) -> bool:
    """Whether two answers, given as their events, say the same in every choice."""
    ours, theirs = put_together(fresh), put_together(kept)
    return len(ours) == len(theirs) > 0 and all(map(_same_choice, ours, theirs))


def _same_choice(ours: WholeChoice, theirs: WholeChoice) -> bool:
    return (
        ours.index == theirs.index
        and ours.finish_reason is theirs.finish_reason
        and bool(ours.refusal) == bool(theirs.refusal)
        and _same_calls(ours.tool_calls, theirs.tool_calls)
        and _same_text(ours.text, theirs.text)
    )


def _same_calls(ours: dict[int, ToolCallDelta], theirs: dict[int, ToolCallDelta]) -> bool:
    def called(calls: dict[int, ToolCallDelta]) -> list[tuple[str, object]]:
        return [(call.name, _parsed(call.arguments_json)) for _, call in sorted(calls.items())]

    return called(ours) == called(theirs)


def _same_text(ours: str, theirs: str) -> bool:
    if ours == theirs:
        return True
    parsed = _parsed(ours)
    if isinstance(parsed, dict | list) or isinstance(_parsed(theirs), dict | list):
        return parsed == _parsed(theirs)
    if _SIGN.findall(ours) != _SIGN.findall(theirs):
        return False
    mine, other = _WORD.findall(ours), _WORD.findall(theirs)
    if [word.casefold() for word in mine] == [word.casefold() for word in other]:
        return True
    return max(len(mine), len(other)) <= WORD_COUNT_MAX and _differ_little(mine, other)


def _differ_little(ours: list[str], theirs: list[str]) -> bool:
    """Whether the words are the same, in the same order, but for a few small ones."""
    left, right = [word.casefold() for word in ours], [word.casefold() for word in theirs]
    matcher = difflib.SequenceMatcher(a=left, b=right, autojunk=False)
    if matcher.quick_ratio() < LIKENESS_MIN or matcher.ratio() < LIKENESS_MIN:
        return False
    changed = (
        left[a_from:a_to] + right[b_from:b_to]
        for kind, a_from, a_to, b_from, b_to in matcher.get_opcodes()
        if kind != "equal"
    )
    return all(word in _SMALL for words in changed for word in words)


def _parsed(text: str) -> object:
    try:
        return json.loads(text)
    except ValueError:
        return text
