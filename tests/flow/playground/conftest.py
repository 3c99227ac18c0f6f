"""Real Chromium in front of the whole suite; whatever page a test opens must load from its origin alone."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any
from urllib.parse import urlsplit

import pytest
import pytest_asyncio
from axe_playwright_python.async_playwright import Axe
from playwright.async_api import Browser, ConsoleMessage, Page, Request, async_playwright, expect

from bench.ports import free_port
from tests.flow.conftest import Suite
from tests.flow.parrot import Parrot

SERIOUS = ("serious", "critical")
DEADLINE_MS = 15_000
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
MODELS = """
version: 1
upstreams:
  fake: {{base_url: "{url}"}}
  dead: {{base_url: "http://127.0.0.1:9/v1"}}
models:
  - name: millrace-embedded
    targets: [{{engine: local, model: embedded}}]
  - name: parrot-3
    targets: [{{engine: openai, upstream: fake, model: "*", price: {{prompt: 1, completion: 2}}}}]
  - name: parrot-patient-6
    targets: [{{engine: openai, upstream: fake, model: "*"}}]
    cache: {{enabled: false}}
  - name: broken
    targets: [{{engine: openai, upstream: dead, model: "*"}}]
    retries: {{retries_max: 0}}
auto: {{simple: millrace-embedded, complex: parrot-3}}
"""

expect.set_options(timeout=DEADLINE_MS)


@pytest.fixture(scope="module")
def models() -> str:
    return MODELS


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def upstream() -> AsyncIterator[Parrot]:
    """Repeats what it hears, at the pace of the test where that matters."""
    parrot = Parrot()
    await parrot.start()
    yield parrot
    await parrot.stop()


@pytest.fixture(scope="module")
def span_store() -> dict[str, str]:
    """Settings by which the edge keeps every service's spans, as `millrace up` makes them."""
    port = free_port()
    to = {f"MILLRACE_{name}_SPAN_STORE": f"127.0.0.1:{port}" for name in ("EDGE", "INFERENCE", "CACHE", "SAFETY")}
    return {**to, "MILLRACE_EDGE_SPAN_STORE_PORT": str(port)}


@pytest.fixture(scope="module")
def variables(span_store: dict[str, str]) -> dict[str, str]:
    return span_store


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    """Debian's Chromium."""
    if CHROMIUM is None:
        pytest.skip("chromium is not installed: apt-get install chromium")
    async with async_playwright() as playwright:
        # No sandbox: in a container the tests are root, and the only page is our own.
        running = await playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield running
        await running.close()


class Seen:
    """What a page did that it must not do."""

    def __init__(self, origin: str) -> None:
        self.faults: list[str] = []
        self._origin = origin

    def watch(self, page: Page) -> None:
        """Looks at a page from now on."""
        page.on("console", self._console)
        page.on("pageerror", lambda error: self.faults.append(f"raised {error}"))
        page.on("request", self._request)

    def _console(self, message: ConsoleMessage) -> None:
        # The browser itself logs each answer that is no success, which some tests are about.
        if message.type in ("error", "warning") and not message.text.startswith("Failed to load resource"):
            self.faults.append(f"said {message.text}")

    def _request(self, request: Request) -> None:
        if request.url.startswith(("blob:", "data:")):
            return
        if f"{urlsplit(request.url).scheme}://{urlsplit(request.url).netloc}" != self._origin:
            self.faults.append(f"asked {request.url}")


Open = Callable[..., Awaitable[Page]]


@pytest_asyncio.fixture(loop_scope="module")
async def visit(browser: Browser, suite: Suite) -> AsyncIterator[Open]:
    """Opens a page of the suite in a browser of its own; at the end no page has said or asked anything it must not."""
    seen, contexts = Seen(suite.url), []

    async def open_page(path: str = "/", width: int = 1280, key: str = "", **options: Any) -> Page:
        context = await browser.new_context(viewport={"width": width, "height": 800}, **options)
        contexts.append(context)
        if key:
            await context.add_init_script(f"sessionStorage.setItem('millrace.key', JSON.stringify('{key}'))")
        page = await context.new_page()
        seen.watch(page)
        await page.goto(suite.url + path)
        return page

    yield open_page
    for context in contexts:
        await context.close()
    assert seen.faults == []


async def ask(page: Page, text: str, model: str = "auto") -> None:
    """Sends a message by the keyboard."""
    await page.get_by_label("Model", exact=True).select_option(model)
    box = page.get_by_label("Message")
    await box.fill(text)
    await box.press("Enter")


async def answered(page: Page, text: str, model: str = "auto") -> None:
    """Sends a message and waits for the receipt of its answer."""
    count = await page.locator(".turn").count()
    await ask(page, text, model)
    await expect(page.locator(".turn").nth(count).locator(".facts")).to_be_attached()


async def violations(page: Page) -> list[str]:
    """What axe finds that is serious or critical."""
    # What is still fading in has not got its colours yet.
    await page.evaluate("Promise.all(document.getAnimations().map((one) => one.finished.catch(() => null)))")
    found = await Axe().run(page, options={"resultTypes": ["violations"]})
    return [
        f"{one['id']} at {node['target']}: {node['failureSummary']}"
        for one in found.response["violations"]
        if one["impact"] in SERIOUS
        for node in one["nodes"]
    ]


async def fits(page: Page) -> None:
    """Waits until nothing of a page lies beyond its right edge."""
    await page.wait_for_function("document.documentElement.scrollWidth <= innerWidth", timeout=DEADLINE_MS)
