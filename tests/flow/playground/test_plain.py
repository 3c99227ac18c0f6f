"""The playground of an edge that keeps no spans."""

from __future__ import annotations

import pytest
from playwright.async_api import expect

from tests.flow.playground.conftest import Open, answered

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.fixture(scope="module")
def variables() -> dict[str, str]:
    return {}


async def test_no_spans_are_no_error(visit: Open) -> None:
    """An answer says that its trace is not kept here, and the browser's console logs no request that failed."""
    page = await visit()
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    await answered(page, "hello", "parrot-3")

    await expect(page.locator(".fall header")).to_contain_text("not kept here")
    assert said == []
