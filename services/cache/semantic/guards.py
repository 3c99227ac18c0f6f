"""What no similarity overrules: differences that change the answer though the texts look alike.

An edit of a word or two (`not` put in, another number, unit or name, an opposite, two things swapped) hardly moves a
sentence's vector; a paraphrase moves it more. So the two texts are aligned word by word: where they are nearly the
same, each difference that is left must be harmless. Where they are not, only plain contradictions (numbers, language,
code) count, and the calibrated model decides the rest. Word lists name function words, units, months and the verbs
of asking; contents are compared, not known.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from services.cache.semantic.exchanges import contents, exchanged
from services.cache.semantic.words import Words, is_content, is_negation, stem

# Share of words in common from which two texts count as one with edits. Right answers between texts this close that
# differ by a content word are rare: docs/semantic-cache.md has the figures.
EDITED_RATIO: Final = 0.7
# The same where all that differs is in one place.
EDITED_ONCE_RATIO: Final = 0.57
# The same where all that differs are names in place of names: short questions about two of them have little else.
EDITED_NAMES_RATIO: Final = 0.5
# The letter from which on words may be misspelt.
MISSPELT_FROM: Final = 2
# Words up to which a text says but one thing.
FEW_WORDS: Final = 3
# Words left to align after equal beginnings and ends are taken off; beyond that the texts are not one with edits.
ALIGNED_MAX: Final = 60

# Function words that are not harmless in place of one another.
OPPOSITES: Final = tuple(
    frozenset(pair.split("/"))
    for pair in """before/after with/without in/out on/off up/down over/under more/less to/from for/against into/from
    most/least all/none all/some above/below can/must may/must he/she his/her first/last always/never from/into
    off/onto by/to past/to before/during after/during before/since after/until since/until by/without here/there him/her
    one/several one/many one/few one/multiple one/hundred one/thousand one/dozen one/both a/several""".split()
)
# What is asked for: a reason is no instruction, a time no place. `How` and `where` often ask for the same.
QUESTIONS: Final = tuple(
    frozenset(pair.split("/")) for pair in "why/how why/when why/where why/who when/where when/who where/who".split()
)
# Whether something was, or is or will be, where the question begins with it (`Who was`); causes stay the same.
PAST: Final = frozenset("was were did had".split())
NOT_PAST: Final = frozenset("is are am does do has have will".split())
QUESTION_WORDS: Final = frozenset("who what where when how which whose".split())
# One of these more, and another part of the thing is meant.
LIMITS: Final = frozenset("only half twice alone daily weekly monthly yearly free".split())
GENDERED: Final = frozenset("he she him her his hers".split())
NEGATING_PREFIXES: Final = ("un", "in", "im", "il", "ir", "non", "non-", "dis", "mis", "de", "anti", "anti-")
PARTICLES: Final = frozenset("up out off over under down".split())
# What tells one thing from another though it is short or else a function word: `vitamin A`, `World War I`, `in May`.
LABELS: Final = frozenset(
    "b c d e f g h j k l m n o p q r s t v w x y z ii iii iv vi vii viii ix xi xii aait aawho".split()
)
MONTHS: Final = frozenset(
    map(
        stem,
        """january february march april may june july august september october november december
        jan feb mar apr aamay jun jul aug sep sept oct nov dec""".split(),
    )
)
# Verbs of which each asks for what the others of its row ask for.
ASKING: Final = {
    stem(word): row.split()[0]
    for row in ("want need require wish", "get receive obtain", "find locate")
    for word in row.split()
}


@dataclass(frozen=True, slots=True)
class Edit:
    """Words of one text in place of words of the other; either side may be empty. Positions of the first word."""

    ours: tuple[int, ...]
    theirs: tuple[int, ...]


def objection(ours: Words, theirs: Words) -> str | None:
    """Says why an answer to one text must not be given for the other; None where nothing forbids it.

    Returns:
        One of LANGUAGE, CODE, SYMBOL, NUMBER, NEGATION, OPPOSITE, DIRECTION, WORD.
    """
    if ours.language and theirs.language and ours.language != theirs.language:
        return "LANGUAGE"
    if ours.code != theirs.code:
        return "CODE"
    if ours.stems == theirs.stems:
        return "SYMBOL" if _symbols_differ(ours, theirs) else _lengthened(ours, theirs)
    edits, edited = edits_of(ours, theirs)
    if _numbers_differ(ours, theirs, strict=edited):
        return "NUMBER"
    if exchanged(ours, theirs):
        return "DIRECTION"
    if (edited or _same_contents(ours, theirs)) and negations(ours) != negations(theirs):
        return "NEGATION"
    if not edited:
        return "WORD" if _says_otherwise(edits, ours, theirs) else None
    if _symbols_differ(ours, theirs):
        return "SYMBOL"
    if any(_opposite(edit, ours, theirs) or _asks_otherwise(edit, ours, theirs) for edit in edits):
        return "OPPOSITE"
    if _lengthened(ours, theirs):
        return "WORD"
    if sorted(ours.stems) == sorted(theirs.stems):  # moved, not replaced
        return None
    if any(
        _replaces(edit, ours, theirs) or _relabels(edit, ours, theirs) or _adds(edit, ours, theirs) for edit in edits
    ):
        return "WORD"
    return None


def edits_of(ours: Words, theirs: Words) -> tuple[list[Edit], bool]:
    """The edits between two texts, and whether they are nearly the same: one with edits."""
    ratio, edits = align(ours.stems, theirs.stems)
    return edits, ratio >= _edited_ratio(edits, ours, theirs) or _is_one_word(edits)


def _symbols_differ(ours: Words, theirs: Words) -> bool:
    """Whether other things are calculated, or other pictures shown; a picture more is an ornament."""
    return ours.marks != theirs.marks or bool(ours.pictures - theirs.pictures and theirs.pictures - ours.pictures)


def _lengthened(ours: Words, theirs: Words) -> str | None:
    """Objects where a word has an `e` more at its end: another word, though the stems are one (`suit`, `suite`)."""
    mine, other = ({token.removesuffix("s") for token in words.tokens if is_content(token)} for words in (ours, theirs))
    longer = {word[:-1] for word in mine ^ other if word.endswith("e")}
    return "WORD" if longer & (mine ^ other) else None


def _edited_ratio(edits: Sequence[Edit], ours: Words, theirs: Words) -> float:
    """From which share of words in common two texts count as one with these edits."""
    renamed = [_renames(edit, ours, theirs) for edit in edits]
    if any(renamed) and all(name or _agrees(edit, ours, theirs) for name, edit in zip(renamed, edits, strict=True)):
        return EDITED_NAMES_RATIO
    return EDITED_ONCE_RATIO if len(edits) == 1 else EDITED_RATIO


def _renames(edit: Edit, ours: Words, theirs: Words) -> bool:
    """Whether a name stands in place of another one."""
    sides = (ours, edit.ours), (theirs, edit.theirs)
    return all(places and {words.stems[at] for at in places} <= words.names for words, places in sides)


def _agrees(edit: Edit, ours: Words, theirs: Words) -> bool:
    """Whether it only follows who is named: `his` for `her`."""
    return {
        words.tokens[at] for words, places in ((ours, edit.ours), (theirs, edit.theirs)) for at in places
    } <= GENDERED


def _is_one_word(edits: Sequence[Edit]) -> bool:
    return len(edits) == 1 and len(edits[0].ours) == len(edits[0].theirs) == 1


def align(ours: Sequence[str], theirs: Sequence[str]) -> tuple[float, list[Edit]]:
    """Aligns two texts by their longest common subsequence.

    Returns:
        The share of words in common, 0 to 1, and the edits between the common words; no edits where the texts are too
        long and too different.
    """
    head = _common(ours, theirs)
    tail = _common(ours[head:][::-1], theirs[head:][::-1])
    left, right = ours[head : len(ours) - tail], theirs[head : len(theirs) - tail]
    if max(len(left), len(right)) > ALIGNED_MAX:
        return 0.0, []
    lengths = _lengths(left, right)
    ratio = 2 * (head + tail + lengths[0][0]) / max(1, len(ours) + len(theirs))
    return ratio, list(_edits(left, right, lengths, head))


def _common(ours: Sequence[str], theirs: Sequence[str]) -> int:
    for count, (mine, other) in enumerate(zip(ours, theirs, strict=False)):
        if mine != other:
            return count
    return min(len(ours), len(theirs))


def _lengths(left: Sequence[str], right: Sequence[str]) -> list[list[int]]:
    """Lengths of the longest common subsequences of all pairs of endings."""
    rows = [[0] * (len(right) + 1)]
    for word in reversed(left):
        below, row = rows[-1], [0] * (len(right) + 1)
        for at in range(len(right) - 1, -1, -1):
            row[at] = below[at + 1] + 1 if word == right[at] else max(below[at], row[at + 1])
        rows.append(row)
    return rows[::-1]


def _edits(left: Sequence[str], right: Sequence[str], lengths: list[list[int]], head: int) -> Iterator[Edit]:
    mine: list[int] = []
    other: list[int] = []
    i = j = 0
    while i < len(left) or j < len(right):
        if i < len(left) and j < len(right) and left[i] == right[j]:
            if mine or other:
                yield Edit(tuple(mine), tuple(other))
                mine, other = [], []
            i, j = i + 1, j + 1
        elif j == len(right) or (i < len(left) and lengths[i + 1][j] >= lengths[i][j + 1]):
            mine.append(head + i)
            i += 1
        else:
            other.append(head + j)
            j += 1
    if mine or other:
        yield Edit(tuple(mine), tuple(other))


def _numbers_differ(ours: Words, theirs: Words, *, strict: bool) -> bool:
    """Whether the numbers contradict each other; if `strict`, also whether one text has one that the other lacks."""
    if ours.numbers == theirs.numbers:
        return False
    if strict:
        return True
    mine, other = {value for value, _ in ours.numbers}, {value for value, _ in theirs.numbers}
    return bool(mine - other and other - mine)


def _same_contents(ours: Words, theirs: Words) -> bool:
    """Whether both have the same words of content, in whatever order: `I can get one`, `am I unable to get one`."""
    return sorted(contents(ours)) == sorted(contents(theirs))


def _says_otherwise(edits: Sequence[Edit], ours: Words, theirs: Words) -> bool:
    """Whether two texts of a few words have none in common: `goodbye`, `thank you`."""
    return (
        len(edits) == 1
        and max(len(ours.stems), len(theirs.stems)) <= FEW_WORDS
        and len(edits[0].ours) == len(ours.stems)
        and len(edits[0].theirs) == len(theirs.stems)
        and any(map(is_content, ours.tokens + theirs.tokens))
    )


def negations(words: Words) -> int:
    """Whether what is said is turned into its opposite: 1 for an odd number of negations."""
    return sum(map(is_negation, words.tokens)) % 2


def _opposite(edit: Edit, ours: Words, theirs: Words) -> bool:
    mine = {ours.tokens[at] for at in edit.ours}
    other = {theirs.tokens[at] for at in edit.theirs}
    if any(pair & mine and pair & other and pair & mine != pair & other for pair in OPPOSITES):
        return True
    return any(_negates(one, two) or _negates(two, one) for one in mine for two in other)


def _asks_otherwise(edit: Edit, ours: Words, theirs: Words) -> bool:
    """Whether another thing is asked for, or of another time."""
    mine, other = ({words.tokens[at] for at in places} for words, places in ((ours, edit.ours), (theirs, edit.theirs)))
    if any(pair & mine and pair & other and pair & mine != pair & other for pair in QUESTIONS):
        return True
    verbs = _first_verb(ours, edit.ours), _first_verb(theirs, edit.theirs)
    return any(one in PAST and other in NOT_PAST for one, other in (verbs, verbs[::-1]))


def _first_verb(words: Words, places: Iterable[int]) -> str:
    """What a question begins with, its question word apart, where that is at one of these places."""
    at = 1 if words.tokens[0] in QUESTION_WORDS else 0
    return words.tokens[at] if at in places else ""


def _adds(edit: Edit, ours: Words, theirs: Words) -> bool:
    """Whether one text has a name or a limit that the other lacks, and nothing in its place."""
    if edit.ours and edit.theirs:
        return False
    words, places = (ours, edit.ours) if edit.ours else (theirs, edit.theirs)
    return any(words.stems[at] in words.names or words.tokens[at] in LIMITS for at in places)


def _negates(word: str, other: str) -> bool:
    return any(word == prefix + other for prefix in NEGATING_PREFIXES)


def _replaces(edit: Edit, ours: Words, theirs: Words) -> bool:
    """Whether words of content stand in place of others, and it is no misspelling."""
    mine, other = _told(edit.ours, ours), _told(edit.theirs, theirs)
    return bool(mine and other) and mine != other and not (len(mine) == len(other) == 1 and misspelt(mine[0], other[0]))


def _told(places: Iterable[int], words: Words) -> list[str]:
    """The words of content at some places; those that ask for the same are one, `would like` among them."""
    told = [at for at in places if _tells(words.tokens[at])]
    would_like = {at for at in told if words.tokens[at - 1 : at + 1] == ("would", "like")}
    return ["want" if at in would_like else ASKING.get(words.stems[at], words.stems[at]) for at in told]


def _relabels(edit: Edit, ours: Words, theirs: Words) -> bool:
    """Whether one word stands in place of another and one of them is a label or a name, whatever the other is."""
    if not _is_one_word([edit]):
        return False
    mine, other = ours.stems[edit.ours[0]], theirs.stems[edit.theirs[0]]
    named = (mine in ours.names) != (other in theirs.names)
    labelled = bool({mine, other} & LABELS) or {mine, other} <= MONTHS
    return (named or labelled) and not misspelt(mine, other)


def _tells(token: str) -> bool:
    return token in PARTICLES or is_content(token)


def misspelt(mine: str, other: str) -> bool:
    """Whether two long words differ by one letter, put in, left out or changed, or by two swapped.

    Not at the beginning, nor by the last letter, where a letter has a meaning (`employer`, `employee`).
    """
    if (
        min(len(mine), len(other)) < 5
        or mine[:MISSPELT_FROM] != other[:MISSPELT_FROM]
        or abs(len(mine) - len(other)) > 1
    ):
        return False
    head = _common(mine, other)
    tail = _common(mine[head:][::-1], other[head:][::-1])
    left, right = mine[head : len(mine) - tail], other[head : len(other) - tail]
    return (tail > 0 and max(len(left), len(right)) <= 1) or (len(left) == len(right) == 2 and left == right[::-1])
