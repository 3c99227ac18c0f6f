"""Admission: how many generations may run at once in this process, and what their callers may still use.

Refuses early and says when to come back; it never queues. The queues of the targets stand behind this door.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from kit.errors import ResourceExhausted
from services.inference.quota.quotas import Quotas, unlimited

RETRY_AFTER_MS = 1_000  # a generation of a hundred tokens is over in about a second


class Admission:
    """A bound on running generations.

    Args:
        running_count_max: Most at once.
        quotas: What callers may use; None limits nobody.
    """

    def __init__(self, running_count_max: int, quotas: Quotas | None = None) -> None:
        self.quotas = quotas or unlimited()
        self.running_count = 0
        self._running_count_max = running_count_max

    @contextmanager
    def admit(self) -> Iterator[None]:
        """Takes a slot and gives it back however the generation ends.

        Raises:
            ResourceExhausted: Every slot is taken (TOO_MANY_RUNNING).
        """
        if self.running_count >= self._running_count_max:
            raise ResourceExhausted(
                "TOO_MANY_RUNNING",
                f"{self.running_count} generations are running, the most allowed; retry after {RETRY_AFTER_MS} ms",
                retry_after_ms=RETRY_AFTER_MS,
            )
        self.running_count += 1
        try:
            yield
        finally:
            self.running_count -= 1
