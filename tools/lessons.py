"""Lessons for the embedded model: the facts of tools/facts as conversations, varied the way that people write.

It exists so that a model of a few million parameters meets each fact in many shapes: other phrasings, typing
mistakes, a system prompt before it, other turns before it, no chat template at all. Everything is drawn from the
random source that is passed in, so that a seed gives the same lessons. It never touches a tokenizer or a model.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

FACTS = Path(__file__).parent / "facts"
LETTERS = "abcdefghijklmnopqrstuvwxyz"

# Words that people put for one another. A question is taught with any of them, so that the model does not hang on one.
SYNONYMS = (
    ("how do i", "how can i", "how to", "how would i", "how should i", "what is the way to", "how does one"),
    ("what is", "what's", "what exactly is", "explain", "describe", "tell me about", "can you explain", "what about"),
    ("explain", "please explain", "describe", "can you describe", "tell me about", "what is"),
    ("which", "what"),
    ("can i", "could i", "may i", "is it possible to", "am i able to", "is there a way to"),
    ("list", "show me", "give me"),
    ("start", "launch", "run", "boot", "bring up"),
    ("stop", "end", "quit", "shut down", "terminate", "kill"),
    ("change", "set", "adjust", "modify", "configure"),
    ("use", "work with", "employ", "try"),
    ("made", "built", "created", "developed", "wrote"),
    ("need", "require", "have to have"),
    ("required", "needed", "necessary"),
    ("delete", "remove", "purge", "clear", "erase"),
    ("see", "view", "look at", "find", "check"),
    ("turn off", "disable", "switch off", "deactivate"),
    ("enable", "turn on", "switch on", "activate"),
    ("happens", "will happen", "is done"),
    ("fails", "breaks", "crashes", "dies", "is down", "goes down", "is unavailable"),
    ("big", "large", "long"),
    ("supported", "available", "possible", "allowed"),
    ("support", "offer", "provide"),
    ("add", "plug in", "connect", "include", "put in"),
    ("write", "make", "create", "define"),
    ("get", "obtain", "receive"),
    ("mean", "stand for", "signify"),
    ("work", "function", "operate"),
    ("why", "for what reason", "how come"),
    ("millrace", "the suite", "this system"),
    ("job", "purpose", "role", "task"),
    ("error", "failure", "problem"),
    ("answer", "reply", "response"),
    ("request", "call"),
    ("port", "port number"),
    ("where is", "where do i find", "where can i find", "what is the place of"),
    ("where are", "where do i find", "where can i find"),
)
OPENINGS = (
    "so, ",
    "hi, ",
    "hello, ",
    "please tell me, ",
    "tell me: ",
    "i want to know: ",
    "question: ",
    "hey, ",
    "quick question, ",
)

# How often each shape of a conversation comes, of 1; the rest is one plain turn.
SYSTEM_SHARE = 0.2
HISTORY_SHARE = 0.2
RAW_SHARE = 0.06
# How often a topic that Millrace does not know comes, and a request to summarise.
UNKNOWN_SHARE = 0.15
SUMMARY_SHARE = 0.05
# A long prompt now and then: enough to be answered, rare enough not to eat the time.
LONG_SHARE = 0.12


@dataclass(frozen=True)
class Turn:
    """A question and the answer to it."""

    question: str
    answer: str


@dataclass(frozen=True)
class Lesson:
    """A conversation; every answer in it is learnt. `raw` has one turn and no chat template."""

    turns: tuple[Turn, ...]
    system: str = ""
    raw: bool = False


@dataclass(frozen=True)
class Fact:
    """An answer, the questions that are taught and those that only test."""

    answer: str
    ask: tuple[str, ...]
    held_out: tuple[str, ...] = ()


@dataclass(frozen=True)
class OffTopic:
    """What is not known: the answers to it, and the words that long texts are made of."""

    unknown: Fact
    summary: Fact
    systems: tuple[str, ...]
    held_out_systems: tuple[str, ...]
    summary_systems: tuple[str, ...]
    passages: tuple[str, ...]
    held_out_passages: tuple[str, ...]


def load_facts(folder: Path = FACTS) -> tuple[list[Fact], OffTopic]:
    """Reads every file of facts, in the order of their names."""
    facts: list[Fact] = []
    for path in sorted(folder.glob("*.yaml")):
        if path.stem != "offtopic":
            entries = yaml.safe_load(path.read_text(encoding="utf-8"))
            facts += [Fact(e["answer"], tuple(e["ask"]), tuple(e.get("held_out", ()))) for e in entries]
    text = (folder / "offtopic.yaml").read_text(encoding="utf-8")
    off = yaml.safe_load(text)
    unknown, summary = off["unknown"], off["summarize"]
    return facts, OffTopic(
        unknown=Fact(unknown["answer"], tuple(unknown["ask"]), tuple(unknown["held_out"])),
        summary=Fact(summary["answer"], tuple(summary["ask"]), tuple(summary["held_out"])),
        systems=tuple(off["systems"]),
        held_out_systems=tuple(off["held_out_systems"]),
        summary_systems=tuple(summary["systems"]),
        passages=tuple(off["passages"]),
        held_out_passages=tuple(off["held_out_passages"]),
    )


class Teacher:
    """Draws lessons without end."""

    def __init__(self, facts: Sequence[Fact], off_topic: OffTopic, rng: random.Random) -> None:
        self._facts = facts
        self._off = off_topic
        self._rng = rng
        self._deck: list[Fact] = []

    def lesson(self) -> Lesson:
        """Draws one conversation."""
        if self._rng.random() < SUMMARY_SHARE / 2:
            system = self._rng.choice(self._off.summary_systems)
            return Lesson((Turn(self._long_text(), self._off.summary.answer),), system)
        if self._rng.random() < RAW_SHARE:
            return Lesson((self._turn(),), raw=True)
        system = self._rng.choice(self._off.systems) if self._rng.random() < SYSTEM_SHARE else ""
        history = self._rng.randint(1, 3) if self._rng.random() < HISTORY_SHARE else 0
        return Lesson(tuple(self._turn() for _ in range(history + 1)), system)

    def _turn(self) -> Turn:
        dice = self._rng.random()
        if dice < SUMMARY_SHARE:
            return self._summary()
        if dice < SUMMARY_SHARE + UNKNOWN_SHARE:
            return self._unknown()
        fact = self._next_fact()
        return Turn(noisy(self._rng.choice(fact.ask), self._rng), fact.answer)

    def _next_fact(self) -> Fact:
        """Deals the facts like cards, so that each comes equally often."""
        if not self._deck:
            self._deck = list(self._facts)
            self._rng.shuffle(self._deck)
        return self._deck.pop()

    def _unknown(self) -> Turn:
        dice = self._rng.random()
        if dice < LONG_SHARE:
            question = passage(self._off.passages, self._rng)
        elif dice < 0.25:
            question = self._invented()
        else:
            question = noisy(self._rng.choice(self._off.unknown.ask), self._rng)
        return Turn(question, self._off.unknown.answer)

    def _invented(self) -> str:
        """Makes a question around words that mean nothing, or out of scraps of prose."""
        rng = self._rng
        word = "".join(rng.choice(LETTERS) for _ in range(rng.randint(3, 9)))
        scrap = " ".join(rng.choice(self._off.passages).split()[: rng.randint(2, 6)])
        other = rng.choice(self._off.unknown.ask)
        shapes = (
            f"What is {word}?",
            f"What does {word} do?",
            f"How do I use {word}?",
            f"Explain {word}",
            f"Who is {word.title()}?",
            scrap,
            f"{other} {scrap}",
            f"Tell me about {scrap.lower()}",
            f"{word} {''.join(rng.choice(LETTERS) for _ in range(5))}",
        )
        return noisy(rng.choice(shapes), rng)

    def _summary(self) -> Turn:
        lead_in = noisy(self._rng.choice(self._off.summary.ask), self._rng)
        gap = self._rng.choice((" ", "\n", "\n\n"))
        return Turn(f"{lead_in}{gap}{self._long_text()}", self._off.summary.answer)

    def _long_text(self) -> str:
        """Prose, or now and then sentences about Millrace itself."""
        if self._rng.random() < 0.3:
            return " ".join(self._rng.choice(self._facts).answer for _ in range(self._rng.randint(1, 4)))
        return passage(self._off.passages, self._rng)


def passage(sentences: Sequence[str], rng: random.Random) -> str:
    """Strings sentences together: mostly a few, seldom as many as fill the context."""
    count = rng.choice((2, 3, 3, 4, 4, 5, 6, 8, 12)) if rng.random() < 0.93 else rng.randint(20, 40)
    return rng.choice((" ", " ", "\n")).join(rng.choice(sentences) for _ in range(count))


def noisy(text: str, rng: random.Random) -> str:
    """Writes a question as people do: often as it stands, else with other case, end, spacing or a slip."""
    if rng.random() < 0.45:
        return text
    for change, share in CHANGES:
        if rng.random() < share:
            text = change(text, rng)
    return text


def _reword(text: str, rng: random.Random) -> str:
    """Puts one or two words for others of the same meaning; the first letter stays as it was."""
    for _ in range(rng.randint(1, 2)):
        low = text.lower()
        found = [(word, group) for group in SYNONYMS for word in group if re.search(rf"\b{re.escape(word)}\b", low)]
        if found:
            word, group = rng.choice(found)
            text = re.sub(rf"\b{re.escape(word)}\b", rng.choice(group), text, count=1, flags=re.IGNORECASE)
    return text[:1].upper() + text[1:]


def _drop(text: str, rng: random.Random) -> str:
    """Leaves one word out, or puts a stranger in its place."""
    words = text.split()
    if len(words) < 4:
        return text
    stranger = "".join(rng.choice(LETTERS) for _ in range(rng.randint(2, 7)))
    at = rng.randrange(len(words))
    return " ".join(words[:at] + rng.choice(([], [stranger])) + words[at + 1 :])


def _open(text: str, rng: random.Random) -> str:
    return rng.choice(OPENINGS) + text[:1].lower() + text[1:]


def _recase(text: str, rng: random.Random) -> str:
    ways: tuple[Callable[[str], str], ...] = (str.lower, str.lower, str.lower, str.upper, str.title)
    return rng.choice(ways)(text)


def _reend(text: str, rng: random.Random) -> str:
    return text.rstrip("?.! ") + rng.choice(("", "", "?", ".", "!", "??", " ?", ", please", "?\n"))


def _respace(text: str, rng: random.Random) -> str:
    return rng.choice((" " + text, text + "  ", text.replace(" ", "  ", 1), "\n" + text, text.replace(" ", "  ")))


def _slip(text: str, rng: random.Random) -> str:
    """Makes one typing mistake: two letters swapped, one dropped, doubled or hit beside."""
    at = rng.randrange(max(1, len(text) - 1))
    kind = rng.randrange(4)
    if kind == 0:
        return text[:at] + text[at + 1 : at + 2] + text[at : at + 1] + text[at + 2 :]
    if kind == 1:
        return text[:at] + text[at + 1 :]
    if kind == 2:
        return text[:at] + text[at : at + 1] + text[at:]
    return text[:at] + rng.choice(LETTERS) + text[at + 1 :]


# What may happen to a question, in this order, and how often.
CHANGES: tuple[tuple[Callable[[str, random.Random], str], float], ...] = (
    (_reword, 0.45),
    (_drop, 0.06),
    (_open, 0.08),
    (_recase, 0.1),
    (_reend, 0.1),
    (_respace, 0.04),
    (_slip, 0.2),
)
