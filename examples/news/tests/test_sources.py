"""What is made of what publishers send."""

from __future__ import annotations

from datetime import UTC, datetime

import httpx
import pytest
from conftest import HERE, Publisher
from news.sources import BYTES_MAX, Feed, Sample, SourceError, TopStories, parse_feed
from news.story import Picture, Story


@pytest.fixture
def stories() -> dict[str, Story]:
    return {story.title: story for story in parse_feed((HERE / "feed.xml").read_bytes(), "", 30).stories}


async def test_a_feed_is_read(publisher: Publisher, client: httpx.AsyncClient) -> None:
    """Publisher and stories, in order and as many as were asked for."""
    page = await Feed(client, f"{publisher.url}/feed.xml", 2).read()

    assert (page.publisher, page.url) == ("The Daily & Test", "https://daily.example/")
    assert [story.title for story in page.stories] == ["Rain & shine", "A picture as an enclosure"]


def test_markup_becomes_text(stories: dict[str, Story]) -> None:
    """On one line, without scripts, in words; the moment in UTC."""
    story = stories["Rain & shine"]

    assert story.teaser == "It will rain . Then it stops."
    assert story.published == datetime(2026, 11, 21, 7, 0, tzinfo=UTC)


def test_the_largest_picture_is_taken(stories: dict[str, Story]) -> None:
    """With its description, and no film."""
    assert stories["Rain & shine"].picture == Picture("https://img.example/large.jpg", "Rain over a town")


def test_pictures_are_found_where_publishers_put_them(stories: dict[str, Story]) -> None:
    """In enclosures and in the text."""
    assert stories["A picture as an enclosure"].picture == Picture("https://img.example/enclosed.png")
    assert stories["A picture in the text"].picture == Picture("https://img.example/in.jpg?a=1&b=2", 'A "boat"')


def test_what_would_run_is_left_out(stories: dict[str, Story]) -> None:
    """An address that is none of the web is no link and no picture; a story without one is none."""
    assert "An address that runs" not in stories
    assert stories["A picture that runs"].picture is None


def test_a_story_is_shown_once(stories: dict[str, Story]) -> None:
    """And one without a title not at all."""
    assert len(stories) == 4
    assert "Told twice" not in stories


def test_atom_is_read_and_links_are_whole() -> None:
    """An address of an Atom feed may be relative to where the feed was found."""
    (story,) = parse_feed((HERE / "atom.xml").read_bytes(), "https://atoms.example/feed", 5).stories

    assert (story.title, story.url, story.teaser) == ("Split", "https://atoms.example/split", "Into two.")


async def test_the_sample_has_stories_and_pictures() -> None:
    """What a newcomer sees first."""
    page = await Sample(9).read()

    assert len(page.stories) == 9
    assert sum(story.picture is not None and bool(story.picture.description) for story in page.stories) == 5


async def test_top_stories_are_read(publisher: Publisher, client: httpx.AsyncClient) -> None:
    """With the picture that fits a card, not the poster."""
    publisher.answers["home.json"] = (200, (HERE / "topstories.json").read_bytes())

    first, second = (await TopStories(client, "k3y", "home", 9, publisher.url).read()).stories

    assert first.picture == Picture("https://static.example/fit.jpg", "A test")
    assert first.published is not None
    assert second.picture is None
    assert publisher.asked == ["/home.json?api-key=k3y"]


async def test_a_key_never_stands_in_an_error(publisher: Publisher, client: httpx.AsyncClient) -> None:
    """Errors are shown to visitors and written to logs."""
    publisher.answers["home.json"] = (401, b"")

    with pytest.raises(SourceError) as refused:
        await TopStories(client, "k3y", "home", 9, publisher.url).read()

    assert "401" in str(refused.value)
    assert "k3y" not in str(refused.value)


@pytest.mark.parametrize("body", [b"", b"<html>sorry</html>", b"\xff\xfe", b"<rss><channel><title>Empty</title>"])
async def test_what_has_no_stories_is_an_error(body: bytes, publisher: Publisher, client: httpx.AsyncClient) -> None:
    """Whatever came, it is told in one way."""
    publisher.answers["feed"] = (200, body)

    with pytest.raises(SourceError, match="no stories"):
        await Feed(client, f"{publisher.url}/feed", 9).read()


@pytest.mark.parametrize("body", [b"", b"[]", b'{"results": 7}', b'{"results": [7]}', b"\xff"])
async def test_what_is_no_top_story_is_an_error(body: bytes, publisher: Publisher, client: httpx.AsyncClient) -> None:
    """A page of an error, say, with status 200."""
    publisher.answers["home.json"] = (200, body)

    with pytest.raises(SourceError):
        await TopStories(client, "k3y", "home", 9, publisher.url).read()


async def test_a_flood_is_refused(publisher: Publisher, client: httpx.AsyncClient) -> None:
    """A document without end does not fill the memory."""
    publisher.answers["feed"] = (200, b"x" * (BYTES_MAX + 1))

    with pytest.raises(SourceError, match="more than 4 MiB"):
        await Feed(client, f"{publisher.url}/feed", 9).read()


async def test_nobody_there_is_an_error(client: httpx.AsyncClient) -> None:
    """By its host; what follows it may be a secret."""
    with pytest.raises(SourceError, match=r"127\.0\.0\.1:1 cannot") as refused:
        await Feed(client, "http://user:s3cret@127.0.0.1:1/feed?key=s3cret", 9).read()

    assert "s3cret" not in str(refused.value)
