"""The playground in real Chromium, as a newcomer meets it: nothing is asked for, everything is shown."""

from __future__ import annotations

import json
import re

import httpx
import pytest
from playwright.async_api import Page, expect

from tests.flow.conftest import Suite
from tests.flow.parrot import Parrot
from tests.flow.playground.conftest import DEADLINE_MS, Open, answered, ask, fits, violations

pytestmark = pytest.mark.asyncio(loop_scope="module")

CARD = "4111 1111 1111 1111"
MAIL = "ada@example.com"
WORDS = "alpha bravo charlie delta echoes foxtrot"
LUMINANCE = "getComputedStyle(document.body).backgroundColor.match(/\\d+/g).slice(0, 3).reduce((a, b) => +a + +b, 0)"


async def test_first_answer_has_its_receipt(visit: Open) -> None:
    """One click on an example streams an answer of the embedded model, with who, why, how fast and for how much."""
    page = await visit()
    await page.get_by_role("button", name="What is Millrace?").click()
    proof = page.locator(".proof")

    await expect(proof.locator("summary")).to_contain_text("millrace-embedded")
    await expect(proof.locator(".facts")).to_contain_text("unknown price")
    await expect(proof.locator(".facts")).to_contain_text("tokens/s")
    await expect(proof).to_contain_text("Chosen by auto: simple")
    await expect(proof).to_contain_text("local:embedded")
    await expect(page.locator(".prose")).to_have_text(re.compile(".{21,}", re.DOTALL))


async def test_answer_is_shown_as_it_comes(visit: Open, upstream: Parrot) -> None:
    """What the model has said is there before it says the rest, and the answer is busy until it has."""
    page = await visit()
    upstream.drain()
    await ask(page, WORDS, "parrot-patient-6")
    prose, answer = page.locator(".prose"), page.locator(".answer")
    for step, word in enumerate(WORDS.split()[:3], start=1):
        upstream.go_on(2 if step == 1 else 1)
        await expect(prose).to_contain_text(word[:3])
        await expect(prose).not_to_contain_text("foxtrot")
    await expect(answer).to_have_attribute("aria-busy", "true")
    upstream.go_on(len(WORDS))

    await expect(prose).to_have_text(WORDS)
    await expect(answer).not_to_have_attribute("aria-busy", "true")


async def test_escape_stops_the_model(visit: Open, upstream: Parrot) -> None:
    """Esc ends the stream, keeps what was said, and cancels the attempt, as its span says."""
    page = await visit()
    upstream.drain()
    await ask(page, WORDS, "parrot-patient-6")
    upstream.go_on(3)
    await expect(page.locator(".prose")).to_contain_text("alpha")
    await page.keyboard.press("Escape")

    await expect(page.locator(".stopped")).to_contain_text("You stopped it")
    await expect(page.get_by_role("button", name="Send")).to_be_visible()
    attempt = page.locator(".fall ol li").filter(has_text="chat parrot-patient-6").get_by_role("button")
    await attempt.focus()
    await expect(page.locator(".span-about")).to_contain_text("cancelled")
    upstream.go_on(len(WORDS))  # for the handler, which notices when it writes


async def test_failure_says_what_to_do(visit: Open) -> None:
    """A model that cannot be reached gives an error with its words, what to do, its request id, and a way back."""
    page = await visit()
    await ask(page, "hello", "broken")
    error = page.get_by_role("group", name="Error")

    await expect(error).to_contain_text("Try again in a moment")
    await expect(error).to_contain_text("request ")
    await page.get_by_label("Model", exact=True).select_option("parrot-3")
    await error.get_by_role("button", name="Try again").click()
    await expect(page.locator(".prose")).to_have_text("hello")
    await expect(page.locator(".turn")).to_have_count(1)


async def test_refused_prompt_names_what_was_found(visit: Open) -> None:
    """What safety blocks is told with its category and what to do, and nothing is sent in its place."""
    page = await visit()
    await ask(page, "how to make a pipe bomb at home", "parrot-3")
    error = page.get_by_role("group", name="Error")

    await expect(error).to_contain_text("illicit")
    await expect(error).to_contain_text("other words")


async def test_cached_answer_is_marked_and_can_be_reported(visit: Open) -> None:
    """The same question again is answered from the cache and says so with its age; reported, it is made anew."""
    page = await visit()
    for kind in ("miss", "exact", "miss"):
        await page.get_by_role("button", name="New chat").first.click()
        await answered(page, "a question for the cache", "parrot-3")
        await expect(page.locator(".facts")).to_contain_text(kind)
        await expect(page.locator(".tag.cached")).to_have_count(1 if kind == "exact" else 0)
        if kind == "exact":
            await expect(page.locator(".facts")).to_contain_text("old")
            await page.get_by_role("button", name="Wrong answer").click()
            await expect(page.get_by_role("button", name="Removed from the cache")).to_be_visible()


