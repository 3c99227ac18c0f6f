"""Where stories come from: an RSS or Atom feed, the New York Times' Top Stories, or the sample that comes along.

Whatever a publisher sends is text to show, never markup and never an address that a browser would run. Answers are
bounded in time and size. A key never stands in a log or an error.
"""

from __future__ import annotations

import html
import json
import re
from calendar import timegm
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from importlib.resources import files
from typing import Any, Protocol

import feedparser  # type: ignore[import-untyped]
import httpx

from news.story import FrontPage, Picture, Story

NYT_URL = "https://api.nytimes.com/svc/topstories/v2"
BYTES_MAX = 4 * 1024 * 1024
TITLE_CHARS_MAX = 300
TEASER_CHARS_MAX = 600


class SourceError(Exception):
    """There are no stories; the message says why, for people, and holds no key."""


class Source(Protocol):
    """Gives the front page as it is now."""

    async def read(self) -> FrontPage:
        """Reads it.

        Raises:
            SourceError: It cannot be had, or has no stories.
        """
        ...


class Feed:
    """An RSS or Atom feed.

    Args:
        client: Makes the request; its timeouts hold.
        url: Where the feed is.
        story_count: Stories to take.
    """

    def __init__(self, client: httpx.AsyncClient, url: str, story_count: int) -> None:
        self._client, self._url, self._story_count = client, url, story_count

    async def read(self) -> FrontPage:
        """Reads the feed."""
        return parse_feed(await _fetch(self._client, self._url), self._url, self._story_count)


class Sample:
    """A feed that comes along, so that the page can be looked at without a network."""

    def __init__(self, story_count: int) -> None:
        self._story_count = story_count

    async def read(self) -> FrontPage:
        """Reads the sample."""
        data = files("news").joinpath("sample/feed.xml").read_bytes()
        return parse_feed(data, "", self._story_count)


class TopStories:
    """The Top Stories of the New York Times.

    Args:
        client: Makes the request; its timeouts hold.
        api_key: A key of its developers' site.
        section: `home`, `world`, `science`, ...
        story_count: Stories to take.
        url: Where the API is.
    """

    def __init__(
        self, client: httpx.AsyncClient, api_key: str, section: str, story_count: int, url: str = NYT_URL
    ) -> None:
        self._client, self._api_key, self._section = client, api_key, section
        self._story_count, self._url = story_count, url

    async def read(self) -> FrontPage:
        """Asks the API."""
        data = await _fetch(self._client, f"{self._url}/{self._section}.json", {"api-key": self._api_key})
        try:
            found = json.loads(data)["results"]
            stories = [_top_story(one) for one in found]
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise SourceError("The New York Times answered something else than stories.") from error
        return _front_page("The New York Times", "https://www.nytimes.com/", stories, self._story_count)


def parse_feed(data: bytes, url: str, story_count: int) -> FrontPage:
    """Reads a feed of whatever kind.

    Args:
        data: The document.
        url: Where it was found; addresses in it may be relative to that.
        story_count: Stories to take.
    Raises:
        SourceError: It has none.
    """
    found = feedparser.parse(data, response_headers={"content-location": url} if url else None)
    publisher = _text(found.feed.get("title", ""), TITLE_CHARS_MAX) or "A feed without a name"
    return _front_page(publisher, _link(found.feed.get("link", "")), map(_entry, found.entries), story_count)


async def _fetch(client: httpx.AsyncClient, url: str, params: Mapping[str, str] | None = None) -> bytes:
    """Gets a document, as far as it is small. Errors name its host alone: visitors read them, and a key may follow."""
    host = httpx.URL(url).netloc.decode()
    try:
        async with client.stream("GET", url, params=params) as response:
            if response.status_code != httpx.codes.OK:
                raise SourceError(f"{host} answered {response.status_code}.")
            data = bytearray()
            async for piece in response.aiter_bytes():
                data += piece
                if len(data) > BYTES_MAX:
                    raise SourceError(f"{host} has more than {BYTES_MAX >> 20} MiB to say.")
            return bytes(data)
    except httpx.HTTPError as error:
        raise SourceError(f"{host} cannot be read ({type(error).__name__}).") from None


