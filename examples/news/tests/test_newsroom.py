"""The schedule, and what stays on the page when things fail."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import grpc
from conftest import TTL_S
from news.newsroom import REST_S, Newsroom
from news.sources import SourceError
from news.story import FrontPage, Story
from news.writer import Writer
from stand_in import Millrace, Refusal

AWAY = Refusal(grpc.StatusCode.UNAVAILABLE, "NO_TARGET", "Nobody writes.", 40)


class Source:
    """A front page that a test changes or takes away."""

    def __init__(self) -> None:
        self.title = "Rain"
        self.fails = False

    async def read(self) -> FrontPage:
        if self.fails:
            raise SourceError("The press has stopped.")
        return FrontPage("The Test", "https://test.example/", (Story(self.title, "https://test.example/1"),))


class Clock:
    """Stands still until a test lets a pause end; `pauses` are what was asked for, in seconds."""

    def __init__(self) -> None:
        self.pauses: list[float] = []
        self._next = asyncio.Semaphore(0)
        self._asked = asyncio.Condition()

    async def sleep(self, pause_s: float) -> None:
        async with self._asked:
            self.pauses.append(pause_s)
            self._asked.notify_all()
        await self._next.acquire()

    async def reached(self, count: int) -> None:
        """Waits until so many pauses were begun."""
        async with asyncio.timeout(10), self._asked:
            await self._asked.wait_for(lambda: len(self.pauses) >= count)

    async def skip(self, count: int = 1) -> None:
        """Ends the pause that runs, and so many after it, and waits for the next to begin."""
        for _ in range(count):
            self._next.release()
            await self.reached(len(self.pauses) + 1)


@asynccontextmanager
async def working(
    source: Source, writer: Writer, draw: Callable[[float, float], float] = min
) -> AsyncIterator[tuple[Newsroom, Clock]]:
    """A newsroom that has refreshed once, and its clock."""
    clock = Clock()
    newsroom = Newsroom(source, writer, TTL_S, sleep=clock.sleep, draw=draw)
    task = asyncio.create_task(newsroom.run())
    try:
        await clock.reached(1)
        yield newsroom, clock
    finally:
        task.cancel()
        await asyncio.wait([task])


async def test_it_refreshes_before_the_summary_runs_out(writer: Writer, millrace: Millrace) -> None:
    """Also where the draw is late and the cache has shortened the entry's life by a tenth."""
    async with working(Source(), writer, max) as (_, clock):
        await clock.skip()
        assert sum(clock.pauses) < TTL_S * 0.9
        await clock.skip()

        assert millrace.written() == 2


async def test_replicas_draw_different_moments(writer: Writer) -> None:
    """A share between the two bounds, from the source of chance."""
    async with working(Source(), writer, min) as (_, clock):
        await clock.skip()

        assert sum(clock.pauses) == TTL_S * 0.7


async def test_visitors_never_ask_a_model(writer: Writer, millrace: Millrace) -> None:
    """Thirty visits are thirty looks into the cache."""
    async with working(Source(), writer) as (newsroom, _):
        shown = [await newsroom.show(f"visit-{number}") for number in range(30)]

    assert {edition.summary.from_cache for edition in shown if edition and edition.summary} == {True}
    assert (millrace.written(), len(millrace.requests)) == (1, 31)


async def test_a_new_edition_takes_the_place_of_the_old(writer: Writer, millrace: Millrace) -> None:
    """Stories and summary change together."""
    source = Source()
    async with working(source, writer) as (newsroom, clock):
        source.title, millrace.text = "Snow", "It snows."
        await clock.skip(2)
        edition = await newsroom.show("visit-1")

    assert edition is not None
    assert edition.summary is not None
    assert (edition.page.stories[0].title, edition.summary.text) == ("Snow", "It snows.")


async def test_the_old_page_stays_when_nobody_writes(writer: Writer, millrace: Millrace) -> None:
    """It says why, tries again when Millrace has asked for, and is well again afterwards."""
    source = Source()
    async with working(source, writer) as (newsroom, clock):
        source.title, millrace.refusals = "Snow", [AWAY]
        await clock.skip(2)
        kept = await newsroom.show("visit-1")
        assert clock.pauses[-1] == 40
        await clock.skip(2)
        renewed = await newsroom.show("visit-2")

    assert kept is not None
    assert kept.summary is not None
    assert (kept.page.stories[0].title, kept.problem) == ("Rain", "Nobody writes.")
    assert renewed is not None
    assert (renewed.page.stories[0].title, renewed.problem) == ("Snow", "")


async def test_the_old_page_stays_when_the_press_stops(writer: Writer) -> None:
    """A publisher who is away empties nothing."""
    source = Source()
    async with working(source, writer) as (newsroom, clock):
        source.fails = True
        await clock.skip(2)
        edition = await newsroom.show("visit-1")

    assert edition is not None
    assert (edition.page.stories[0].title, edition.problem) == ("Rain", "The press has stopped.")


async def test_headlines_come_without_a_summary(writer: Writer, millrace: Millrace) -> None:
    """A new page that nobody can write about shows its stories, and why that is all."""
    millrace.refusals = [AWAY]
    async with working(Source(), writer) as (newsroom, _):
        edition = await newsroom.show("visit-1")

    assert edition is not None
    assert (edition.summary, edition.problem) == (None, "Nobody writes.")


async def test_headlines_are_there_while_the_model_writes(writer: Writer, millrace: Millrace) -> None:
    """The first visitor does not wait for a slow model."""
    millrace.hold = asyncio.Event()
    newsroom = Newsroom(Source(), writer, TTL_S)
    task = asyncio.create_task(newsroom.run())
    try:
        async with asyncio.timeout(10):
            edition = await newsroom.show("visit-1")
    finally:
        task.cancel()
        await asyncio.wait([task])

    assert edition is not None
    assert (edition.summary, edition.problem) == (None, "")


async def test_no_stories_at_all_is_told(writer: Writer) -> None:
    """And tried again, less often each time."""
    source = Source()
    source.fails = True
    async with working(source, writer, max) as (newsroom, clock):
        await clock.skip(6)

        assert await newsroom.show("visit-1") is None
        assert newsroom.problem == "The press has stopped."
        assert [pause for pause in clock.pauses if pause][:4] == [15.0, 30.0, 60.0, 120.0]


async def test_a_summary_that_is_gone_is_written_again(writer: Writer, millrace: Millrace) -> None:
    """The copy in memory is shown meanwhile; and however many visitors find it gone, once in five minutes at most."""
    async with working(Source(), writer) as (newsroom, clock):
        millrace.kept.clear()
        shown = [await newsroom.show(f"visit-{number}") for number in range(30)]
        assert (clock.pauses, millrace.written()) == ([REST_S], 1)
        await clock.skip()  # the rest is over, and somebody has asked meanwhile
        await clock.reached(3)

        assert millrace.written() == 2
    assert {edition.summary.text for edition in shown if edition and edition.summary} == {"All is well."}
    assert len(shown) == 30
