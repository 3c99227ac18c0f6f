"""How many edited questions the cache's guards let through, and how many paraphrases they cost.

    python -m bench.semantic_edits --data questions.jsonl.gz [--pairs pairs.jsonl.gz] [--static] [--among]

Each line of the data has a "text"; each of the pairs "a", "b" and "same". Edits are made by rules and words of this
file, none of which the guards know: `not` put in, another number or unit, the opposite word, another name or month, a
direction reversed. With --static the share that a cosine of 0.95 alone lets through stands beside it; with --among how
many are answered at a cosine of 0.9 by any of all texts, the one that was edited among them, behind the guards.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from bench.semantic_sets import rows, vectors_of
from services.cache.semantic.candidates import unopposed
from services.cache.semantic.encoding import Floats, text_model
from services.cache.semantic.guards import objection
from services.cache.semantic.matcher import NEIGHBOURS
from services.cache.semantic.words import parse

STATIC_COSINE: Final = 0.95
AMONG_COSINE: Final = 0.9
AUXILIARY: Final = re.compile(
    r"\b(?:do|does|did|can|could|should|will|would|is|are|was|were|has|have|must)\b(?!')"
    r"(?:\s+(?:i|you|we|they|he|she|it|my \w+|the \w+)\b)?",
    re.IGNORECASE,
)
OPPOSITES: Final = dict(
    pair.split("/")
    for pair in """
    increase/decrease raise/lower open/close opened/closed buy/sell bought/sold send/receive sent/received
    lost/found start/stop started/ended accept/reject accepted/declined approved/denied hot/cold high/low fast/slow
    early/late more/less before/after with/without always/never first/last new/old cheap/expensive easy/hard
    safe/dangerous good/bad better/worse best/worst happy/sad left/right long/short longer/shorter large/small
    same/different free/paid right/wrong correct/incorrect possible/impossible able/unable enable/disable
    activate/deactivate add/remove added/removed block/unblock blocked/unblocked lock/unlock push/pull import/export
    upload/download deposit/withdraw deposited/withdrew win/lose gain/lose pass/fail public/private maximum/minimum
    top/bottom inside/outside husband/wife male/female boy/girl mother/father morning/evening day/night
    virtual/physical credit/debit foreign/domestic acute/chronic full/empty normal/abnormal pregnant/infertile
    permanent/temporary swollen/shrunken painful/painless dry/wet asleep/awake alive/dead
    """.split()
)
UNITS: Final = (
    ("seconds", "minutes", "hours", "days", "weeks", "months", "years"),
    ("second", "minute", "hour", "day", "week", "month", "year"),
    ("mg", "mcg", "g", "kg", "ml"),
    ("mm", "cm", "inches", "feet"),
    ("lbs", "kilos", "ounces"),
    ("$", "€", "£"),
    ("dollars", "euros", "pounds"),
    ("USD", "EUR", "GBP", "AUD"),
)
NAMES: Final = (
    ("Visa", "Mastercard", "Maestro", "American Express"),
    ("Apple Pay", "Google Pay", "PayPal"),
    ("US", "UK", "Germany", "France", "Spain", "Japan", "India", "Europe", "Asia", "London", "Paris"),
    ("ibuprofen", "naproxen", "paracetamol", "aspirin", "Tylenol", "Advil", "Benadryl", "Zyrtec"),
    ("prednisone", "methotrexate", "metformin", "insulin", "Xanax", "Zoloft", "Prozac", "Lexapro", "Adderall"),
    ("amoxicillin", "azithromycin", "doxycycline", "penicillin"),
    ("diabetes", "asthma", "hypertension", "arthritis", "hypothyroidism", "pneumonia", "herpes", "chlamydia", "HIV"),
    ("kidney", "liver", "lung", "heart", "stomach", "bladder", "knee", "elbow", "shoulder", "wrist", "ankle"),
    ("son", "daughter", "sister", "brother", "uncle"),
    ("card", "passport", "phone"),
)
ENDS: Final = (
    "Berlin/Munich New_York/Los_Angeles London/Paris Tokyo/Osaka Madrid/Lisbon Boston/Chicago USD/EUR savings/checking "
    "Celsius/Fahrenheit English/Spanish MySQL/Postgres miles/kilometers JSON/XML Windows/Linux Gmail/Outlook cats/dogs"
)
DIRECTIONS: Final = (
    "How do I get from {} to {}?",
    "What is the cheapest way from {} to {}?",
    "How do I convert {} to {}?",
    "How can I move my data from {} to {}?",
    "Is {} better than {}?",
    "Why is {} faster than {}?",
    "Translate this from {} to {}",
    "What does it cost to switch from {} to {}?",
    "Can I import {} into {}?",
    "Should I migrate from {} to {}?",
    "Can {} attack {}?",
    "Does {} need less effort than {}?",
    "How long is the journey from {} to {} in winter?",
    "Who pays when {} sues {}?",
    "Is the exchange from {} to {} free?",
    "I want to change from {} to {}, what do I do?",
)
MONTHS: Final = "January February March April May June July August September October November December".split()
DATES: Final = (
    "What was announced in {}?",
    "is the museum open in {}",
    "How warm is Lisbon in early {}?",
    "Can I move my booking to {} 2027?",
    "Where did my order from {} 3 go?",
    "bills since {}",
    "Why was I charged twice last {}?",
)
PERSONS: Final = (("I", "you"), ("you", "I"), ("she", "I"), ("I", "he"), ("they", "we"), ("you", "they"))
OBJECTS: Final = {"I": "me", "you": "you", "she": "her", "he": "him", "they": "them", "we": "us"}
DEEDS: Final = (
    "Can {} call {}?",
    "Should {} wait for {}?",
    "why did {} write to {} twice",
    "When must {} pay {} back?",
)

# Who does what, where one of the two is a person and the other is not.
ROLES: Final = (
    ("Can {} evict {}?", "landlord tenant uncle"),
    ("Why did {} leave {}?", "wife husband lawyer team"),
    ("Does {} have to tell {} before the court?", "employer doctor union"),
    ("How much should {} lend {}?", "bank mother neighbour"),
    ("When must {} visit {} again?", "dentist inspector"),
)

Edit = Callable[[str, random.Random], str | None]


def negated(text: str, chance: random.Random) -> str | None:
    """Puts in a word that turns the question around."""
    found = list(AUXILIARY.finditer(text))
    if not found:
        return None
    end = chance.choice(found).end()
    return f"{text[:end]} {chance.choice(('not', 'never', 'no longer'))}{text[end:]}"


def renumbered(text: str, chance: random.Random) -> str | None:
    """Puts another number in the place of one."""
    found = list(re.finditer(r"(?<![\d.])\d+", text))  # 6.50 is 6.5
    if not found:
        return None
    place = chance.choice(found)
    value = int(place.group())
    others = (value + 1, 2 * value + 1, value + 10, value // 2, 10 * value, value // 10)
    other = chance.choice([number for number in others if number != value])
    return text[: place.start()] + str(other) + text[place.end() :]


def replaced(groups: Iterable[Sequence[str]], *, counted: bool = False) -> Edit:
    """Puts a word in the place of another of its group; if `counted`, only in texts with a number."""

    def edit(text: str, chance: random.Random) -> str | None:
        if counted and not re.search(r"\d", text):
            return None
        found = [
            (place, group, word)
            for group in groups
            for word in group
            for place in re.finditer(rf"(?<!\w){re.escape(word)}(?!\w)" if word.isalpha() else re.escape(word), text)
        ]
        if not found:
            return None
        place, group, word = chance.choice(found)
        other = chance.choice([each for each in group if each != word])
        return text[: place.start()] + other + text[place.end() :]

    return edit


def reversed_pairs() -> list[tuple[str, str]]:
    """Questions with a direction, and the same the other way round."""
    ends = [tuple(pair.replace("_", " ").split("/")) for pair in ENDS.split()]
    return [(form.format(one, two), form.format(two, one)) for form in DIRECTIONS for one, two in ends] + [
        (form.format(two, one), form.format(one, two)) for form in DIRECTIONS for one, two in ends
    ]


def redated_pairs() -> list[tuple[str, str]]:
    """Questions about a month, and the same about another."""
    return [
        (form.format(one), form.format(other)) for form in DATES for one in MONTHS for other in MONTHS if one != other
    ]


def person_pairs() -> list[tuple[str, str]]:
    """Who does what to whom, and the other way round."""
    return [
        (form.format(one, OBJECTS[other]), form.format(other, OBJECTS[one])) for form in DEEDS for one, other in PERSONS
    ]


def role_pairs() -> list[tuple[str, str]]:
    """What one does to another, who is one of those who speak, and the other way round."""
    return [
        (form.format(f"my {one}", OBJECTS[other]), form.format(other, f"my {one}"))
        for form, ones in ROLES
        for one in ones.split()
        for other in ("I", "we", "they")
    ]


KINDS: Final[dict[str, Edit]] = {
    "negation": negated,
    "number": renumbered,
    "unit": replaced(UNITS, counted=True),
    "opposite": replaced([*OPPOSITES.items(), *((two, one) for one, two in OPPOSITES.items())]),
    "name": replaced(NAMES),
}


def main() -> None:
    """Makes the edits, counts what passes, and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, action="append", required=True, help='lines with a "text", or "a" and "b"')
    parser.add_argument("--pairs", type=Path, help='lines with "a", "b", "same": what the guards cost')
    parser.add_argument("--count", type=int, default=500, help="edits of each kind")
    parser.add_argument("--static", action="store_true", help="also measure similarity alone: a minute or two")
    parser.add_argument("--among", action="store_true", help="also look edits up among all texts: some minutes")
    parser.add_argument("--json", type=Path, help="file for the figures")
    options = parser.parse_args()
    chance = random.Random(1)
    texts = sorted(
        {row[name] for path in options.data for row in rows(path) for name in ("text", "a", "b") if name in row}
    )
    chance.shuffle(texts)
    edits = {kind: made(edit, texts, options.count, chance) for kind, edit in KINDS.items()}
    templates = {"direction": [*reversed_pairs(), *person_pairs(), *role_pairs()], "date": redated_pairs()}
    edits |= {kind: chance.sample(pairs, min(options.count, len(pairs))) for kind, pairs in templates.items()}
    if options.pairs:
        edits["paraphrase"] = [(row["a"], row["b"]) for row in rows(options.pairs) if row["same"]]
    records = [judged(kind, pairs) for kind, pairs in edits.items()]
    if options.static:
        for record, pairs in zip(records, edits.values(), strict=True):
            similar = asyncio.run(cosines(pairs))
            record["static_pass"] = round(sum(cosine >= STATIC_COSINE for cosine in similar) / len(pairs), 4)
    if options.among:
        vectors = vectors_of([*texts, *(text for kind in edits.values() for pair in kind for text in pair)], None)
        for record, pairs in zip(records, edits.values(), strict=True):
            record["among_pass"] = round(answered(pairs, texts, vectors) / len(pairs), 4)
    for record in records:
        print("  ".join(f"{name} {value}" for name, value in record.items()))
    if options.json:
        options.json.write_text(json.dumps(records, indent=1))


