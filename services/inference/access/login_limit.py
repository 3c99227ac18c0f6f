"""How often somebody may try to log in: so often a minute for a name, and so often from an address.

It counts where limits are counted, so that replicas that share those share the attempts as well.
"""

from __future__ import annotations

import hashlib
import secrets

from kit.errors import ResourceExhausted
from services.inference.quota.limit import Claim, Limit, Unit, Window
from services.inference.quota.store import QuotaStore

SLOT = "logins"


class LoginLimit:
    """Counts attempts.

    Args:
        store: Where; it must count in some way whatever is away, for guesses must never be free.
        name_max: Attempts per minute for one name.
        address_max: Attempts per minute from one address.
    """

    def __init__(self, store: QuotaStore, name_max: int, address_max: int) -> None:
        self._store, self._maxima = store, {"name": name_max, "address": address_max}

    async def count(self, name: str, address: str) -> None:
        """Counts an attempt.

        Raises:
            ResourceExhausted: There were too many (LOGIN_LIMITED); this one counts for nothing.
        """
        subjects = {"name": name, "address": address}
        limits = tuple(_limit(kind, subject, self._maxima[kind]) for kind, subject in subjects.items())
        standings = await self._store.take(Claim(secrets.token_hex(12), SLOT, limits, (1, 1)))
        if wait_ms := max(standing.wait_ms or 0 for standing in standings):
            message = "too many attempts to log in; retry later"
            raise ResourceExhausted("LOGIN_LIMITED", message, retry_after_ms=wait_ms)


def _limit(kind: str, subject: str, maximum: int) -> Limit:
    digest = hashlib.blake2b(f"{kind}:{subject}".encode(), digest_size=12).hexdigest()
    return Limit(f"login_{kind}", f"{kind}:{subject}", digest, Unit.REQUESTS, Window.MINUTE, maximum, maximum)
