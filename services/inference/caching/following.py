"""Following: the answer that another call makes, told while it is made.

Its news come from the cache. Whoever makes the answer may fail; then another of those who wait takes over and the news
begin anew, or this call is told to make it. Where not even a sign of life comes the cache is asked once more; if it is
gone, the answer is followed where another call of this process makes it, or this call is to make it, while the others
wait for it. It never asks a target.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable

from kit.errors import DeadlineExceeded, MillraceError
from services.inference.attempts.deadline import DeadlineBudget
from services.inference.caching import recording
from services.inference.caching.cache_port import (
    CacheFound,
    CacheMiss,
    FlightBegun,
    FlightLanded,
    FlightNews,
    FlightRestarted,
    FlightWaits,
)
from services.inference.caching.nearby import Near
from services.inference.caching.recording import Ending, Heading, KeptBatch, KeptEvent
from services.inference.caching.resuming import Seen
from services.inference.generation import ChoiceFinished, Delta

# The cache gives two signs of life a second of an answer that has begun; on a busy machine one may be late.
SILENCE_S = 1.25
# Before it begins there are none: a maker who has died is replaced when its lease runs out, 3 s after its last sign, or
# half a second later where it was told through another replica of the cache, and on a busy machine all takes longer.
SILENCE_BEFORE_S = 5.0
# A cache that is asked once more has the beginning at hand.
SILENCE_AGAIN_S = 0.75
RESTARTS_MAX = 3  # a maker that fails has good reasons as a rule: who has seen so many fail makes the answer itself

SILENT = CacheMiss("the cache fell silent while another call made the answer")
UNREADABLE = CacheMiss("the answer that another call makes is in another form")
OTHER_POLICY = CacheMiss("the answer that another call makes is judged by another safety policy")
RESTARTED = CacheMiss("too many calls have failed to make the answer")


class _ToldAgain:
    """What comes from now on is told from the beginning, for it is heard elsewhere."""


class Following:
    """One answer that is followed.

    Attributes:
        outcome: What came of it once it is over: the answer was complete, or this call must make it.
        seen: What the caller has seen of it.
    """

    def __init__(
        self,
        news: AsyncGenerator[FlightNews, None],
        deadlines: DeadlineBudget,
        is_streamed: bool,
        clock: Callable[[], float] = time.monotonic,
        near: Near | None = None,
    ) -> None:
        self._news, self._deadlines, self._is_streamed, self._clock = news, deadlines, is_streamed, clock
        self._near = near
        self._until = deadlines.first_token_at
        # Half of the time to the first token is left to make the answer after all.
        self._silence_s_max = (self._until - clock()) / 2
        self._silence_s = SILENCE_BEFORE_S
        self._is_asked_again = False
        self._has_begun = False
        self._restart_count = 0
        self.outcome: CacheFound | CacheMiss | FlightLanded | None = None
        self.seen = Seen()

    @property
    def left_to_first_token_s(self) -> float | None:
        """What is left of the time to the first token; None where that is there."""
        return None if self._has_begun else max(0.001, self._until - self._clock())

    async def begin(self) -> CacheFound | CacheMiss | FlightBegun:
        """Waits for the first news: an answer, nothing, or one that is being made, which `batches` then tells.

        Raises:
            DeadlineExceeded: The time to the first token is over.
        """
        first = await self._next()
        while isinstance(first, FlightWaits | _ToldAgain):
            first = await self._next()
        if isinstance(first, FlightBegun):
            return first
        await self.close()
        return first if isinstance(first, CacheFound | CacheMiss) else UNREADABLE

    async def batches(self, policy_version: str) -> AsyncGenerator[list[KeptEvent], None]:
        """Tells the answer as it is made, or all at once to a caller who does not read along; `outcome` says the rest.

        Args:
            policy_version: Of the policy that judged this call's prompt: no answer is taken from under another one.
        Raises:
            DeadlineExceeded: The answer did not begin, or go on, in time.
            Unavailable: The one who made it has failed, and the next one makes another (ANSWER_CHANGED).
        """
        whole: list[KeptEvent] = []
        while self.outcome is None:
            news = await self._next()
            if isinstance(news, FlightRestarted):
                whole.clear()
                self._restarted()
            if isinstance(news, _ToldAgain):
                whole.clear()
                self.seen.restart()
            for batch in self._read(news, policy_version):
                if not self._is_streamed:
                    whole += batch
                elif fresh := self.seen.take(batch):
                    yield fresh
        await self.close()
        if isinstance(self.outcome, CacheMiss):
            self.seen.restart()  # what comes from now on is another answer, whoever makes it
        elif whole:
            yield whole

    async def close(self) -> None:
        """Stops listening."""
        await self._news.aclose()

    async def _next(self) -> FlightNews | _ToldAgain:
        """The next news; where the cache tells none any more, what `_elsewhere` says."""
        silent_at = self._clock() + min(self._silence_s, self._silence_s_max)
        try:
            async with asyncio.timeout(min(silent_at, self._until) - self._clock()):
                news = await anext(self._news)
        except TimeoutError:
            if self._until <= silent_at:
                raise _timed_out(self._has_begun) from None
            return await self._elsewhere(SILENT, is_gone=self._is_asked_again)
        except StopAsyncIteration:
            return await self._elsewhere(SILENT, is_gone=self._is_asked_again)
        except MillraceError as error:
            return await self._elsewhere(CacheMiss(error.reason), is_gone=True)
        self._is_asked_again = False
        if isinstance(news, FlightBegun | FlightRestarted):
            self._silence_s = SILENCE_S if isinstance(news, FlightBegun) else SILENCE_BEFORE_S
        return news

    async def _elsewhere(self, miss: CacheMiss, *, is_gone: bool) -> CacheMiss | _ToldAgain:
        """Asks the cache once more; where it is gone, turns to this process; the miss where this call is to go on."""
        if self._near is None:
            return miss
        await self._news.aclose()
        if is_gone:
            news = await self._found_near()
            if news is None:
                return miss
            self._news, self._silence_s = news, SILENCE_S
        else:
            self._news, self._silence_s = self._near.ask(), SILENCE_AGAIN_S
        self._is_asked_again = not is_gone
        return _ToldAgain()

    async def _found_near(self) -> AsyncGenerator[FlightNews, None] | None:
        assert self._near
        try:
            async with asyncio.timeout(self._until - self._clock()):
                return await self._near.find()
        except TimeoutError:
            raise _timed_out(self._has_begun) from None

    def _read(self, news: FlightNews | _ToldAgain, policy_version: str) -> list[KeptBatch]:
        """What is new of the answer in a piece of news."""
        if isinstance(news, CacheMiss):
            self.outcome = news
        if isinstance(news, FlightLanded):  # an answer that was complete would have had its ending before
            self.outcome = UNREADABLE
        if not isinstance(news, CacheFound | bytes):
            return []
        found = [recording.read_chunk(chunk) for chunk in (news.chunks if isinstance(news, CacheFound) else [news])]
        told: list[KeptBatch] = []
        for batches in found:
            for batch in batches or ():
                told.append([event for event in batch if self._notice(event, policy_version)])
        if None in found or (isinstance(news, CacheFound) and self.outcome is None):
            self.outcome = UNREADABLE
        elif isinstance(news, CacheFound) and isinstance(self.outcome, FlightLanded):
            self.outcome = news
        return [] if isinstance(self.outcome, CacheMiss) else told

    def _notice(self, event: KeptEvent, policy_version: str) -> bool:
        """Draws from an event what it means for this call; false where it is nothing to tell."""
        if isinstance(event, Heading):
            if event.policy_version != policy_version:
                self.outcome = OTHER_POLICY
            return False
        if isinstance(event, Delta | ChoiceFinished):
            self._has_begun, self._until = True, self._deadlines.next_token_until()
        elif isinstance(event, Ending) and self.outcome is None:
            self.outcome = FlightLanded("")  # it is complete, whether or not it will be kept
        return True

    def _restarted(self) -> None:
        self._restart_count += 1
        self.seen.restart()
        if self._restart_count > RESTARTS_MAX:
            self.outcome = RESTARTED
        elif not self._is_streamed and self._has_begun:  # nothing has left: the next one gets the whole time again
            self._deadlines.restart()
            self._has_begun, self._until = False, self._deadlines.first_token_at


def _timed_out(has_begun: bool) -> DeadlineExceeded:
    reason, what = ("INTER_TOKEN_TIMEOUT", "go on") if has_begun else ("TTFT_TIMEOUT", "begin")
    return DeadlineExceeded(reason, f"the answer, which another call makes, did not {what} in time; retry")