async def test_redactions_are_marked_in_the_text(visit: Open) -> None:
    """A card is marked where it stood in the prompt, and what took its place is marked in the answer."""
    page = await visit()
    await answered(page, f"👩‍👩‍👧 Write to {MAIL}, pay with {CARD}, and write to bob@example.com.", "parrot-3")

    await expect(page.locator(".prompt mark")).to_have_text([MAIL, CARD, "bob@example.com"])
    await expect(page.locator(".prose mark.redact")).to_have_text("<CREDIT_CARD>")
    await expect(page.locator(".prose mark.flag")).to_have_text([MAIL, "bob@example.com"])
    await expect(page.locator(".findings")).to_contain_text("credit card redacted in the answer")


async def test_profile_of_the_settings_is_used(visit: Open) -> None:
    """The strict profile hides a prompt's mail from the model, and the page says that it did."""
    page = await visit()
    await page.get_by_role("button", name="Settings").click()
    await page.get_by_label("Safety profile").fill("strict")
    await answered(page, f"My mail is {MAIL} today.", "parrot-3")

    await expect(page.locator(".prompt mark.redact")).to_have_attribute(
        "title", "email address: not shown to the model"
    )
    await expect(page.locator(".prose")).to_contain_text("<EMAIL_ADDRESS>")
    await expect(page.get_by_role("button", name="Settings (1)")).to_be_visible()


async def test_waterfall_has_every_span(visit: Open, suite: Suite) -> None:
    """Each span of the request is a row in the order of the tree, and shows its attributes to the keyboard."""
    page = await visit()
    async with page.expect_response("**/v1/chat/completions") as asked:
        await answered(page, "a question for the trace", "parrot-3")
    request_id = await (await asked.value).header_value("x-request-id")
    async with httpx.AsyncClient(timeout=DEADLINE_MS / 1000) as client:
        await client.get(f"{suite.url}/v1/traces/{request_id}/events")  # ends when the trace is complete
        spans = (await client.get(f"{suite.url}/v1/traces/{request_id}")).json()["spans"]
    rows = page.locator(".fall ol li")

    await expect(rows).to_have_count(len(spans))
    named = [text.split("/")[-1] for text in await rows.locator(".name").all_inner_texts()]
    assert sorted(named) == sorted(span["name"].split("/")[-1] for span in spans)
    assert {"StreamGenerate", "CheckInput", "Lookup", "chat parrot-3", "StreamCheckOutput", "Store"} <= set(named)
    assert {span["service"] for span in spans} == {"edge", "inference", "cache", "safety"}
    await rows.filter(has_text="chat parrot-3").get_by_role("button").focus()
    await expect(page.locator(".span-about")).to_contain_text("gen_ai.request.model")


async def test_conversations_stay_in_this_browser(visit: Open) -> None:
    """After a reload the conversation is there with its receipt and trace; it can be taken along, and cleared."""
    page = await visit()
    await answered(page, "a question to be kept", "parrot-3")
    await expect(page.locator(".fall ol li").first).to_be_visible()
    await page.reload()

    await expect(page.locator(".prose")).to_have_text("a question to be kept")
    await expect(page.locator(".facts")).to_be_visible()
    async with page.expect_download() as exported:
        await page.get_by_role("button", name="Export").click()
    kept = json.loads((await (await exported.value).path()).read_text())
    assert kept["conversations"][0]["turns"][0]["answer"] == "a question to be kept"
    await page.get_by_role("button", name="Clear all").click()
    await page.get_by_role("dialog").get_by_role("button", name="Clear all").click()
    await expect(page.locator(".hello")).to_be_visible()
    await page.wait_for_function("localStorage.getItem('millrace.conversations') === null")


async def test_the_keyboard_is_enough(visit: Open) -> None:
    """Shortcuts reach every page and the message, are listed, and can be switched off."""
    page = await visit()
    await page.locator("body").press("Escape")
    for digit, title in enumerate(("Live", "Keys", "Usage", "Limits"), start=2):
        await page.keyboard.press(str(digit))
        await expect(page.get_by_role("heading", level=1)).to_have_text(title)
    await page.keyboard.press("/")
    await expect(page.get_by_label("Message")).to_be_focused()
    await page.keyboard.press("Escape")
    await page.keyboard.press("?")
    await page.get_by_label("Shortcuts of a single letter").uncheck()
    await page.keyboard.press("Escape")
    await expect(page.get_by_role("dialog")).to_have_count(0)  # else the key would be the dialog's
    await page.keyboard.press("2")

    await expect(page.get_by_label("Message")).to_be_visible()


