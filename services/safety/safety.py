"""The service in one object: the policies in force and the detectors that serve them."""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from kit.process import resident_mib
from services.safety.anonymising import Anonymiser
from services.safety.checking import Screened, Text, check
from services.safety.detectors.detector import Detector, Warmed, is_awaited
from services.safety.judging import JUDGEMENTS_MAX, Judgements
from services.safety.policy import Direction, Policies, Profile
from services.safety.recent import Recent
from services.safety.run import Duty, duties
from services.safety.screening import Screening

_log = logging.getLogger(__name__)

# Makes every recogniser compile its patterns and read its tables before the first caller waits for them.
_WARM_UP = (
    "a@b.co 212-555-0147 +44 20 7946 0958 4111 1111 1111 1111 DE89 3704 0044 0532 0130 00 212-45-6789 10.0.0.1 a.co"
)


@dataclass(frozen=True, slots=True)
class _InForce:
    policies: Policies
    detectors: Mapping[str, Detector]
    judgements: Judgements = field(default_factory=lambda: Recent(JUDGEMENTS_MAX))
    _duties: dict[tuple[str, Direction], Sequence[Duty]] = field(default_factory=dict)

    def duties(self, profile: Profile, direction: Direction) -> Sequence[Duty]:
        """What a profile wants of the detectors, worked out for its first call."""
        key = profile.name, direction
        if (found := self._duties.get(key)) is None:
            found = self._duties[key] = duties(profile, direction, self.detectors)
        return found

    @property
    def needed(self) -> dict[str, Detector]:
        """The detectors that some profile has a rule for; the others never read a text."""
        profiles = self.policies.profiles.values()
        named = {rule.detector for each in profiles for rules in each.rules.values() for rule in rules}
        return {name: detector for name, detector in self.detectors.items() if name in named}


class Safety:
    """Begins screenings. It holds no state of any call.

    Args:
        policies: What is in force at first.
        detectors_for: Makes the detectors that policies ask for; their terms are part of them.
        anonymiser: Redacts for callers without a policy.
        pool: Threads for long texts.
    """

    def __init__(
        self,
        policies: Policies,
        detectors_for: Callable[[Policies], Mapping[str, Detector]],
        anonymiser: Anonymiser,
        pool: concurrent.futures.Executor,
    ) -> None:
        self.anonymiser = anonymiser
        self._detectors_for = detectors_for
        self._in_force = _InForce(policies, detectors_for(policies))
        self._pool = pool

    @property
    def policies(self) -> Policies:
        """What is in force."""
        return self._in_force.policies

    @property
    def detectors(self) -> Mapping[str, Detector]:
        """The detectors that serve it, by name."""
        return self._in_force.detectors

    async def warm(self) -> None:
        """Loads what the policies in force need, and nothing else: a model that no profile uses costs no memory.

        Raises:
            kit.errors.MillraceError: A model cannot be loaded.
        """
        await _warm(self._in_force.needed)
        self.announce()

    async def put_in_force(self, policies: Policies) -> None:
        """Has calls that begin from now on go by other policies, all of them or none.

        Raises:
            kit.errors.MillraceError: A model that they need cannot be loaded; nothing has changed.
        """
        detectors = await asyncio.to_thread(self._detectors_for, policies)
        coming = _InForce(policies, detectors)
        await _warm(coming.needed)
        self._in_force = coming
        self.announce()

    def screening(self, profile: str, direction: Direction) -> Screening:
        """Begins a screening by the profile of that name.

        Raises:
            kit.errors.InvalidArgument: There is no such profile.
        """
        policies = self._in_force.policies
        found = policies.profile(profile)
        wanted = self._in_force.duties(found, direction)
        return Screening(found, direction, wanted, self._pool, policy_version=policies.version)

    async def check(self, screening: Screening, texts: Iterable[Text]) -> list[Screened]:
        """Judges whole texts; what is in force remembers what it said of them."""
        return await check(screening, texts, self._in_force.judgements)

    def hold(self, profile: Profile) -> int:
        """The most code points that a stream holds back under a profile."""
        rules = profile.rules[Direction.OUTPUT]
        return max((self.detectors[rule.detector].hold for rule in rules), default=0)

    def announce(self) -> None:
        """Logs where a text may pass unscreened: nobody should learn that from an incident."""
        for profile, direction, detector in self.policies.fail_open_rules():
            fields = {"profile": profile, "direction": direction.name, "detector": detector}
            _log.warning("fails open", extra=fields)


async def _warm(detectors: Mapping[str, Detector]) -> None:
    """Has every detector load what it needs and read a text once, before the first caller waits for that."""
    for detector in detectors.values():
        if isinstance(detector, Warmed):
            await detector.warm()
        else:
            cursor = detector.cursor(detector.categories)
            assert not is_awaited(cursor), "what is awaited is warmed"
            await asyncio.to_thread(cursor.scan, _WARM_UP, 0, True)
    _log.info("detectors ready", extra={"detectors": sorted(detectors), "resident_mib": resident_mib()})
