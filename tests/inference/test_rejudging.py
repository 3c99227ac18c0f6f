"""An answer goes on being judged where a replica of safety is lost, and nothing is told twice."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Sequence

import pytest

from kit.dial import REPLICA_WAITS_S
from kit.errors import Aborted, Unavailable
from services.inference.events import Finding, Verdict
from services.inference.screening import rejudging
from services.inference.screening.rejudging import Decision, Rejudged
from services.inference.screening.safety_port import Assessment, ChoiceJudged, Judged, OutputPiece, Released

LIMIT_S = 5.0
TRIES = 1 + len(REPLICA_WAITS_S)
SECRET, REPLACEMENT = "4111", "<CARD>"
ANSWER = "one two three four five six seven eight nine ten"


class Replica:
    """Judges as safety does: releases what it read, SECRET replaced, and breaks once it has read so many pieces.

    Args:
        breaks_at: The piece that it does not live to judge; None: it lives.
        hold: It releases after every so many pieces, and at the end.
        is_blind: It does not see SECRET.
    """

    def __init__(self, breaks_at: int | None = None, hold: int = 1, is_blind: bool = False) -> None:
        self._breaks_at, self._hold, self._is_blind = breaks_at, hold, is_blind
        self._queue: asyncio.Queue[OutputPiece | None] = asyncio.Queue()
        self.pieces: list[OutputPiece] = []
        self.is_broken = self.is_cancelled = False

    async def send(self, pieces: Sequence[OutputPiece]) -> None:
        if self.is_broken:
            raise Unavailable("GONE", "the replica is gone")
        for one in pieces:
            self._queue.put_nowait(one)

    async def done(self) -> None:
        if self.is_broken:
            raise Unavailable("GONE", "the replica is gone")
        self._queue.put_nowait(None)

    def cancel(self) -> None:
        self.is_cancelled = True

    async def __aiter__(self) -> AsyncIterator[Sequence[Decision]]:
        held, through = "", 0
        while (piece := await self._queue.get()) is not None:
            self.pieces.append(piece)
            if len(self.pieces) - 1 == self._breaks_at:
                self.is_broken = True
                raise Unavailable("GONE", "the replica is gone")
            held += piece.text
            if piece.end_of_choice or len(self.pieces) % self._hold == 0:
                decisions: list[Decision] = []
                text = held
                if not self._is_blind and (at := held.find(SECRET)) >= 0:
                    finding = Finding("CREDIT_CARD", 1.0, "pii", through + at, through + at + len(SECRET))
                    decisions.append(Judged(0, "text", Verdict.REDACT, finding))
                    text = held.replace(SECRET, REPLACEMENT)
                through += len(held)
                if text:
                    decisions.append(Released(0, "text", 0, text, through))
                if piece.end_of_choice:
                    decisions.append(ChoiceJudged(0, Verdict.ALLOW))
                held = ""
                yield decisions
        yield [Assessment(Verdict.ALLOW)]


class Scripted:
    """Decides what it was told to, whatever it is sent, and then breaks or ends."""

    def __init__(self, decisions: Sequence[Decision], breaks: bool = False) -> None:
        self._decisions, self._breaks = decisions, breaks

    async def send(self, pieces: Sequence[OutputPiece]) -> None:
        """It has made up its mind."""

    async def done(self) -> None:
        """Likewise."""

    def cancel(self) -> None:
        """Nothing is under way."""

    async def __aiter__(self) -> AsyncIterator[Sequence[Decision]]:
        yield self._decisions
        if self._breaks:
            raise Unavailable("GONE", "the replica is gone")


class SlowReplica(Replica):
    """It breaks while it is written to, and what is written gets through when somebody else is asked."""

    def __init__(self) -> None:
        super().__init__(breaks_at=0)
        self._left = asyncio.Event()

    async def send(self, pieces: Sequence[OutputPiece]) -> None:
        await super().send(pieces)
        await self._left.wait()

    def cancel(self) -> None:
        super().cancel()
        self._left.set()


def pieces_of(text: str) -> list[OutputPiece]:
    words = [OutputPiece(0, "text", word + " ") for word in text.split()]
    return [*words, OutputPiece(0, "text", end_of_choice=True)]


async def judged(replicas: Sequence[Replica | Scripted], text: str = ANSWER) -> list[Decision]:
    """Sends an answer word by word while what was decided is read."""
    calls = iter(replicas)
    stream = Rejudged(lambda: next(calls))

    async def send() -> None:
        for piece in pieces_of(text):
            await stream.send([piece])
            await asyncio.sleep(0)
        await stream.done()

    async with asyncio.timeout(LIMIT_S):
        sending = asyncio.create_task(send())
        try:
            return [one async for decisions in stream for one in decisions]
        finally:
            stream.cancel()
            await asyncio.gather(sending, return_exceptions=True)


def text_of(decisions: Sequence[Decision]) -> str:
    return "".join(one.text for one in decisions if isinstance(one, Released))


def through_of(decisions: Sequence[Decision]) -> list[int]:
    return [one.released_through for one in decisions if isinstance(one, Released)]


@pytest.mark.parametrize("breaks_at", range(11))
async def test_an_answer_survives_its_replica(breaks_at: int) -> None:
    """Wherever it breaks, the caller hears every word once, one end and one assessment."""
    first, second = Replica(breaks_at), Replica()
    decisions = await judged([first, second])

    assert text_of(decisions) == ANSWER + " "
    assert through_of(decisions) == sorted(set(through_of(decisions)))
    assert [type(one) for one in decisions if not isinstance(one, Released)] == [ChoiceJudged, Assessment]
    assert second.pieces == pieces_of(ANSWER)
    assert first.is_cancelled


@pytest.mark.parametrize("seed", range(50))
async def test_replicas_may_release_otherwise(seed: int) -> None:
    """How much is released at once differs from replica to replica; what was heard is the same."""
    chance = random.Random(seed)
    broken = [Replica(chance.randrange(11), chance.randrange(1, 5)) for _ in range(TRIES - 1)]
    decisions = await judged([*broken, Replica(hold=chance.randrange(1, 5))])

    assert text_of(decisions) == ANSWER + " "
    assert through_of(decisions) == sorted(set(through_of(decisions)))


async def test_the_end_is_told_to_who_judges_last() -> None:
    """A replica that breaks as it is caught up with does not hear the end in place of the next one."""
    decisions = await judged([Replica(breaks_at=10), SlowReplica(), Replica()])

    assert text_of(decisions) == ANSWER + " "
    assert isinstance(decisions[-1], Assessment)


async def test_findings_are_told_once() -> None:
    """What was found and replaced before the break is not told or let go again."""
    text = f"one {SECRET} two three"
    decisions = await judged([Replica(breaks_at=3), Replica()], text)

    assert text_of(decisions) == f"one {REPLACEMENT} two three "
    assert [one.finding.category for one in decisions if isinstance(one, Judged)] == ["CREDIT_CARD"]


async def test_what_cannot_be_continued_fails() -> None:
    """A release that was redacted cannot be cut where the first one ended: nothing more leaves."""
    text = f"one {SECRET} two three"
    with pytest.raises(Aborted) as caught:
        await judged([Replica(breaks_at=1), Replica(hold=4)], text)

    assert caught.value.reason == "SAFETY_CHANGED"


async def test_what_was_blocked_stays_blocked() -> None:
    """A second replica that lets go what the first one blocked is not listened to; other choices go on."""
    blocking = Scripted([ChoiceJudged(0, Verdict.BLOCK)], breaks=True)
    lenient = Scripted(
        [Released(0, "text", 0, ANSWER, len(ANSWER)), Released(1, "text", 0, "two", 3), ChoiceJudged(0, Verdict.ALLOW)]
    )
    decisions = await judged([blocking, lenient])

    assert decisions == [ChoiceJudged(0, Verdict.BLOCK), Released(1, "text", 0, "two", 3)]


async def test_the_last_failure_stands() -> None:
    """After so many replicas the answer fails, and so does what is sent."""
    replicas = [Replica(breaks_at=0) for _ in range(TRIES)]
    calls = iter(replicas)
    stream = Rejudged(lambda: next(calls))
    await stream.send(pieces_of(ANSWER))
    with pytest.raises(Unavailable):
        async for _ in stream:
            pass

    with pytest.raises(Unavailable):
        await stream.send(pieces_of("more"))
    assert all(one.pieces for one in replicas)


async def test_a_stream_that_was_left_is_not_begun_again() -> None:
    """Who cancels wants no other replica."""
    asked: list[Replica] = []

    def call() -> Replica:
        asked.append(Replica(breaks_at=0))
        return asked[-1]

    stream = Rejudged(call)
    await stream.send(pieces_of(ANSWER))
    stream.cancel()
    with pytest.raises(Unavailable):
        async for _ in stream:
            pass

    assert len(asked) == 1


async def test_who_leaves_waits_for_no_replica(monkeypatch: pytest.MonkeyPatch) -> None:
    """A cancel ends the reading at once, also between two replicas."""
    monkeypatch.setattr(rejudging, "REPLICA_WAITS_S", (60.0,))
    stream = Rejudged(lambda: Scripted([ChoiceJudged(0, Verdict.ALLOW)], breaks=True))
    has_begun = asyncio.Event()

    async def read() -> None:
        async for _ in stream:
            has_begun.set()  # then it breaks, and another replica is waited for

    async with asyncio.timeout(LIMIT_S):
        reading = asyncio.create_task(read())
        await has_begun.wait()
        stream.cancel()
        with pytest.raises(Unavailable):
            await reading
