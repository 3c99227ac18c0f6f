"""What stands for a service that is not configured."""

from __future__ import annotations

import pytest

from kit.errors import Code, MillraceError
from services.inference.absent import AbsentCache, AbsentSafety
from services.inference.caching import CacheKey
from services.inference.recording import CachePlan
from tests.inference.parts import receipt

KEY = CacheKey("acme", "", "gpt", b"digest")


async def test_an_absent_cache_knows_nothing() -> None:
    """What was kept is not found, and nobody complains."""
    cache = AbsentCache()
    await cache.store(KEY, "tag", b"answer", CachePlan(True, True), (), receipt())

    assert await cache.lookup(KEY, "tag", None) is None


async def test_an_absent_safety_judges_nothing() -> None:
    """Every question is refused with the variable to set: silence would be a verdict."""
    safety = AbsentSafety()
    refused: list[MillraceError] = []
    for ask in (
        lambda: safety.check_input("default", ()),
        lambda: safety.check_output("default", ()),
        lambda: safety.scores("moderation", "hi"),
    ):
        with pytest.raises(MillraceError) as caught:
            await ask()
        refused.append(caught.value)
    with pytest.raises(MillraceError) as caught:
        safety.stream_output("default", 1)
    refused.append(caught.value)

    assert {(error.code, error.reason) for error in refused} == {(Code.UNIMPLEMENTED, "SAFETY_NOT_CONFIGURED")}
    assert all("MILLRACE_INFERENCE_SAFETY_TARGET" in error.message for error in refused)