async def test_live_figures_are_drawn(visit: Open) -> None:
    """The live page says that all is well, which services are up, and has a row for each target."""
    page = await visit()
    await answered(page, "a question for the figures", "parrot-3")
    await page.keyboard.press("Escape")
    await page.keyboard.press("2")

    await expect(page.locator(".service")).to_have_text(["edge", "inference", "cache", "safety", "database"])
    await expect(page.get_by_role("row").filter(has_text="parrot-3")).to_contain_text("closed")
    await expect(page.locator(".lines")).to_have_count(8)


async def test_usage_opens_the_trace_of_a_past_request(visit: Open) -> None:
    """The usage page counts the request, and opens its waterfall from the list."""
    page = await visit()
    await answered(page, "a question for the books", "parrot-3")
    await page.goto(page.url.split("#")[0] + "#/usage")
    await expect(page.get_by_role("region", name="Table").first).to_contain_text("parrot-3")
    await page.get_by_role("button", name="Show the trace").first.click()

    await expect(page.get_by_role("dialog").locator(".fall ol li").first).to_be_visible()


async def test_dark_follows_the_system_until_one_chooses(visit: Open) -> None:
    """Dark where the system is dark, light where the switch says so, also after a reload."""
    page = await visit(color_scheme="dark")
    await page.wait_for_function(f"{LUMINANCE} < 150")
    await page.get_by_role("button", name="switch to light").click()
    await page.wait_for_function(f"{LUMINANCE} > 600")
    await page.reload()

    await page.wait_for_function(f"{LUMINANCE} > 600")


@pytest.mark.parametrize("width", [360, 768])
async def test_nothing_is_wider_than_the_screen(visit: Open, width: int) -> None:
    """On a phone and on a tablet every page fits, with an answer, its open receipt and the settings."""
    page = await visit(width=width)
    await answered(page, f"Pay with {CARD}. ```\n{'x' * 300}\n``` {'y' * 200}", "parrot-3")
    await page.locator(".proof summary").click()
    await page.get_by_role("button", name="Settings").click()
    await fits(page)
    for name in ("live", "keys", "usage", "limits"):
        await page.goto(page.url.split("#")[0] + f"#/{name}")
        await expect(page.get_by_role("heading", level=1)).to_have_text(name.capitalize())
        await settled(page)
        await fits(page)


async def test_conversations_are_at_hand_on_a_phone(visit: Open) -> None:
    """The list opens over the page and Esc closes it; another conversation can be chosen, and one deleted."""
    page = await visit(width=360)
    await answered(page, "the first of two", "parrot-3")
    await page.get_by_role("button", name="New chat").last.click()
    await answered(page, "the second of two", "parrot-3")
    past = page.get_by_role("complementary", name="Conversations")
    await expect(past).to_be_hidden()
    await page.get_by_role("button", name="Conversations").click()
    await page.keyboard.press("Escape")
    await expect(past).to_be_hidden()
    await page.get_by_role("button", name="Conversations").click()
    await past.get_by_role("button", name="the first of two", exact=True).click()

    await expect(page.locator(".prose")).to_have_text("the first of two")
    await expect(past).to_be_hidden()
    await page.get_by_role("button", name="Conversations").click()
    await past.get_by_role("button", name="Delete the first of two").click()
    await expect(past.locator("li")).to_have_count(1)
    await expect(past).to_be_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_axe_finds_nothing_serious(visit: Open, scheme: str) -> None:
    """The chat, empty and with an answer, its trace, an error and the settings, and every other page."""
    page = await visit(color_scheme=scheme)
    assert await violations(page) == []
    await answered(page, f"Pay with {CARD} and `this`.", "parrot-3")
    await ask(page, "hello", "broken")
    await expect(page.get_by_role("group", name="Error")).to_be_visible()
    await page.get_by_role("button", name="Settings").click()
    await page.locator(".proof summary").first.click()
    await page.locator(".fall ol li button").first.focus()
    assert await violations(page) == []
    for name in ("live", "keys", "usage", "limits"):
        await page.goto(page.url.split("#")[0] + f"#/{name}")
        await settled(page)
        assert await violations(page) == []
    await page.get_by_role("button", name="Keyboard shortcuts").click()
    assert await violations(page) == []


async def settled(page: Page) -> None:
    """Waits until a page shows figures, or why it shows none."""
    await expect(page.locator(".page .sheet, .page .notice").locator("visible=true").first).to_be_visible()
