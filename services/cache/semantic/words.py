"""A text as the guards and the features see it: comparable words, numbers, language and code.

Two texts that say the same come out alike where only their form differs (case, contractions, inflection, `two` for `2`,
`$5` for `5 dollars`), and never where a number, a unit or a `not` does. English first; words of other languages are
compared as they are written. Nothing here knows of vectors or of stored entries.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from functools import lru_cache
from itertools import zip_longest
from typing import Final

# Longer texts are compared by their beginning and their end, where questions are.
WORDS_MAX: Final = 400
# Parsed texts that are remembered: an entry is looked at by many lookups.
PARSED_MAX: Final = 8192

TOKEN: Final = re.compile(r"\d+(?:[.,:/]\d+)*|[a-z]\+\+|[a-z]#|\.net\b|[^\W\d_]+(?:['-][^\W\d_]+)*|[%°+#&$€£¥₹]")
# Code is what stands in backticks, and each run of characters with a sign of it. Runs are found first and read once:
# one pattern for both would look for a sign from each character of a run on, which took 20 s where 32 KB had no space.
RUN: Final = re.compile(r"`[^`]*`|[^\s`]+")
CODE: Final = re.compile(r"[`{}=<>\\_]|\(\)|::|->|\w\.\w+\(")
# What is calculated: an operator beside a number, and a sign before it. `5-day` and `24-hour` calculate nothing.
OPERATOR: Final = re.compile(
    r"(?:(?<=[\d)])|(?<=[\d)]\s))(?:[*/](?=\s?[\w(])|[-−](?=\s?\d))|(?<!\w)[-−*/](?=\s?\d)|[\^×÷±√∑∫∞∂≈≠≤≥¬∧∨]"
)
# Numbers that say how much, however they are written: not `1,5` and `1.000`, which may be two, nor `007`, nor `3.10`,
# more than `3.1` in versions; with a unit behind it, it is the same. No digit of what may be a parcel's number is lost.
AMOUNT: Final = re.compile(r"(?:0|[1-9]\d{0,2}(?:,\d{3})+|[1-9]\d*)(?:\.(?:\d*[1-9]|00?))?")
TENTHS: Final = re.compile(r"(?:\d{1,3}(?:,\d{3})+|\d+)\.(?:\d\d?|\d{4,})")
CURRENCY: Final = re.compile(r"([$€£¥₹])\s*(\d[\d.,]*\d|\d)")
NAME: Final = re.compile(r"(?<![.!?]\s)(?<![.!?]\s\s)(?<=\s)[A-Z][\w']+|\b[A-Z]{2,}\b")
HYPHEN: Final = re.compile(r"(?<=[^\W\d_])-(?=[^\W\d_])")
COUNTRY: Final = re.compile(r"\bU\.?S\.?(?:A\b\.?|(?<=\.)|\b)")
# No article, but among words with a capital it may be one: `Is A bigger than B`.
LETTER: Final = re.compile(r"(?<=[a-z,] )A\b(?! [A-Z])")
# `IT` and `WHO` among words in small letters are names, and `May` is a month where no `may` can stand: as tokens they
# begin with `aa`, for in small letters they are other words.
CAPITALS: Final = re.compile(r"(?<![A-Z] )\b(?:IT|WHO)\b(?! [A-Z]{2})")
MAY: Final = re.compile(
    r"(?<=[a-z0-9,] )May\b|(?<=\b(?:in|of|by|to) )may\b"
    r"|(?<=\b(?:from|last|next) )may\b|(?<=\b(?:since|until|after) )may\b"
)
MINUS: Final = re.compile(r"\bminus (?=\d)", re.IGNORECASE)
CURRENCY_NAMES: Final = {"$": "dollar", "€": "euro", "£": "pound", "¥": "yen", "₹": "rupee"}
CONTRACTIONS: Final = (
    (re.compile(r"\bwon'?t\b"), "will not"),
    (re.compile(r"\bshan'?t\b"), "shall not"),
    (re.compile(r"\b(?:can'?t|cannot)\b"), "can not"),
    (re.compile(r"\b(do|does|did|is|are|was|were|has|have|had|could|would|should|must|need|ai)n'?t\b"), r"\1 not"),
    (re.compile(r"'(?:re|ve|ll|m|s|d)\b"), ""),
    (re.compile(r"\b(have|has|had|am|is|are) yet to\b"), r"\1 not"),
)
FUNCTION_WORDS: Final = frozenset(
    """a an the this that these those there here it its i me my mine myself you your yours u ur we us our ours he
    him his she her they them their theirs am is are was were be been being do does did doing done have has had
    having will would shall should can could may might must to of in on at for by per with from into onto as if
    so then than and or but about up out off over under before after any some one ones please just really
    actually also very too quite let which what who whom whose how when where why hi hello hey thanks thank
    possible way able""".split()
)
NEGATIONS: Final = frozenset(
    """not no non anti never none nobody nothing nowhere neither nor without hardly barely rarely seldom unless except
    lack lacking fail refuse avoid prevent unable impossible stop quit against
    forbid forbidden prohibit ban""".split()
)
UNITS: Final = (
    dict(
        pair.split(":")
        for pair in """mg:milligram g:gram gm:gram kg:kilogram kilo:kilogram lb:pound lbs:pound oz:ounce ml:milliliter
    l:liter litre:liter cm:centimeter mm:millimeter m:meter metre:meter km:kilometer mi:mile ft:foot feet:foot in:inch
    s:second sec:second min:minute h:hour hr:hour hrs:hour d:day wk:week mo:month y:year yr:year yrs:year usd:dollar
    bucks:dollar eur:euro gbp:pound percent:% c:celsius f:fahrenheit kb:kilobyte mb:megabyte gb:gigabyte
    tb:terabyte""".split()
    )
    | CURRENCY_NAMES
)
# Those that mean nothing else are units wherever they stand.
UNITS_ALWAYS: Final = frozenset("mg gm kg kilo lb lbs oz ml cm mm km usd eur gbp kb mb gb tb".split())
NUMBER_WORDS: Final = {
    word: value
    for value, word in enumerate(
        """two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen
        eighteen nineteen""".split(),
        2,
    )
} | {word: 10 * tens for tens, word in enumerate("twenty thirty forty fifty sixty seventy eighty ninety".split(), 2)}
SCALES: Final = {"hundred": 10**2, "thousand": 10**3, "k": 10**3, "million": 10**6, "billion": 10**9}
IRREGULAR: Final = dict(
    pair.split(":")
    for pair in """went:go gone:go bought:buy paid:pay sent:send got:get made:make took:take taken:take gave:give
    given:give found:find told:tell said:say saw:see seen:see knew:know known:know came:come left:leave lost:lose
    kept:keep felt:feel thought:think brought:bring spent:spend wrote:write written:write chose:choose chosen:choose
    broke:break broken:break stole:steal stolen:steal forgot:forget forgotten:forget began:begin begun:begin men:man
    feet:foot women:woman children:child people:person teeth:tooth mice:mouse lives:life colour:color centre:center
    cheque:check taught:teach caught:catch fought:fight sought:seek sold:sell held:hold met:meet ran:run ate:eat
    eaten:eat drank:drink drunk:drink drove:drive driven:drive flew:fly flown:fly grew:grow grown:grow threw:throw
    thrown:throw wore:wear worn:wear woke:wake spoke:speak spoken:speak sang:sing swam:swim shot:shoot slept:sleep
    stood:stand understood:understand built:build lent:lend meant:mean heard:hear hid:hide hidden:hide fell:fall
    fallen:fall beaten:beat became:become blew:blow blown:blow drew:draw drawn:draw fed:feed froze:freeze frozen:freeze
    rode:ride ridden:ride shook:shake shaken:shake sank:sink sunk:sink swore:swear tore:tear torn:tear won:win
    dealt:deal bent:bend burnt:burn learnt:learn buses:bus gases:gas""".split()
)
# What is no plural, though it ends like one.
LASTING: Final = frozenset("news customs goods".split())
# Of one syllable with a short vowel, as `plan`: with an e behind it (`plane`) it is another word.
SHORT: Final = re.compile(r"[^aeiouy]*[aeiouy][^aeiouywx]")
# Words common in one language and in none of the others; two of them name the language of a text.
LANGUAGES: Final = {
    "en": "the is are my how what why can do does i to of and where should it for with have",
    "de": "der das und ist wie ich nicht ein eine mit auf für kann mein warum wo zu den",
    "fr": "le les est et je comment pourquoi une des pas mon ma puis où que dans pour avec",
    "es": "el los las es cómo por qué mi una puedo dónde para del cuál y mis",
    "it": "il gli che è perché mio mia posso dove della sono come non un di",
    "pt": "os meu minha como não você uma posso onde é da em por que eu",
    "nl": "het een ik hoe waarom mijn niet waar kan ik van de zijn",
}


@dataclass(frozen=True, slots=True)
class Words:
    """A parsed text. `stems` are its words in order, in the form in which they are compared; units and numbers too.

    `numbers` counts each number with the word behind it, by which `5 mg` and `5 kg` differ; `names` are stems that were
    written with a capital within a sentence; `language` is "" where it is not clear. `marks` are what words do not
    hold: operators of arithmetic, and the vowel signs of scripts that have them; `pictures` are emoji and the like.
    """

    tokens: tuple[str, ...]
    stems: tuple[str, ...]
    numbers: tuple[tuple[str, str], ...]
    names: frozenset[str]
    language: str
    code: tuple[str, ...]
    marks: tuple[str, ...]
    pictures: frozenset[str]


@lru_cache(PARSED_MAX)
def parse(text: str) -> Words:
    """Parses a text; some 70 us for a question of a dozen words."""
    text = _plain(text)
    tokens = _cut(tuple(_tokens(text)))
    return Words(
        tokens,
        tuple(map(stem, tokens)),
        tuple(sorted(_quantities(tokens))),
        frozenset(_names(text)),
        _language(text, tokens),
        tuple(sorted(_code(text))),
        _marks(text),
        _pictures(text),
    )


def stems_of(text: str) -> tuple[str, ...]:
    """The stems of a text, as `parse` finds them; cheaper, and nothing is remembered."""
    return tuple(map(stem, _cut(tuple(_tokens(_plain(text))))))


def is_content(token: str) -> bool:
    """Whether a word carries a meaning of its own."""
    return token not in FUNCTION_WORDS and stem(token) not in NEGATION_STEMS


def is_negation(token: str) -> bool:
    """Whether a word turns what is said into its opposite."""
    return token not in FUNCTION_WORDS and stem(token) in NEGATION_STEMS  # `quite` is none, though `quit` is.


@lru_cache(65_536)
def stem(word: str) -> str:
    """Brings the forms of one word together: crude, but the same for both texts, which is all that it is for.

    Numbers are left as they are: 1000 is no form of 100.
    """
    if word[:1].isdigit() or word in LASTING:
        return word
    word = IRREGULAR.get(word, word)
    if len(word) > 3 and word.endswith("s") and not word.endswith(("ss", "us", "is")):
        word = word[:-2] if word.endswith(("shes", "ches", "xes", "sses")) else word[:-1]
        word = word[:-2] + "y" if word.endswith("ie") and len(word) > 4 else word
    for ending in ("ing", "ed"):
        rest = word.removesuffix(ending)
        if rest != word and len(rest) > 2 and re.search("[aeiouy]", rest):
            word = rest + "e" if SHORT.fullmatch(rest) else rest  # `planed`; of `plan` it is `planned`
            break
    if len(word) > 3 and word[-1] in "ey" and not (word[-1] == "e" and SHORT.fullmatch(word[:-1])):
        word = word[:-1] + ("i" if word[-1] == "y" else "")
    return word[:-1] if len(word) > 3 and word[-1] == word[-2] else word


def _plain(text: str) -> str:
    return MINUS.sub("-", unicodedata.normalize("NFKC", text).replace("’", "'"))


def _cut(tokens: tuple[str, ...]) -> tuple[str, ...]:
    """Leaves out the middle of what is too long."""
    half = WORDS_MAX // 2
    return tokens if len(tokens) <= WORDS_MAX else tokens[:half] + tokens[-half:]


def _tokens(text: str) -> Iterator[str]:
    text = MAY.sub("aamay", LETTER.sub("aa", COUNTRY.sub("usa", text)))
    text = (text if text.isupper() else CAPITALS.sub(r"aa\g<0>", text)).lower()
    text = HYPHEN.sub(" ", text)
    for pattern, written_out in CONTRACTIONS:
        text = pattern.sub(written_out, text)
    text = CURRENCY.sub(lambda found: f"{found[2]} {CURRENCY_NAMES[found[1]]}", text)
    words = TOKEN.findall(text)
    position = 0
    while position < len(words):
        word = words[position]
        if word[0].isdigit() or word in NUMBER_WORDS:
            value, position = _number(words, position)
            yield value
        else:
            measures = word in UNITS_ALWAYS or (position and words[position - 1][0].isdigit())
            yield UNITS.get(word, word) if measures else word
            position += 1


def _number(words: list[str], position: int) -> tuple[str, int]:
    """Reads a number, in digits or words, and the scales behind it; also returns the position after it."""
    word = words[position]
    position += 1
    if word[0].isdigit():
        behind = stem(words[position]) if position < len(words) else ""
        if not AMOUNT.fullmatch(word) and not (TENTHS.fullmatch(word) and behind in UNIT_STEMS):
            return word, position  # A date, a time, a version or a list: compared as it is written.
        value = Decimal(word.replace(",", ""))
    else:
        value = Decimal(NUMBER_WORDS[word])
        if value >= 20 and position < len(words) and NUMBER_WORDS.get(words[position], 10) < 10:
            value += NUMBER_WORDS[words[position]]
            position += 1
    while position < len(words) and words[position] in SCALES:
        value *= SCALES[words[position]]
        position += 1
    written = f"{value:f}"
    return written.rstrip("0").rstrip(".") if "." in written else written, position


def _quantities(tokens: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    for token, behind in zip_longest(tokens, tokens[1:], fillvalue=""):
        if token[0].isdigit():
            yield token, stem(behind) if behind and is_content(behind) else ""


def _names(text: str) -> Iterator[str]:
    """Words with a capital that does not come from the start of a sentence, nor from a text all in capitals."""
    for found in NAME.finditer("" if text.isupper() else text):
        word = found.group().lower().removesuffix("'s")
        if is_content(word):
            yield stem(UNITS[word] if word in UNITS_ALWAYS else word)


def _code(text: str) -> Iterator[str]:
    for found in RUN.finditer(text):
        run = found.group()
        ends_line = run.endswith(";") and text[found.end() : found.end() + 1] in {"", "\n"}
        if ends_line or CODE.search(run):
            yield run


def _marks(text: str) -> tuple[str, ...]:
    signs = () if text.isascii() else (letter for letter in text if unicodedata.category(letter) in {"Mn", "Mc"})
    return (*OPERATOR.findall(text), *(sign for sign in signs if sign not in VARIATIONS))


def _pictures(text: str) -> frozenset[str]:
    if text.isascii():
        return frozenset()
    return frozenset(letter for letter in text if unicodedata.category(letter) == "So" and letter != "°")


def _language(text: str, tokens: tuple[str, ...]) -> str:
    scripts = Counter(unicodedata.name(letter, "?").split()[0] for letter in text[:200] if letter.isalpha())
    script = scripts.most_common(1)[0][0] if scripts else ""
    if script != "LATIN":
        return script
    counts = {name: len(common.intersection(tokens)) for name, common in LANGUAGE_WORDS.items()}
    best = max(counts, key=lambda name: counts[name])
    second = max(count for name, count in counts.items() if name != best)
    return best if counts[best] >= 2 and counts[best] > second else ""


# They choose between the text and the colour form of an emoji.
VARIATIONS: Final = frozenset("\ufe0e\ufe0f")
UNIT_STEMS: Final = frozenset(map(stem, (*UNITS, *UNITS.values(), *SCALES)))
NEGATION_STEMS: Final = frozenset(map(stem, NEGATIONS))
LANGUAGE_WORDS: Final = {name: frozenset(words.split()) for name, words in LANGUAGES.items()}
