"""The service in one object: the policies in force and the detectors that serve them."""

from __future__ import annotations

import concurrent.futures
import logging
from collections.abc import Mapping

from services.safety.anonymising import Anonymiser
from services.safety.detectors.detector import Detector
from services.safety.policy import Direction, Policies, Profile
from services.safety.screening import Screening

_log = logging.getLogger(__name__)


class Safety:
    """Begins screenings. It holds no state of any call."""

    def __init__(
        self,
        policies: Policies,
        detectors: Mapping[str, Detector],
        anonymiser: Anonymiser,
        pool: concurrent.futures.Executor,
    ) -> None:
        self.policies = policies
        self.anonymiser = anonymiser
        self._detectors = detectors
        self._pool = pool

    def screening(self, profile: str, direction: Direction) -> Screening:
        """Begins a screening by the profile of that name.

        Raises:
            kit.errors.InvalidArgument: There is no such profile.
        """
        return Screening(self.policies.profile(profile), direction, self._detectors, self._pool)

    def hold(self, profile: Profile) -> int:
        """The most code points that a stream holds back under a profile."""
        rules = profile.rules[Direction.OUTPUT]
        return max((self._detectors[rule.detector].hold for rule in rules), default=0)

    def announce(self) -> None:
        """Logs where a text may pass unscreened: nobody should learn that from an incident."""
        for profile, direction, detector in self.policies.fail_open_rules():
            fields = {"profile": profile, "direction": direction.name, "detector": detector}
            _log.warning("fails open", extra=fields)
