"""What the head for names learns from: public files with marked spans, and this project's sentences with made-up names.

Faker makes the names, of forty countries, the same each time. It reads and fills in; it learns nothing.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from faker import Faker

from tools.safety_rows import read_rows

LESSONS_FILE = Path(__file__).with_name("safety_lessons") / "names.yaml"
# What words can be; the first is none of the others. Companies are told apart so that they are not taken for people.
KINDS = ("other", "company", "LOCATION", "PERSON")
_COMPANY, _LOCATION, _PERSON = 1, 2, 3
OF_TYPE = {
    "ORGANIZATION": _COMPANY,
    "LOCATION": _LOCATION,
    "GPE": _LOCATION,
    "STREET_ADDRESS": _LOCATION,
    "PERSON": _PERSON,
}

LOCALES = (
    "en_US en_GB en_IN de_DE fr_FR es_MX it_IT pt_BR nl_NL sv_SE pl_PL cs_CZ tr_TR hu_HU fi_FI da_DK no_NO ro_RO hr_HR "
    "id_ID vi_VN fil_PH ja_JP zh_CN en_NZ en_NG zu_ZA sw ha_NG yo_NG et_EE lt_LT lv_LV sk_SK sl_SI es_AR tw_GH en_KE "
    "is_IS ga_IE az_AZ uz_UZ"
).split()
# How much more often names of some places come than those of others.
_OFTEN = {"en_US": 12, "en_GB": 4, "en_IN": 3, "de_DE": 2, "fr_FR": 2, "es_MX": 2}
_ROMANISED = ("ja_JP", "zh_CN")
_SLOT = re.compile(r"\{([a-z]+)\d?\}")
_FIRMS = ("{}-{}", "{}, {} and {}", "{} and {}", "{} Group", "{} Inc", "{} & {}", "{} Ltd", "{} and Sons", "{} LLC")
# Of the questions to a bank, which name nobody, every so-manieth is taken.
EVERYDAY_STEP = 40


@dataclass(slots=True)
class NamesRow:
    """A text and the kinds of its spans (start, end, index in KINDS). Rows of one group are never split apart."""

    text: str
    spans: list[tuple[int, int, int]]
    source: str
    group: str


def public_rows(path: Path, source: str, step: int = 1) -> list[NamesRow]:
    """Reads rows in the format of `millrace bench safety --pii`; those without spans name nobody."""
    rows = []
    for number, row in enumerate(read_rows(path)[::step]):
        spans = [(s["start"], s["end"], OF_TYPE[s["type"]]) for s in row.get("spans", ()) if s["type"] in OF_TYPE]
        rows.append(NamesRow(row["text"], spans, source, f"{source}{row.get('template', number)}"))
    return rows


def lessons(seed: int, repeats: int, path: Path = LESSONS_FILE) -> Iterator[NamesRow]:
    """Fills the sentences of this project with names, `repeats` times each, those without names less often."""
    content = yaml.safe_load(path.read_text())
    filler = _Filler(content["words"], seed)
    for kind, times in (("sentences", repeats), ("others", repeats // 4)):
        for number, sentence in enumerate(content[kind]):
            for _ in range(times):
                text, spans = filler.fill(sentence)
                yield NamesRow(text, spans, "lessons", f"{kind}{number}")


class _Filler:
    """Puts made-up names into the slots of sentences."""

    def __init__(self, words: dict[str, list[str]], seed: int) -> None:
        self._chance = random.Random(seed)
        self._words = words
        Faker.seed(seed)
        self._fakers = {locale: Faker(locale) for locale in LOCALES}
        self._weights = [_OFTEN.get(locale, 1) for locale in LOCALES]

    def fill(self, sentence: str) -> tuple[str, list[tuple[int, int, int]]]:
        text, spans, at = "", [], 0
        for slot in _SLOT.finditer(sentence):
            text += sentence[at : slot.start()]
            at = slot.end()
            value, kind = self._value(slot[1])
            if kind:
                spans.append((len(text), len(text) + len(value), kind))
            text += value
        text += sentence[at:]
        style = self._chance.random()
        changed = text.lower() if style < 0.12 else text.upper() if style < 0.15 else text
        return changed if len(changed) == len(text) else text, spans

    def _value(self, slot: str) -> tuple[str, int]:
        locale = self._chance.choices(LOCALES, self._weights)[0]
        fake: Any = self._fakers[locale]
        english: Any = self._fakers["en_US"]
        latin = english if locale in _ROMANISED else fake
        if slot in ("person", "first", "last"):
            first, last = self._person(fake, locale)
            return {"person": self._full(first, last), "first": first, "last": last}[slot], _PERSON
        if slot == "place":
            return latin.city(), _LOCATION
        if slot == "country":
            return english.country(), _LOCATION
        if slot == "street":
            return latin.street_address().replace("\n", " "), _LOCATION
        if slot == "company":
            return (english if locale == "az_AZ" else latin).company(), _COMPANY
        if slot == "firm":
            owners = [self._person(self._fakers[each], each)[1] for each in self._chance.choices(LOCALES[:16], k=3)]
            return self._chance.choice(_FIRMS).format(*owners), _COMPANY
        other = {"email": english.email, "phone": english.phone_number}.get(slot)
        return (other() if other else self._word(slot)), 0

    def _person(self, fake: Any, locale: str) -> tuple[str, str]:
        if locale in _ROMANISED:
            first, _, last = fake.romanized_name().partition(" ")
            return first, last
        return fake.first_name(), fake.last_name()

    def _full(self, first: str, last: str) -> str:
        style = self._chance.random()
        if style < 0.08:
            return f"{first} {self._chance.choice('ABCDEFGHJKLMNPRSTW')}. {last}"
        return f"{first[0]}. {last}" if style < 0.12 else f"{first} {last}"

    def _word(self, slot: str) -> str:
        return str(self._chance.randint(2, 90)) if slot == "number" else self._chance.choice(self._words[slot])


def labels(row: NamesRow, spans: Sequence[tuple[int, int]]) -> list[int]:
    """Says of each word of a text what it is, as an index in KINDS."""
    found = []
    for start, end in spans:
        kinds = [kind for begin, stop, kind in row.spans if start < stop and begin < end]
        found.append(kinds[-1] if kinds else 0)
    return found
