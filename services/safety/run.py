"""One detector at work in one call: by which rule, how that went, and what time it took. It never sees a text."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

from services.safety.detectors.detector import Detector
from services.safety.policy import Rule, Verdict


class State(enum.IntEnum):
    """How the run of a detector went; numbered as in the contract."""

    OK = 1
    SKIPPED = 2
    TIMED_OUT = 3
    FAILED = 4


@dataclass(slots=True)
class Run:
    """One detector at work in one call."""

    detector: Detector
    rule: Rule | None
    state: State = State.SKIPPED
    spent_s: float = 0.0
    deadline_s: float = 0.0
    scores: dict[str, float] = field(default_factory=dict)

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

    @property
    def categories(self) -> frozenset[str]:
        """What the policy wants it to look for."""
        return self.wanted(False) | self.wanted(True)

    def wanted(self, retrieved: bool) -> frozenset[str]:
        """What the policy wants it to look for in a text, by whether that was retrieved."""
        if self.rule is None:
            return frozenset()
        rule = self.rule.for_text(retrieved)
        known = set(self.detector.categories)
        wanted = (known - self.detector.optional_categories) | (known & rule.actions.keys())
        return frozenset(c for c in wanted if rule.action_for(c) is not Verdict.ALLOW)

    def holds(self, retrieved: bool) -> bool:
        """Whether what it finds changes what leaves; where not, text need not wait for a model."""
        if self.rule is None:
            return False
        rule = self.rule.for_text(retrieved)
        return any(rule.action_for(category) > Verdict.FLAG for category in self.wanted(retrieved))
