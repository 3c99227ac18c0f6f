"""What programs and people get over HTTP, from a real server."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest
import pytest_asyncio
import uvicorn
from conftest import Publisher
from news.app import wired
from news.settings import Settings
from stand_in import Millrace, serving


@asynccontextmanager
async def served(settings: Settings) -> AsyncIterator[httpx.AsyncClient]:
    """The service on a free port, and a client of it."""
    listener = socket.create_server(("127.0.0.1", 0))
    async with wired(settings) as app:
        server = uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False))
        task = asyncio.create_task(server.serve(sockets=[listener]))
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        try:
            async with httpx.AsyncClient(base_url=url, timeout=10, trust_env=False) as client:
                yield client
        finally:
            server.should_exit = True
            await task


@pytest_asyncio.fixture
async def site(publisher: Publisher, millrace: Millrace) -> AsyncIterator[httpx.AsyncClient]:
    async with serving(millrace) as target:
        settings = Settings(millrace=target, feed=f"{publisher.url}/feed.xml", cors_origins=("https://friend.example",))
        async with served(settings) as client:
            yield client


async def written(site: httpx.AsyncClient) -> httpx.Response:
    """The news once they have a summary."""
    async with asyncio.timeout(10):
        while True:
            response = await site.get("/news")
            if response.json().get("summary"):
                return response


async def test_news_are_stories_and_a_summary(site: httpx.AsyncClient) -> None:
    """From the recorded feed, with pictures, and with who wrote what."""
    news = (await written(site)).json()

    assert news["publisher"] == {"name": "The Daily & Test", "url": "https://daily.example/"}
    assert news["stories"][0] == {
        "title": "Rain & shine",
        "url": "https://daily.example/rain",
        "teaser": "It will rain . Then it stops.",
        "picture": {"url": "https://img.example/large.jpg", "description": "Rain over a town"},
        "published": "2026-11-21T07:00:00+00:00",
    }
    assert (news["summary"]["text"], news["summary"]["model"], news["problem"]) == ("All is well.", "pen", None)


async def test_an_id_goes_all_the_way(site: httpx.AsyncClient, millrace: Millrace) -> None:
    """The visitor's id is Millrace's, too; one that is none is replaced."""
    await written(site)
    named = await site.get("/news", headers={"x-request-id": "mine-1"})
    nameless = await site.get("/news", headers={"x-request-id": "no id"})

    assert named.headers["x-request-id"] == named.json()["summary"]["request_id"] == "mine-1"
    assert nameless.headers["x-request-id"].startswith("visit-")
    assert "mine-1" in [request.request_id for request in millrace.requests]


async def test_only_listed_origins_may_read(site: httpx.AsyncClient) -> None:
    """A page of somebody else's gets no permission."""
    friend = await site.get("/news", headers={"origin": "https://friend.example"})
    stranger = await site.get("/news", headers={"origin": "https://stranger.example"})

    assert friend.headers["access-control-allow-origin"] == "https://friend.example"
    assert "access-control-allow-origin" not in stranger.headers


async def test_no_stories_are_a_503(publisher: Publisher, millrace: Millrace) -> None:
    """That says why, and when to come again; alive is not ready."""
    publisher.answers["feed.xml"] = (500, b"")
    async with serving(millrace) as target, served(Settings(millrace=target, feed=f"{publisher.url}/feed.xml")) as site:
        news, alive, ready = [await site.get(path) for path in ("/news", "/livez", "/readyz")]

    assert (news.status_code, alive.status_code, ready.status_code) == (503, 200, 503)
    assert news.headers["retry-after"] == "15"
    assert "500" in news.json()["error"]["message"]


async def test_the_embedded_model_is_not_trusted(publisher: Publisher) -> None:
    """The page must not pass its apology for a summary; with it comes the sample, pictures included."""
    millrace = Millrace(model="millrace-embedded")
    async with serving(millrace) as target, served(Settings(millrace=target)) as site:
        news = (await written(site)).json()
        picture = await site.get(news["stories"][0]["picture"]["url"])

    assert news["summary"]["is_trustworthy"] is False
    assert picture.headers["content-type"] == "image/svg+xml"


async def test_a_visitor_who_leaves_ends_the_call(site: httpx.AsyncClient, millrace: Millrace) -> None:
    """The call to Millrace is cancelled with the connection."""
    await written(site)
    millrace.hold = asyncio.Event()
    millrace.asked.clear()
    visit = asyncio.create_task(site.get("/news"))
    async with asyncio.timeout(10):
        await millrace.asked.wait()
    visit.cancel()

    # Sooner than the service's own deadline for such a call, two seconds, would have ended it.
    async with asyncio.timeout(1.5):
        await millrace.cancelled.wait()


@pytest.mark.parametrize(("path", "kind"), [("/", "text/html"), ("/page.css", "text/css"), ("/page.js", "javascript")])
async def test_the_page_is_served(path: str, kind: str, site: httpx.AsyncClient) -> None:
    """With rules for the browser that let nothing run but its own script."""
    response = await site.get(path)

    assert kind in response.headers["content-type"]
    assert "default-src 'self'" in response.headers["content-security-policy"]