def made(edit: Edit, texts: Sequence[str], count: int, chance: random.Random) -> list[tuple[str, str]]:
    """Edits texts until there are enough."""
    pairs: list[tuple[str, str]] = []
    for text in texts:
        other = edit(text, chance)
        if other is not None and other != text:
            pairs.append((text, other))
        if len(pairs) == count:
            break
    return pairs


async def cosines(pairs: Sequence[tuple[str, str]]) -> list[float]:
    """The similarity of each pair."""
    encoder = text_model()
    await encoder.warm()
    try:
        left, right = [await encoder.encode([text[:1000] for text in side]) for side in zip(*pairs, strict=True)]
        return [float(cosine) for cosine in (left * right).sum(axis=1)]
    finally:
        await encoder.close()


def answered(pairs: Sequence[tuple[str, str]], texts: Sequence[str], vectors: Mapping[str, Floats]) -> int:
    """How many edits are answered by what was edited or by any other text, whatever that says."""
    points, count = np.stack([vectors[text] for text in texts]), 0
    for original, edit in pairs:
        cosines = points @ vectors[edit]
        near = [(float(cosines[at]), texts[at]) for at in np.argsort(-cosines)[: NEIGHBOURS + 2]]
        near = [(cosine, text) for cosine, text in near if text not in {original, edit}]
        near.append((float(vectors[original] @ vectors[edit]), original))
        near = sorted(near, reverse=True)[:NEIGHBOURS]
        first = next(unopposed(parse(edit), [parse(text) for _, text in near]), None)
        count += first is not None and near[first][0] >= AMONG_COSINE
    return count


def judged(kind: str, pairs: Sequence[tuple[str, str]]) -> dict[str, Any]:
    """Counts what the guards let through."""
    objections = Counter(objection(parse(one), parse(other)) for one, other in pairs)
    return {"kind": kind, "count": len(pairs), "guards_pass": round(objections[None] / len(pairs), 4)}


if __name__ == "__main__":
    main()
