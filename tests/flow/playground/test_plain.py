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


async def test_keys_are_not_asked_for_without_a_key(visit: Open) -> None:
    """Who has none is no administrator: the page says so by itself, and the console logs no refused request."""
    page = await visit()
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    await page.get_by_role("link", name="Keys").click()

    await expect(page.locator(".notice")).to_contain_text("Keys are for administrators.")
    await expect(page.get_by_role("button", name="Give a key")).to_be_visible()
    await page.wait_for_load_state("networkidle")
    assert said == []
