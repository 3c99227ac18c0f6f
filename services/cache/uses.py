"""How often entries were used since someone last asked: what eviction needs to know, without a write for every hit."""

from itertools import islice
from typing import Final

# Entries remembered until the uses are taken. Beyond that some uses are not counted: eviction is a little less just.
ENTRIES_MAX: Final = 4096


class UseCounts:
    """Counts uses of entries by digest."""

    def __init__(self) -> None:
        self._counts: dict[bytes, int] = {}

    def __bool__(self) -> bool:
        return bool(self._counts)

    def note(self, digest: bytes) -> None:
        """Counts one use."""
        if digest in self._counts or len(self._counts) < ENTRIES_MAX:
            self._counts[digest] = self._counts.get(digest, 0) + 1

    def take(self, count: int) -> list[tuple[bytes, int]]:
        """Hands over the uses of up to `count` entries, and forgets them."""
        return [(digest, self._counts.pop(digest)) for digest in list(islice(self._counts, count))]
