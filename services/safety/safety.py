"""The service in one object: the policies in force and the detectors that serve them."""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
from collections.abc import Callable, Mapping
from typing import NamedTuple

from services.safety.anonymising import Anonymiser
from services.safety.detectors.detector import Detector
from services.safety.policy import Direction, Policies, Profile
from services.safety.screening import Screening

_log = logging.getLogger(__name__)


class _InForce(NamedTuple):
    policies: Policies
    detectors: Mapping[str, Detector]


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

    async def put_in_force(self, policies: Policies) -> None:
        """Has calls that begin from now on go by other policies, all of them or none."""
        detectors = await asyncio.to_thread(self._detectors_for, policies)
        self._in_force = _InForce(policies, detectors)
        self.announce()

    def screening(self, profile: str, direction: Direction) -> Screening:
        """Begins a screening by the profile of that name.

        Raises:
            kit.errors.InvalidArgument: There is no such profile.
        """
        policies, detectors = self._in_force
        found = policies.profile(profile)
        return Screening(found, direction, detectors, self._pool, policy_version=policies.version)

    def hold(self, profile: Profile) -> int:
        """The most code points that a stream holds back under a profile."""
        rules = profile.rules[Direction.OUTPUT]
        return max((self.detectors[rule.detector].hold for rule in rules), default=0)

    def announce(self) -> None:
        """Logs where a text may pass unscreened: nobody should learn that from an incident."""
        for profile, direction, detector in self.policies.fail_open_rules():
            fields = {"profile": profile, "direction": direction.name, "detector": detector}
            _log.warning("fails open", extra=fields)
