"""One detector at work in one call: by which rule, how that went, and what time it took. It never sees a text.

What a policy wants of a detector is the same for all calls, so it is worked out once: its duty.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from services.safety.detectors.detector import Detector
from services.safety.policy import Direction, Profile, Rule, Verdict


class State(enum.IntEnum):
    """How the run of a detector went; numbered as in the contract."""

    OK = 1
    SKIPPED = 2
    TIMED_OUT = 3
    FAILED = 4


@dataclass(frozen=True)
class Duty:
    """What a policy wants of one detector in one direction; without a rule, nothing."""

    detector: Detector
    rule: Rule | None

    @cached_property
    def categories(self) -> tuple[str, ...]:
        """What it is to look for in any text, in order."""
        return tuple(sorted(self.wanted(False) | self.wanted(True)))

    def wanted(self, retrieved: bool) -> frozenset[str]:
        """What it is to look for in a text, by whether that was retrieved."""
        return self._wanted[retrieved]

    def holds(self, retrieved: bool) -> bool:
        """Whether what it finds changes what leaves; where not, text need not wait for a model."""
        return self._holds[retrieved]

    @cached_property
    def _wanted(self) -> tuple[frozenset[str], frozenset[str]]:
        if self.rule is None:
            return frozenset(), frozenset()
        known = set(self.detector.categories)
        common = known - self.detector.optional_categories
        rules = (self.rule.for_text(False), self.rule.for_text(True))
        typical, retrieved = (
            frozenset(c for c in common | (known & rule.actions.keys()) if rule.action_for(c) is not Verdict.ALLOW)
            for rule in rules
        )
        return typical, retrieved

    @cached_property
    def _holds(self) -> tuple[bool, bool]:
        if self.rule is None:
            return False, False
        typical, retrieved = (
            any(self.rule.for_text(each).action_for(category) > Verdict.FLAG for category in self.wanted(each))
            for each in (False, True)
        )
        return typical, retrieved


def duties(profile: Profile, direction: Direction, detectors: Mapping[str, Detector]) -> Sequence[Duty]:
    """What a profile wants of each detector."""
    rules = {rule.detector: rule for rule in profile.rules[direction]}
    return tuple(Duty(detector, rules.get(name)) for name, detector in detectors.items())


@dataclass(slots=True)
class Run:
    """One detector at work in one call."""

    duty: Duty
    state: State = State.SKIPPED
    spent_s: float = 0.0
    deadline_s: float = 0.0
    scores: dict[str, float] = field(default_factory=dict)

    @property
    def detector(self) -> Detector:
        """Who works."""
        return self.duty.detector

    @property
    def rule(self) -> Rule | None:
        """By which rule; None: it is not wanted."""
        return self.duty.rule

    @property
    def is_live(self) -> bool:
        """Whether it still judges."""
        return self.rule is not None and self.state in (State.OK, State.SKIPPED)

    @property
    def failed_open(self) -> bool:
        """Whether text passes unscreened because of it."""
        return self.rule is not None and not self.is_live and self.rule.fails_open

    @property
    def failed_closed(self) -> bool:
        """Whether text is blocked because of it."""
        return self.rule is not None and not self.is_live and not self.rule.fails_open
