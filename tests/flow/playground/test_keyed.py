"""The playground where keys are asked for: entry, what is kept of a key, and an administrator's pages."""

from __future__ import annotations

import re

import grpc
import pytest
from playwright.async_api import Page, expect

from millrace.inference.v1 import access_service_pb2, access_service_pb2_grpc
from services.inference.access.secret import new_secret
from tests.flow.conftest import Suite
from tests.flow.playground.conftest import Open, answered, ask, violations

pytestmark = pytest.mark.asyncio(loop_scope="module")

ADMIN = new_secret()


@pytest.fixture(scope="module")
def variables(span_store: dict[str, str]) -> dict[str, str]:
    access = {"MODE": "required", "ADMIN_KEY": ADMIN}
    return {**span_store, **{f"MILLRACE_INFERENCE_ACCESS_{name}": value for name, value in access.items()}}


async def add_user(suite: Suite, name: str, password: str) -> None:
    """Makes a user, as an administrator does."""
    async with grpc.aio.insecure_channel(suite.address("inference")) as channel:
        request = access_service_pb2.CreateUserRequest(user=access_service_pb2.User(name=name), password=password)
        stub = access_service_pb2_grpc.AccessServiceStub(channel)
        await stub.CreateUser(request, timeout=10, metadata=[("x-api-key", ADMIN)])


async def give(page: Page, key: str) -> None:
    """Types a key into the panel that is open."""
    await page.get_by_label("API key").fill(key)
    await page.get_by_label("API key").press("Enter")


async def test_a_key_is_asked_for_and_stays_in_its_tab(visit: Open) -> None:
    """The panel opens by itself, refuses a bad key by name, takes a good one, and only this tab has it."""
    page = await visit()
    panel = page.get_by_role("dialog")
    await expect(panel).to_contain_text("This server asks for a key")
    assert await violations(page) == []
    await give(page, "mr_not-a-key")
    await expect(panel.get_by_role("alert")).to_be_visible()
    await give(page, ADMIN)
    await expect(panel).to_have_count(0)
    await answered(page, "hello", "parrot-3")

    await expect(page.locator(".prose")).to_have_text("hello")
    assert ADMIN not in await page.evaluate("JSON.stringify(localStorage)")
    other = await page.context.new_page()
    await other.goto(page.url)
    await expect(other.get_by_role("dialog")).to_contain_text("This server asks for a key")


async def test_a_key_that_ends_is_asked_for_again(visit: Open) -> None:
    """A request that is refused for its key opens the panel, and says so beside the question."""
    page = await visit(key=ADMIN)
    await expect(page.get_by_label("Model", exact=True)).to_contain_text("parrot-3")
    await page.evaluate("sessionStorage.setItem('millrace.key', JSON.stringify('mr_gone'))")
    await ask(page, "hello", "parrot-3")

    await expect(page.get_by_role("dialog").get_by_role("alert")).to_be_visible()
    await expect(page.locator(".notice.bad").first).to_be_attached()


async def test_keys_are_made_shown_once_and_revoked(visit: Open) -> None:
    """An administrator makes a key, sees its secret once, and ends it; the secret works until then."""
    page = await visit("/#/keys", key=ADMIN)
    await page.get_by_role("button", name="New key").click()
    await page.get_by_label("Name").fill("laptop")
    await page.get_by_label("Models").fill("parrot-*")
    await page.get_by_role("button", name="Make it").click()
    secret = await page.locator(".secret").inner_text()
    assert re.fullmatch(r"mr_\S{40,}", secret)
    assert await violations(page) == []
    await page.get_by_role("button", name="Close").click()
    await expect(page.locator("dialog")).to_have_count(0)  # it goes with the event that its closing fires
    row = page.get_by_role("row").filter(has_text="laptop")
    await expect(row).to_contain_text("parrot-*")
    assert secret not in await page.content()

    guest = await visit(key=secret)
    await answered(guest, "hello", "parrot-3")
    await row.get_by_role("button", name="Revoke laptop").click()
    await page.get_by_role("button", name="Revoke it").click()
    await expect(row).to_contain_text("revoked")


async def test_who_has_a_name_logs_in(visit: Open, suite: Suite) -> None:
    """A wrong password is told, a right one opens the page, and the token is renewed by itself before it ends."""
    await add_user(suite, "ann", "correct horse")
    page = await visit()
    panel = page.get_by_role("dialog")
    await panel.get_by_text("Log in with a name").click()
    await panel.get_by_label("Name").fill("ann")
    await panel.get_by_label("Password").fill("wrong")
    await panel.get_by_role("button", name="Log in").click()
    await expect(panel.get_by_role("alert")).to_be_visible()
    assert await violations(page) == []
    await panel.get_by_label("Password").fill("correct horse")
    await panel.get_by_role("button", name="Log in").click()
    await expect(panel).to_have_count(0)
    await expect(page.get_by_role("button", name="ann ✓")).to_be_visible()
    await answered(page, "hello", "parrot-3")

    await page.evaluate("""() => {
        const login = JSON.parse(sessionStorage.getItem("millrace.login"));
        sessionStorage.setItem("millrace.login", JSON.stringify({ ...login, until_ms: 0 }));
    }""")
    async with page.expect_response("**/login/refresh") as renewed:
        await answered(page, "hello again", "parrot-3")
    assert (await renewed.value).status == 200
    await page.get_by_role("button", name="ann ✓").click()
    await page.get_by_role("button", name="Log out").click()
    await page.wait_for_function("Object.keys(sessionStorage).length === 0")


async def test_limits_are_shown(visit: Open) -> None:
    """Every limit of a caller stands on the limits page with what is left of it."""
    page = await visit("/#/keys", key=ADMIN)
    await page.get_by_role("button", name="New key").click()
    await page.get_by_label("Name").fill("limited")
    await page.get_by_label("Tier").fill("free")
    await page.get_by_role("button", name="Make it").click()
    guest = await visit(key=await page.locator(".secret").inner_text())
    await answered(guest, "hello", "parrot-3")
    await guest.goto(guest.url.split("#")[0] + "#/limits")

    await expect(guest.locator(".limits li")).to_contain_text("4 of 5 left")
    await expect(guest.get_by_role("meter")).to_have_attribute("aria-valuenow", "20")


async def test_others_are_told_where_to_get_a_key(visit: Open) -> None:
    """To whoever is no administrator the live figures and keys are one sentence, not an empty page."""
    page = await visit("/#/keys", key=ADMIN)
    await page.get_by_role("button", name="New key").click()
    await page.get_by_label("Name").fill("user")
    await page.get_by_role("button", name="Make it").click()
    secret = await page.locator(".secret").inner_text()

    guest = await visit("/#/live", key=secret)
    await expect(guest.locator(".notice:visible")).to_contain_text("for administrators")
    await guest.goto(guest.url.replace("live", "keys"))
    await expect(guest.locator(".notice:visible")).to_contain_text("for administrators")
    assert await violations(guest) == []
