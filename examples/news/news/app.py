"""The HTTP side: `GET /news` for programs, `/` for people, `/livez` and `/readyz` for whoever runs it."""

from __future__ import annotations

import asyncio
import logging
import re
import uuid
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from importlib.resources import files
from pathlib import Path
from typing import Any, TypeVar

import httpx
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from news.newsroom import Edition, Newsroom
from news.settings import Settings
from news.sources import Feed, Sample, Source, TopStories
from news.story import Story
from news.writer import Summary, Writer, open_channel

HERE = Path(str(files("news")))
EMBEDDED_MODEL = "millrace-embedded"
# Pictures stay at their publishers'; nothing else comes from outside, and nothing inline runs.
SECURITY = {
    "content-security-policy": "default-src 'self'; img-src 'self' http: https:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}
BROWSER_TTL_S = 60
RETRY_AFTER_S = 15

T = TypeVar("T")
log = logging.getLogger(__name__)


def make_app(newsroom: Newsroom, cors_origins: tuple[str, ...] = ()) -> Starlette:
    """Puts the routes together; the newsroom works while the app is up."""

    async def news(request: Request) -> Response:
        asked = request.headers.get("x-request-id", "")
        request_id = asked if re.fullmatch(r"[\w.:-]{1,128}", asked, re.ASCII) else f"visit-{uuid.uuid4()}"
        try:
            edition = await _while_connected(request, newsroom.show(request_id))
        except ClientDisconnect:
            return Response(status_code=499)  # read by nobody
        headers = {"x-request-id": request_id}
        if edition is None:
            headers |= {"retry-after": str(RETRY_AFTER_S), "cache-control": "no-store"}
            body = {"error": {"reason": "NO_STORIES", "message": newsroom.problem}}
            return JSONResponse(body, status_code=503, headers=headers)
        fresh = f"public, max-age={BROWSER_TTL_S}" if edition.summary else "no-store"
        return JSONResponse(_edition(edition, request_id), headers={**headers, "cache-control": fresh})

    async def page(_: Request) -> Response:
        return FileResponse(HERE / "page.html", headers=SECURITY)

    async def alive(_: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def ready(_: Request) -> Response:
        is_ready = newsroom.edition is not None
        told = {"status": "ok" if is_ready else "unavailable", "problem": newsroom.problem}
        return JSONResponse(told, status_code=200 if is_ready else 503)

    @asynccontextmanager
    async def working(_: Starlette) -> AsyncIterator[None]:
        work = asyncio.create_task(newsroom.run(), name="newsroom")
        work.add_done_callback(_report)
        try:
            yield
        finally:
            work.cancel()
            await asyncio.wait([work])

    routes = [
        Route("/", page),
        Route("/news", news),
        Route("/livez", alive),
        Route("/readyz", ready),
        *(Route(f"/{name}", _static(name)) for name in ("page.css", "page.js", "icon.svg")),
        Mount("/sample", StaticFiles(directory=HERE / "sample")),
    ]
    cors = Middleware(
        CORSMiddleware, allow_origins=cors_origins, allow_methods=["GET"], expose_headers=["x-request-id"]
    )
    return Starlette(routes=routes, lifespan=working, middleware=[cors] if cors_origins else [])


@asynccontextmanager
async def wired(settings: Settings) -> AsyncIterator[Starlette]:
    """The app with a channel to Millrace and a client for the feed, both closed at the end."""
    channel = open_channel(settings.millrace, settings.millrace_ca_file)
    async with channel, httpx.AsyncClient(timeout=15.0, follow_redirects=True, max_redirects=3) as client:
        writer = Writer(channel, settings.model, settings.ttl_s, settings.api_key)
        yield make_app(Newsroom(_source(settings, client), writer, settings.ttl_s), settings.cors_origins)


def _source(settings: Settings, client: httpx.AsyncClient) -> Source:
    if settings.nyt_api_key:
        return TopStories(client, settings.nyt_api_key, settings.nyt_section, settings.story_count)
    if settings.feed:
        return Feed(client, settings.feed, settings.story_count)
    return Sample(settings.story_count)


async def _while_connected(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """Awaits some work for as long as its visitor does; one who leaves ends it, and with it the call to Millrace."""
    task = asyncio.ensure_future(work)
    watch = asyncio.ensure_future(_disconnected(request))
    try:
        await asyncio.wait([task, watch], return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientDisconnect
        return task.result()
    finally:
        task.cancel()
        watch.cancel()


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _edition(edition: Edition, request_id: str) -> dict[str, Any]:
    return {
        "request_id": request_id,
        "publisher": {"name": edition.page.publisher, "url": edition.page.url},
        "made": edition.made.isoformat(timespec="seconds"),
        "summary": _summary(edition.summary) if edition.summary else None,
        "problem": edition.problem or None,
        "stories": [_story(one) for one in edition.page.stories],
    }


def _summary(summary: Summary) -> dict[str, Any]:
    return {
        "text": summary.text,
        "model": summary.model,
        # It was taught about Millrace and nothing else: what it says here is an apology, not a summary.
        "is_trustworthy": summary.model != EMBEDDED_MODEL,
        "is_cut": summary.is_cut,
        "from_cache": summary.from_cache,
        "age_s": round(summary.age_s, 1),
        "request_id": summary.request_id,
    }


def _story(story: Story) -> dict[str, Any]:
    return {
        "title": story.title,
        "url": story.url,
        "teaser": story.teaser,
        "picture": {"url": story.picture.url, "description": story.picture.description} if story.picture else None,
        "published": story.published.isoformat() if story.published else None,
    }


def _static(name: str) -> Any:
    async def serve(_: Request) -> Response:
        return FileResponse(HERE / name, headers=SECURITY)

    return serve


def _report(work: asyncio.Task[None]) -> None:
    """A newsroom that ends by itself is a bug: the page would never change again."""
    if not work.cancelled() and (error := work.exception()):
        log.critical("the newsroom has stopped", exc_info=error)
