"""What stands for a service that is not configured."""

from __future__ import annotations

import pytest

from kit.errors import Code, MillraceError
from services.inference.absent import AbsentCache, AbsentSafety
from services.inference.caching.cache_port import CacheDraft, CacheKey, CacheMiss, CacheQuery
from tests.inference.parts import receipt

KEY = CacheKey("acme", "", "gpt", b"digest")


async def test_an_absent_cache_knows_nothing() -> None:
    """What was kept is not found, and nobody complains."""
    cache = AbsentCache()
    await cache.store(CacheDraft(KEY, 60), [b"answer"], receipt())
    query = CacheQuery(KEY, lease_s=1)

    assert await cache.lookup(query) == CacheMiss()
    assert [news async for news in cache.follow(query, 1)] == [CacheMiss()]
    await cache.release("lease")


async def test_an_absent_cache_has_nothing_to_report() -> None:
    """Who says that one of its answers did not fit is told that there is none, and which variable to set."""
    with pytest.raises(MillraceError) as caught:
        await AbsentCache().report_false_hit(KEY, "e1", None)
    with pytest.raises(MillraceError) as streamed:
        AbsentCache().store_stream(CacheDraft(KEY, 60), "lease", 1)

    assert caught.value.reason == streamed.value.reason == "CACHE_NOT_CONFIGURED"
    assert "MILLRACE_INFERENCE_CACHE_TARGET" in caught.value.message


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
