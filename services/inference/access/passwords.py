"""Passwords: argon2id, in a thread, a few at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from kit.errors import ResourceExhausted

AT_ONCE = 2  # each takes 19 MiB and tens of milliseconds of one core, which generations need more
WAITING_MAX = 32
RETRY_AFTER_MS = 1_000
# OWASP's recommendation for argon2id: 19 MiB, two passes, one lane.
# https://cheatsheetseries.owasp.org/cheatsheets/Password_Storage_Cheat_Sheet.html
MEMORY_KIB, PASS_COUNT, LANE_COUNT = 19 * 1024, 2, 1


T = TypeVar("T")


class Passwords:
    """Hashes passwords and checks them; a check costs the same whether there is anything to check against or not."""

    def __init__(self, hasher: PasswordHasher | None = None) -> None:
        self._hasher = hasher or PasswordHasher(PASS_COUNT, MEMORY_KIB, LANE_COUNT)
        self._nobodys = self._hasher.hash("nobody has this password")
        self._slots = asyncio.Semaphore(AT_ONCE)
        self._count = 0
        self.check_count = 0

    async def hash(self, password: str) -> str:
        """Returns what is kept of a password.

        Raises:
            ResourceExhausted: Too many are at it (LOGIN_BUSY).
        """
        return await self._run(lambda: self._hasher.hash(password))

    async def verify(self, kept: str | None, password: str) -> bool:
        """Whether a password is the one that is kept; where none is kept, False after as much work.

        Raises:
            ResourceExhausted: Too many are at it (LOGIN_BUSY).
        """
        self.check_count += 1
        is_right = await self._run(lambda: self._is_right(kept or self._nobodys, password))
        return is_right and kept is not None

    def _is_right(self, kept: str, password: str) -> bool:
        try:
            return self._hasher.verify(kept, password)
        except (VerificationError, InvalidHashError):
            return False

    async def _run(self, work: Callable[[], T]) -> T:
        if self._count >= AT_ONCE + WAITING_MAX:
            raise ResourceExhausted("LOGIN_BUSY", "too many log in at once; retry", retry_after_ms=RETRY_AFTER_MS)
        self._count += 1
        try:
            async with self._slots:
                return await asyncio.to_thread(work)
        finally:
            self._count -= 1
