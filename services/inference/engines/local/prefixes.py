"""Which prompts begin alike: finds a sequence whose cached beginning another one can copy.

Blocks of token ids are looked up by a hash that covers all blocks before them; a hit is then compared token by token,
so that no collision can hand out another prompt's state. Prompts of different tenants never meet: how fast an answer
comes would tell one what the other asked. It holds no memory of the cache.
"""

from __future__ import annotations

from services.inference.engines.local.sequence import Sequence

# Tokens that are looked up at once. Shorter finds more, longer costs less.
BLOCK_TOKENS = 16


class Prefixes:
    """The index of one cache."""

    def __init__(self) -> None:
        self._owner_by_key: dict[int, Sequence] = {}
        self._keys_by_owner: dict[Sequence, list[int]] = {}

    def find(self, sequence: Sequence) -> tuple[Sequence, int] | None:
        """Finds who holds the longest beginning of a sequence, and how many tokens of it; at least one is left over."""
        key, best = hash(sequence.tenant), None
        ids = sequence.token_ids
        for end in range(BLOCK_TOKENS, len(ids), BLOCK_TOKENS):
            key = _key(key, ids, end)
            owner = self._owner_by_key.get(key)
            if owner is None:
                break
            best = (owner, end)
        if best is None:
            return None
        owner, count = best
        is_same = owner.tenant == sequence.tenant and owner.token_ids[:count] == ids[:count]
        return best if is_same and owner.extent is not None else None

    def add(self, owner: Sequence) -> None:
        """Enters the blocks that have been computed since the last time; the newest owner of a block is kept."""
        keys = self._keys_by_owner.setdefault(owner, [])
        key = keys[-1] if keys else hash(owner.tenant)
        for end in range(BLOCK_TOKENS * (len(keys) + 1), owner.computed_count + 1, BLOCK_TOKENS):
            key = _key(key, owner.token_ids, end)
            keys.append(key)
            self._owner_by_key[key] = owner

    def remove(self, owner: Sequence) -> None:
        """Forgets a sequence that loses its place."""
        for key in self._keys_by_owner.pop(owner, ()):
            if self._owner_by_key.get(key) is owner:
                del self._owner_by_key[key]


def _key(before: int, token_ids: list[int], end: int) -> int:
    return hash((before, *token_ids[end - BLOCK_TOKENS : end]))
