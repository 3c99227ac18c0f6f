"""Policies: which detectors run on which texts, and what is done about what they find.

Plain objects, made from the policy file by `policy_file.py`; they never look at a text.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from kit.errors import InvalidArgument
from services.safety.backends.document import BackendSpec

DEFAULT_PROFILE = "default"
HOLD_S = 20.0


class Verdict(enum.IntEnum):
    """What is to happen to a text, by severity; numbered as in the contract."""

    ALLOW = 1
    FLAG = 2
    REDACT = 3
    BLOCK = 4


class Direction(enum.IntEnum):
    """Which way a text flows; numbered as in the contract."""

    INPUT = 1
    OUTPUT = 2


class Term(NamedTuple):
    """One forbidden phrase."""

    category: str
    score: float
    phrase: str


@dataclass(frozen=True, slots=True)
class Rule:
    """How one detector is used in one direction.

    `anonymises` says whether REDACT in `action` has a way back, `anonymised` names the categories of `actions` where it
    has. `retrieved` is the rule for what nobody at the keyboard wrote, where that differs: tool results and documents.
    """

    detector: str
    threshold: float
    action: Verdict
    actions: Mapping[str, Verdict]
    fails_open: bool
    deadline_s: float
    anonymises: bool = False
    anonymised: frozenset[str] = frozenset()
    retrieved: Rule | None = None

    def action_for(self, category: str) -> Verdict:
        """What to do about a finding of a category."""
        return self.actions.get(category, self.action)

    def is_reversible(self, category: str) -> bool:
        """Whether a finding of a category is replaced by a placeholder that leads back."""
        return category in self.anonymised if category in self.actions else self.anonymises

    def for_text(self, retrieved: bool) -> Rule:
        """The rule for a text, by whether it was retrieved."""
        return self.retrieved or self if retrieved else self


@dataclass(frozen=True, slots=True)
class Profile:
    """A named set of rules; `hold_s` is the longest that text of a stream waits for more to come."""

    name: str
    description: str
    strictness: int
    rules: Mapping[Direction, tuple[Rule, ...]]
    hold_s: float = HOLD_S


class Backend(NamedTuple):
    """A detector that the operator's file brings: a model, and where the file names it."""

    spec: BackendSpec
    place: str


@dataclass(frozen=True, slots=True)
class Policies:
    """Everything that one reading of the policy file gave; `backends` by the name of their detector."""

    version: str
    profiles: Mapping[str, Profile]
    terms: tuple[Term, ...]
    injections: tuple[Term, ...]
    backends: Mapping[str, Backend]

    def profile(self, name: str) -> Profile:
        """Finds a profile; an empty name means the default one.

        Raises:
            InvalidArgument: There is none of that name.
        """
        try:
            return self.profiles[name or DEFAULT_PROFILE]
        except KeyError:
            known = ", ".join(self.profiles)
            message = f"unknown profile {name[:64]!r}; choose one of: {known}"
            raise InvalidArgument("profile", message, reason="UNKNOWN_PROFILE") from None

    def fail_open_rules(self) -> Iterator[tuple[str, Direction, str]]:
        """Lists profile, direction and detector wherever a text may pass unscreened."""
        for profile in self.profiles.values():
            for direction, rules in profile.rules.items():
                yield from ((profile.name, direction, rule.detector) for rule in rules if rule.fails_open)
