"""A table of bounded size that forgets what was not asked for longest. It keeps no texts, only what is put there."""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Recent(Generic[K, V]):
    """Values by key. Safe for threads."""

    def __init__(self, size_max: int) -> None:
        self._size_max = size_max
        self._values: OrderedDict[K, V] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: K) -> V | None:
        """Finds a value, and marks it as used."""
        with self._lock:
            if (value := self._values.get(key)) is not None:
                self._values.move_to_end(key)
            return value

    def put(self, key: K, value: V) -> None:
        """Keeps a value."""
        with self._lock:
            self._values[key] = value
            if len(self._values) > self._size_max:
                self._values.popitem(last=False)

    def drop(self, key: K) -> None:
        """Forgets a value."""
        with self._lock:
            self._values.pop(key, None)


def digest(text: str) -> bytes:
    """What stands for a text in a table."""
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
