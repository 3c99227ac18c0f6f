"""Where the process stands between start and stop."""

from __future__ import annotations

import time


class Lifecycle:
    """Whether the process drains, and how long it has been up.

    Attributes:
        draining: Set once, when the process is asked to stop: readiness goes first.
        version: Of this program.
    """

    def __init__(self, version: str) -> None:
        self.draining = False
        self.version = version
        self._started = time.monotonic()

    @property
    def uptime_s(self) -> float:
        """Seconds since the start."""
        return round(time.monotonic() - self._started, 3)
