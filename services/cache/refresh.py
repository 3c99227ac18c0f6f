"""Which answers to produce anew before they expire: those that are asked for often, and whose life is almost over.

Without this, everyone who asks for a popular answer waits for the upstream each time that it expires. Counts live in
this process only, and are of hits whose callers could do the work. This module never produces or keeps an answer.
"""

from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

from services.cache.entry import Entry

# Entries of which hits are counted; beyond that the one hit longest ago is forgotten.
ENTRIES_MAX: Final = 10_000


@dataclass(slots=True)
class _Watched:
    nonce: str
    hit_count: int = 0
    told: bool = False


class RefreshWatch:
    """Counts hits, and tells once for each version of an entry that it is due.

    Args:
        ahead: Last share of a life in which an entry may be due; 0 for none ever.
        hits_min: Hits that make an entry worth it.
    """

    def __init__(self, ahead: float, hits_min: int) -> None:
        self._ahead, self._hits_min = ahead, hits_min
        self._watched: OrderedDict[bytes, _Watched] = OrderedDict()

    def due(self, entry: Entry, now_ms: int) -> bool:
        """Counts a hit on a fresh entry; true for the first that finds the entry due."""
        watched = self._watch(entry)
        watched.hit_count += 1
        late = entry.expires_ms - now_ms <= self._ahead * (entry.expires_ms - entry.created_ms)
        if not late or watched.told or watched.hit_count < self._hits_min:
            return False
        watched.told = True
        return True

    def _watch(self, entry: Entry) -> _Watched:
        digest = entry.address.entry
        watched = self._watched.get(digest)
        if watched is None or watched.nonce != entry.nonce:
            watched = self._watched[digest] = _Watched(entry.nonce)
            if len(self._watched) > ENTRIES_MAX:
                self._watched.popitem(last=False)
        self._watched.move_to_end(digest)
        return watched