def _front_page(publisher: str, url: str, stories: Iterable[Story], story_count: int) -> FrontPage:
    """Takes the first stories that can be shown, each once."""
    taken: dict[str, Story] = {}
    for story in stories:
        if story.title and story.url and len(taken) < story_count:
            taken.setdefault(story.url, story)
    if not taken:
        raise SourceError(f"{publisher} has no stories now.")
    return FrontPage(publisher, url, tuple(taken.values()))


def _entry(entry: Any) -> Story:
    """A story of a feed's entry."""
    moment = entry.get("published_parsed") or entry.get("updated_parsed")
    return Story(
        title=_text(entry.get("title", ""), TITLE_CHARS_MAX),
        url=_link(entry.get("link", "")),
        teaser=_text(entry.get("summary", ""), TEASER_CHARS_MAX),
        picture=_entry_picture(entry),
        published=datetime.fromtimestamp(timegm(moment), UTC) if moment else None,
    )


def _entry_picture(entry: Any) -> Picture | None:
    """The largest picture that an entry names: as media, as an enclosure, or within its text."""
    # feedparser keeps `media:description` among the contents, told from an article's text by its type.
    told = (one.value for one in entry.get("content", ()) if one.get("type") == "text/plain")
    described = _text(next(told, ""), TITLE_CHARS_MAX)
    candidates = [
        (int(_digits(one.get("width"))), one.get("url", ""))
        for one in (*entry.get("media_content", ()), *entry.get("media_thumbnail", ()))
        if one.get("medium", "image") == "image" and str(one.get("type", "image/")).startswith("image/")
    ]
    candidates += [(0, one.get("href", "")) for one in entry.get("enclosures", ()) if _is_image(one)]
    for _, url in sorted(candidates, key=lambda one: -one[0]):
        if link := _link(url):
            return Picture(link, described)
    within = re.search(r"<img\b[^>]*>", str(entry.get("summary", "")))
    link = _link(_attribute(within[0], "src")) if within else ""
    return Picture(link, _text(_attribute(within[0], "alt"), TITLE_CHARS_MAX)) if within and link else None


def _top_story(result: Mapping[str, Any]) -> Story:
    """A story of the New York Times' results."""
    pictures = [one for one in result.get("multimedia") or () if one.get("type", "image") == "image"]
    # Wide enough for a card on a sharp screen; the largest are posters of several megabytes.
    pictures.sort(key=lambda one: abs(int(one.get("width") or 0) - 1200))
    link = _link(pictures[0].get("url", "")) if pictures else ""
    moment = result.get("published_date")
    return Story(
        title=_text(result.get("title", ""), TITLE_CHARS_MAX),
        url=_link(result.get("url", "")),
        teaser=_text(result.get("abstract", ""), TEASER_CHARS_MAX),
        picture=Picture(link, _text(pictures[0].get("caption") or "", TITLE_CHARS_MAX)) if link else None,
        published=datetime.fromisoformat(moment) if moment else None,
    )


def _is_image(enclosure: Mapping[str, Any]) -> bool:
    return str(enclosure.get("type", "")).startswith("image/")


def _digits(value: object) -> str:
    text = str(value or "")
    return text if text.isascii() and text.isdigit() else "0"


def _attribute(tag: str, name: str) -> str:
    found = re.search(rf"""\b{name}\s*=\s*(?:"([^"]*)"|'([^']*)')""", tag)
    return html.unescape(found[1] or found[2] or "") if found else ""


def _link(url: str) -> str:
    """An address that is safe to follow; empty where this one is not. The sample's own begin with `/sample/`."""
    return url if re.match(r"https?://[^\s/]+|/sample/[\w.-]+$", url) else ""


def _text(value: str, chars_max: int) -> str:
    """Text without markup, on one line, cut at a word."""
    plain = " ".join(html.unescape(re.sub(r"<[^>]*>", " ", value)).split())
    return plain if len(plain) <= chars_max else f"{plain[:chars_max].rsplit(' ', 1)[0]}…"
