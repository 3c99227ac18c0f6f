"""A text as the guards and the features see it: normalised words, numbers and negations.

Two texts that say the same must come out alike where only their form differs (case, contractions, inflection, `two` for
`2`), and never where a number, a unit or a `not` does. This is English first; other languages are compared word by
word. Nothing here knows of vectors or of stored entries.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

# Texts longer than this are compared by their beginning: features of a page of text say nothing about two questions.
WORDS_MAX: Final = 256
# Parsed texts that are kept: the entries looked at again and again.
PARSED_MAX: Final = 4096

CONTRACTIONS: Final = (
    (re.compile(r"\bwon't\b"), "will not"),
    (re.compile(r"\bshan't\b"), "shall not"),
    (re.compile(r"\b(?:can't|cannot)\b"), "can not"),
    (re.compile(r"\b(do|does|did|is|are|was|were|has|have|had|could|would|should|must|need|ai)n'?t\b"), r"\1 not"),
    (re.compile(r"'re\b"), " are"),
    (re.compile(r"'ve\b"), " have"),
    (re.compile(r"'ll\b"), " will"),
    (re.compile(r"'m\b"), " am"),
    (re.compile(r"'s\b"), ""),
)
TOKEN: Final = re.compile(r"\d+(?:[.,:/]\d+)*|[a-z]\+\+|\b[a-z]#|[^\W\d_]+(?:'[^\W\d_]+)?|[$€£¥₹%°]")
FUNCTION_WORDS: Final = frozenset(
    """a an the this that these those there here it its i me my mine myself you your yours we us our ours he him his she
    her they them their theirs am is are was were be been being do does did doing done have has had having will would
    shall should can could may might must to of in on at for by with from into onto as if so then than and or but about
    please just really actually also very too some any get got getting go going want need like know tell help let
    what which who whom whose how when where why hi hello hey thanks thank""".split()
)
NEGATIONS: Final = frozenset(
    """not no never none nobody nothing nowhere neither nor without hardly barely unless except lack lacks lacking fail
    fails failed failing refuse refuses refused avoid avoids avoiding prevent prevents preventing unable impossible stop
    stops stopped stopping quit against""".split()
)
NUMBER_WORDS: Final = {
    word: value
    for value, word in enumerate(
        """zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen
        seventeen eighteen nineteen""".split()
    )
} | {w: 10 * n for n, w in enumerate("twenty thirty forty fifty sixty seventy eighty ninety".split(), 2)}
SCALES: Final = {"hundred": 100, "thousand": 1000, "k": 1000, "million": 10**6, "billion": 10**9}
IRREGULAR: Final = dict(
    pair.split(":")
    for pair in """went:go gone:go bought:buy paid:pay sent:send got:get gotten:get made:make took:take taken:take
    gave:give given:give found:find told:tell said:say saw:see seen:see knew:know known:know came:come left:leave
    lost:lose kept:keep felt:feel thought:think brought:bring spent:spend wrote:write written:write chose:choose
    chosen:choose broke:break broken:break stole:steal stolen:steal forgot:forget forgotten:forget began:begin begun:begin
    men:man women:woman children:child people:person feet:foot teeth:tooth mice:mouse lives:life wanna:want gonna:go
    colour:color centre:center cheque:check""".split()
)


@dataclass(frozen=True, slots=True)
class Words:
    """A parsed text; all sequences run side by side.

    `tokens` are words as written, lower-cased, with contractions written out; `stems` their forms for comparison;
    `numbers` the value of each number as text, "" for words.
    """

    tokens: tuple[str, ...]
    stems: tuple[str, ...]
    numbers: tuple[str, ...]
    names: frozenset[str]
    script: str
    code: tuple[str, ...]

    @property
    def content(self) -> frozenset[str]:
        """The stems that carry meaning."""
        return frozenset(s for t, s in zip(self.tokens, self.stems, strict=True) if is_content(t))


def is_content(token: str) -> bool:
    """Whether a word carries meaning of its own."""
    return token not in FUNCTION_WORDS and token not in NEGATIONS


def is_negation(token: str) -> bool:
    """Whether a word turns a statement into its opposite."""
    return token in NEGATIONS
