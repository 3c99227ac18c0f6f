"""Which services that died are started again, and after what pause.

One that has been ready has shown that its settings are good: it is started again, at once the first time and later and
later after that, until it has failed too often. Being ready for a while is what makes the count begin anew; being ready
for a moment is not, or one that dies of its first request would be started for ever. One that was never ready is not
started again: what it lacks will not come by itself.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

PAUSES_S = (0.0, 1.0, 2.0, 4.0, 8.0)
# After a minute of answering, the next death is another story.
STEADY_S = 60.0


class Restarts:
    """Counts what was tried for each service.

    Args:
        pauses_s: Before each try; there are no more tries than pauses.
        steady_s: How long a service must have been ready for its tries to be forgotten.
    """

    def __init__(self, pauses_s: Sequence[float] = PAUSES_S, steady_s: float = STEADY_S) -> None:
        self._pauses_s, self._steady_s = tuple(pauses_s), steady_s
        self._tries: Counter[str] = Counter()
        self._proven: set[str] = set()

    def pause_s(self, name: str, ready_s: float | None) -> float | None:
        """Takes note of a death, and says how long to wait before the service is started again; None: it is not.

        Args:
            name: The service.
            ready_s: How long it had been ready; None: it had not got so far.
        """
        if ready_s is not None:
            self._proven.add(name)
            if ready_s >= self._steady_s:
                del self._tries[name]
        if name not in self._proven or self._tries[name] == len(self._pauses_s):
            return None
        self._tries[name] += 1
        return self._pauses_s[self._tries[name] - 1]

    def tries(self, name: str) -> str:
        """Says how many of its tries a service has used."""
        return f"{self._tries[name]} of {len(self._pauses_s)}"

    def why_not(self, name: str) -> str:
        """Says why a service is not started again."""
        if name not in self._proven:
            return "before it was ever ready"
        return f"{len(self._pauses_s) + 1} times without {self._steady_s:g} s of being ready in between"
