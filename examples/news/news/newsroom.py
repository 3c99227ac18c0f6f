"""Keeps the page ready: one task reads the stories and has them summed up before the last summary runs out.

Visitors get what is there and cost nothing. What cannot be refreshed stays as it was, and says so.
"""

from __future__ import annotations

import asyncio
import logging
import random
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from news.settings import WRITE_TIMEOUT_S
from news.sources import Source, SourceError
from news.story import FrontPage
from news.writer import NOT_CACHED, Summary, Writer, WriterError

# Shares of the time to live after which the page is made anew. Millrace shortens a life by up to a tenth, so that
# entries do not all end at once; replicas of this service spread for the same reason.
REFRESH_AFTER = (0.7, 0.85)
# After a failure: soon at first, then ever less often.
RETRY_S, RETRY_S_MAX = 15.0, 900.0
# A visitor who finds the summary gone brings the schedule forward, but by no more than this: a model costs money.
REST_S = 300.0
# Longest that a visitor waits for Millrace before the copy that is here is shown.
RECALL_TIMEOUT_S = 2.0

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Edition:
    """A front page, and what was written about it.

    Attributes:
        summary: None until one could be written: either it is being written, or `problem` says why not.
        made: When the stories were read.
        problem: Why there is no summary, or no newer edition; empty while all is well.
    """

    page: FrontPage
    summary: Summary | None
    made: datetime
    problem: str = ""


class Newsroom:
    """Holds the edition that is shown, and renews it.

    Args:
        source: Where stories come from.
        writer: Has them summed up.
        ttl_s: How long a summary is kept.
        sleep: Waits so many seconds; tests give their own.
        draw: Draws a number between two; tests give their own.
    """

    def __init__(
        self,
        source: Source,
        writer: Writer,
        ttl_s: float,
        *,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        draw: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self._source, self._writer, self._ttl_s = source, writer, ttl_s
        self._sleep, self._draw = sleep, draw
        self._wanted = asyncio.Event()
        self._changed = asyncio.Event()
        self.edition: Edition | None = None
        self.problem = ""

    async def run(self) -> None:
        """Refreshes by schedule until it is cancelled; runs once per process."""
        failure_count = 0
        while True:
            retry_after_s = await self._refresh()
            if retry_after_s is None:
                failure_count = 0
                pause_s = self._ttl_s * self._draw(*REFRESH_AFTER)
            else:
                pause_s = max(retry_after_s, min(RETRY_S * 2**failure_count, RETRY_S_MAX) * self._draw(0.5, 1))
                failure_count += 1
            log.info("the next refresh is in %.0f s", pause_s)
            await self._pause(pause_s)

    async def show(self, request_id: str) -> Edition | None:
        """The edition for a visitor, with the summary as Millrace keeps it; waits for the first headlines.

        Returns:
            None where there is none yet and the first attempt has failed: `problem` says why.
        """
        while self.edition is None and not self.problem:
            await self._changed.wait()
        edition = self.edition
        if edition is None or edition.summary is None:
            return edition
        try:
            kept = await self._writer.recall(edition.page, request_id, RECALL_TIMEOUT_S)
        except WriterError as error:
            if error.reason == NOT_CACHED:
                self._wanted.set()  # it was let go before its time: the schedule is brought forward
            else:
                log.warning("%s: shown from memory (%s)", request_id, error)
            return edition
        return replace(edition, summary=kept)

    async def _refresh(self) -> float | None:
        """Makes a new edition; returns None, or the least number of seconds to wait after a failure."""
        request_id = f"news-{uuid.uuid4()}"
        retry_after_s: float | None = None
        try:
            page = await self._source.read()
        except SourceError as error:
            log.warning("no stories: %s", error)
            self._keep(str(error))
            return 0.0
        made, summary, problem = datetime.now(UTC), None, ""
        if self.edition is None:
            self._publish(Edition(page, None, made))  # the first visitors read headlines while the model writes
        try:
            summary = await self._writer.write(page, request_id, WRITE_TIMEOUT_S)
            log.info("%s: %s wrote %d characters", request_id, summary.model, len(summary.text))
        except WriterError as error:
            log.warning("%s: no summary: %s", request_id, error)
            problem, retry_after_s = error.message, error.retry_after_s or 0.0
        # Headlines alone are better than nothing, and an edition with a summary is better than headlines alone.
        if summary is None and self.edition is not None and self.edition.summary is not None:
            self._keep(problem)
        else:
            self._publish(Edition(page, summary, made, problem))
        return retry_after_s

    def _keep(self, problem: str) -> None:
        """Keeps what was there, and says why."""
        self.problem = problem
        if self.edition is not None:
            self.edition = replace(self.edition, problem=problem)
        self._changed.set()

    def _publish(self, edition: Edition) -> None:
        self.edition, self.problem = edition, edition.problem
        self._changed.set()

    async def _pause(self, pause_s: float) -> None:
        """Waits for the time, or for somebody who found the summary gone."""
        self._wanted.clear()
        rest_s = min(pause_s, REST_S)
        await self._sleep(rest_s)
        ends = [asyncio.ensure_future(self._sleep(pause_s - rest_s)), asyncio.ensure_future(self._wanted.wait())]
        try:
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for end in ends:
                end.cancel()
