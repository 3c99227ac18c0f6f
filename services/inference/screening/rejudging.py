"""The judging of an answer that outlives the replica of safety that began it.

A judgement follows from the text alone, so another replica that reads the answer from its beginning decides the same.
What was sent is therefore kept, and where a call breaks, all of it is judged anew by whoever is left; what had been
decided is not told twice. It never lets text go that the second reading did not let go as well, and where the two do
not agree, the failure stands.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress

import msgspec

from kit.dial import REPLICA_WAITS_S
from kit.errors import Aborted, Unavailable
from services.inference.screening.safety_port import (
    Assessment,
    ChoiceJudged,
    Judged,
    OutputPiece,
    OutputStream,
    Released,
)

Decision = Released | Judged | ChoiceJudged | Assessment


class Rejudged:
    """One answer, judged by as many calls as it takes; see `OutputStream`.

    Args:
        call: Begins a call.
    """

    def __init__(self, call: Callable[[], OutputStream]) -> None:
        self._call, self._stream, self._waits_s = call, call(), list(REPLICA_WAITS_S)
        self._sent: list[OutputPiece] = []
        self._position = 0  # of what was sent, how much the present call has
        self._is_done = self._is_closed = False
        self._is_left = asyncio.Event()
        self._lock = asyncio.Lock()  # pieces stay in order while a new call catches up
        self._catching_up: asyncio.Task[None] | None = None
        self._decided = _Decided()

    async def send(self, pieces: Sequence[OutputPiece]) -> None:
        """See `OutputStream.send`; a failure is raised only where it is the last."""
        self._sent += pieces
        await self._pass_on()

    async def done(self) -> None:
        """See `OutputStream.done`."""
        self._is_done = True
        await self._pass_on()

    async def __aiter__(self) -> AsyncIterator[Sequence[Decision]]:
        try:
            while True:
                try:
                    async for decisions in self._stream:
                        if new := self._decided.new(decisions, self._original):
                            yield new
                    return
                except Unavailable:
                    await self._wait()
                    if not self._waits_s:  # nobody is left to be asked, or nobody waits any more
                        raise
                self._begin_again()
        finally:
            self._waits_s.clear()

    def cancel(self) -> None:
        """See `OutputStream.cancel`."""
        self._waits_s.clear()
        self._is_left.set()
        self._stream.cancel()
        if self._catching_up:
            self._catching_up.cancel()

    async def _wait(self) -> None:
        """Waits until another replica may be asked, or nobody waits any more."""
        if self._waits_s:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._waits_s[0]):
                    await self._is_left.wait()

    async def _pass_on(self) -> None:
        async with self._lock:
            stream, pieces = self._stream, self._sent[self._position :]
            self._position = len(self._sent)
            is_last = not self._waits_s
            try:
                if pieces:
                    await stream.send(pieces)
                if self._is_done and not self._is_closed and stream is self._stream:
                    self._is_closed = True
                    await stream.done()
            except Unavailable:  # whoever reads hears of it, too, and begins again
                if is_last:
                    raise

    def _begin_again(self) -> None:
        del self._waits_s[0]
        self._stream.cancel()
        self._stream, self._position, self._is_closed = self._call(), 0, False
        self._decided.begin_again()
        # Beside the reading: a service that is not read stops reading.
        self._catching_up = asyncio.create_task(self._catch_up())

    async def _catch_up(self) -> None:
        with suppress(Unavailable):
            await self._pass_on()

    def _original(self, part: _Part, start: int, end: int) -> str:
        texts = (one.text for one in self._sent if (one.choice_index, one.kind, one.tool_call_index) == part)
        return "".join(texts)[start:end]


_Part = tuple[int, str, int]  # choice, kind, tool call


class _Decided:
    """What was decided by the calls so far, so that each decision is told once."""

    def __init__(self) -> None:
        self._told: dict[_Part, int] = {}  # through which code point of the original each part has left
        # The same of the present call; None in the first, which repeats nothing.
        self._reread: dict[_Part, int] | None = None
        self._found: list[Judged] = []
        self._over: set[int] = set()

    def begin_again(self) -> None:
        self._reread = {}

    def new(self, decisions: Sequence[Decision], original: Callable[[_Part, int, int], str]) -> Sequence[Decision]:
        """Those that are new; all of them in a first call."""
        if self._reread is not None:
            decisions = [one for said in decisions if (one := self._remaining(said, original)) is not None]
        for one in decisions:
            if isinstance(one, Released):
                self._told[_part(one)] = one.released_through
            elif isinstance(one, Judged):
                self._found.append(one)
            elif isinstance(one, ChoiceJudged):
                self._over.add(one.choice_index)
        return decisions

    def _remaining(self, said: Decision, original: Callable[[_Part, int, int], str]) -> Decision | None:
        if isinstance(said, Assessment):
            return said
        if said.choice_index in self._over:  # what was blocked stays so, whatever another replica makes of it
            return None
        if isinstance(said, Judged):
            return None if said in self._found else said
        return self._beyond(said, original) if isinstance(said, Released) else said

    def _beyond(self, said: Released, original: Callable[[_Part, int, int], str]) -> Released | None:
        """What of a release has not left.

        Raises:
            Aborted: It is not known where in a redacted text that is (SAFETY_CHANGED).
        """
        assert self._reread is not None
        part, through = _part(said), said.released_through
        start, told = self._reread.get(part, 0), self._told.get(part, 0)
        self._reread[part] = through
        if through <= told:
            return None
        if told <= start:
            return said
        if said.text != original(part, start, through):
            raise Aborted("SAFETY_CHANGED", "the answer was judged otherwise when it was judged again; retry")
        return msgspec.structs.replace(said, text=said.text[told - start :])


def _part(one: Released) -> _Part:
    return one.choice_index, one.kind, one.tool_call_index
