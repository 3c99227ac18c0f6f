"""Attempts to log in are counted for a name and for an address, by every replica that shares the counts."""

from __future__ import annotations

import pytest

from kit.errors import ResourceExhausted
from services.inference.access.login_limit import LoginLimit
from services.inference.quota.memory_store import MemoryStore


async def is_let(limit: LoginLimit, name: str, address: str) -> bool:
    """Whether an attempt may be made, or is refused as it should be: with a reason and a time to come back."""
    try:
        await limit.count(name, address)
    except ResourceExhausted as error:
        return error.reason != "LOGIN_LIMITED" or not 0 < (error.retry_after_ms or 0) <= 60_000
    return True


@pytest.mark.parametrize(("name", "address"), [("ada", None), (None, "1.1.1.1")])
async def test_replicas_share_what_they_count(name: str | None, address: str | None) -> None:
    """Two replicas let as many attempts through as one would, whichever of name and address stays the same."""
    store = MemoryStore(lambda: 1_000_000)
    replicas = [LoginLimit(store, 5, 5), LoginLimit(store, 5, 5)]
    let = [await is_let(replicas[at % 2], name or f"n{at}", address or f"a{at}") for at in range(12)]

    assert let == [True] * 5 + [False] * 7


async def test_a_refused_attempt_counts_for_nothing() -> None:
    """Who guesses at a name from an address that is used up takes none of the name's attempts."""
    limit = LoginLimit(MemoryStore(lambda: 1_000_000), 5, 2)
    let = [await is_let(limit, "ada", "evil") for _ in range(20)]
    let += [await is_let(limit, "ada", "home") for _ in range(2)]

    assert let == [True] * 2 + [False] * 18 + [True] * 2
