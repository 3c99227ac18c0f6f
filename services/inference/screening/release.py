"""Release: the answer's way through safety. Nothing unscreened leaves, and nothing past a BLOCK.

`Screen.whole` judges a finished answer, `Screen.streamed` one that grows. Both turn engine events into engine events,
with safety events between them, so that the pipeline reads the same with and without safety.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncGenerator, Collection, Coroutine, Sequence
from contextlib import aclosing, suppress
from typing import Any

from kit.errors import MillraceError, Unavailable
from services.inference.answer import WholeChoice, put_together
from services.inference.attempts.attempts import Batch
from services.inference.events import AttemptEvent, Direction, SafetyEvent, Verdict
from services.inference.generation import EngineCompleted, EngineEvent, FinishReason
from services.inference.routing.rules import SafetyRule
from services.inference.screening.held import NAME, Held, pieces_of
from services.inference.screening.safety_port import (
    REFUSAL,
    Assessment,
    ChoiceJudged,
    Judged,
    OutputPiece,
    OutputStream,
    Released,
    SafetyPort,
    unreachable,
)

ScreenedBatch = Sequence[EngineEvent | AttemptEvent | SafetyEvent]
FINISH_S = 5.0  # how long safety may take for what it still holds once the answer is over
# Safety holds at most 320 code points of a text, the longest passage that a model reads; more is a sign of trouble.
HELD_CODE_POINTS_MAX = 512


class Screen:
    """How the answer of one request is judged; `tools` are the names that its prompt declares."""

    def __init__(
        self, port: SafetyPort, profile: str, rule: SafetyRule, choice_count: int, tools: Collection[str] = ()
    ) -> None:
        self._port, self.profile, self._rule, self._choice_count = port, profile, rule, choice_count
        self._tools = frozenset(tools)
        self.policy_version = ""

    async def whole(self, batches: AsyncGenerator[Batch, None]) -> AsyncGenerator[ScreenedBatch, None]:
        """Judges a finished answer: nothing leaves before all of it was judged."""
        events: list[EngineEvent] = []
        async with aclosing(batches):
            async for batch in batches:
                if told := [event for event in batch if isinstance(event, AttemptEvent)]:
                    yield told
                events += [event for event in batch if not isinstance(event, AttemptEvent)]
        choices = put_together(events)
        pieces = [piece for choice in choices for piece in pieces_of(choice.delta(), self._tools)]
        try:
            said = await self._port.check_output(self.profile, pieces) if pieces else Assessment(Verdict.ALLOW)
        except MillraceError as error:
            yield [self.failed(error), *events]
            return
        self.policy_version = said.policy_version
        for piece, verdict, text in zip(pieces, said.verdicts, said.replacements, strict=True):
            _apply(choices, piece, verdict, text)
        judged = [event for choice in choices for event in choice.events()]
        yield [*self.findings(said), *judged, *(event for event in events if isinstance(event, EngineCompleted))]

    async def streamed(self, batches: AsyncGenerator[Batch, None]) -> AsyncGenerator[ScreenedBatch, None]:
        """Judges an answer as it grows: text leaves as safety releases it."""
        try:
            stream = self._port.stream_output(self.profile, self._choice_count)
        except MillraceError as error:
            yield [self.failed(error)]
            screened: AsyncGenerator[Batch, None] | AsyncGenerator[ScreenedBatch, None] = batches
        else:
            screened = _Relay(self, stream, Held(self._choice_count, self._tools)).run(batches)
        async with aclosing(screened):
            async for batch in screened:
                yield batch

    def findings(self, said: Assessment, choice_index: int | None = None) -> list[SafetyEvent]:
        """The event for an assessment, where there is something to tell."""
        if said.verdict is Verdict.ALLOW and not said.unscreened:
            return []
        return [
            SafetyEvent(
                Direction.OUTPUT, said.verdict, said.findings, self.profile, said.policy_version or self.policy_version,
                choice_index, said.unscreened,
            )
        ]  # fmt: skip

    def failed(self, error: MillraceError) -> SafetyEvent:
        """What a failure of safety means for the answer; raises where the rule is closed."""
        return unreachable(error, self.profile, self._rule, Direction.OUTPUT)


def _apply(choices: list[WholeChoice], piece: OutputPiece, verdict: Verdict, replacement: str | None) -> None:
    choice = next(one for one in choices if one.index == piece.choice_index)
    if choice.finish_reason is FinishReason.CONTENT_FILTER and choice.refusal == REFUSAL:
        return
    if verdict is Verdict.BLOCK:
        choices[choices.index(choice)] = WholeChoice(
            choice.index, refusal=REFUSAL, finish_reason=FinishReason.CONTENT_FILTER
        )
    elif replacement is not None:
        choice.replace(piece.kind, piece.tool_call_index, replacement)


class _Relay:
    """One answer on its way: the engine's batches go to safety, what safety releases goes on.

    Two tasks and a queue of one: a reader who does not read stops the engine, and nothing piles up between them.
    """

    def __init__(self, screen: Screen, stream: OutputStream, held: Held) -> None:
        self._screen, self._stream, self._held = screen, stream, held
        self._ready: asyncio.Queue[ScreenedBatch | Exception | None] = asyncio.Queue(maxsize=1)
        self._unguarded = asyncio.Event()  # safety has failed, and the policy lets the answer go on
        self._listening_since = math.inf  # infinite while the reader is waited for, not safety

    async def run(self, batches: AsyncGenerator[Batch, None]) -> AsyncGenerator[ScreenedBatch, None]:
        """Yields what may leave.

        Raises:
            MillraceError: The engine failed, or safety did and the rule is closed.
        """
        receiver = asyncio.create_task(self._guarded(self._receive()))
        sender = asyncio.create_task(self._guarded(self._send(batches, receiver)))
        try:
            while (batch := await self._ready.get()) is not None:
                if isinstance(batch, Exception):
                    raise batch
                yield batch
        finally:
            self._stream.cancel()
            sender.cancel()
            receiver.cancel()
            await asyncio.wait({sender, receiver})

    async def _guarded(self, work: Coroutine[Any, Any, None]) -> None:
        """Hands what goes wrong to the reader, who would wait for ever for a task that has died."""
        try:
            await work
        except Exception as error:
            await self._ready.put(error)

    async def _send(self, batches: AsyncGenerator[Batch, None], receiver: asyncio.Task[None]) -> None:
        async with aclosing(batches):
            async for batch in batches:
                if told := [event for event in batch if isinstance(event, AttemptEvent)]:
                    await self._ready.put(told)
                if pieces := self._held.take(batch):
                    await self._judge(pieces)
        if not self._unguarded.is_set():
            with suppress(MillraceError):  # the receiver hears of it too, and decides
                await self._stream.done()
            await self._wait_for_rest(receiver)
        await self._flush()
        await self._ready.put(None)

    async def _judge(self, pieces: list[OutputPiece]) -> None:
        if not self._unguarded.is_set():
            try:
                async with asyncio.timeout(FINISH_S):  # a safety that reads nothing stops the sending in the end
                    await self._stream.send(pieces)
                if not self._is_hung():
                    return
                raise TimeoutError
            except TimeoutError:
                self._stream.cancel()
                await self._fail(Unavailable("SAFETY_TIMEOUT", "the safety service has stopped answering; retry"))
            except MillraceError:
                await self._unguarded.wait()  # the receiver hears of the failure too, and decides
        await self._flush()

    def _is_hung(self) -> bool:
        """Whether safety owes more than it may hold, and has said nothing for too long."""
        owes = self._held.text_code_point_count_max > HELD_CODE_POINTS_MAX
        return owes and time.monotonic() - self._listening_since > FINISH_S

    async def _wait_for_rest(self, receiver: asyncio.Task[None]) -> None:
        """Waits until safety has failed: where it goes well, the receiver ends the answer, and this with it."""
        self._listening_since = max(self._listening_since, time.monotonic())
        while (left_s := self._listening_since + FINISH_S - time.monotonic()) > 0:
            with suppress(TimeoutError):
                async with asyncio.timeout(min(left_s, FINISH_S)):
                    await self._unguarded.wait()
                    return
        receiver.cancel()
        await self._fail(Unavailable("SAFETY_TIMEOUT", "the safety service did not finish in time; retry"))

    async def _receive(self) -> None:
        is_over = False
        try:
            self._listening_since = time.monotonic()
            async for decisions in self._stream:  # to its very end: a call that is cut is recorded as cancelled
                self._listening_since = math.inf
                events, is_over = self._events(decisions)
                if events:
                    await self._ready.put(events)
                if self._held.is_all_blocked:
                    break
                self._listening_since = time.monotonic()
            if not is_over:
                raise Unavailable("SAFETY_TRUNCATED", "the safety service ended its stream too early")
        except MillraceError as error:
            if not is_over:
                await self._fail(error)
                return
        self._listening_since = math.inf
        await self._ready.put(None)

    async def _fail(self, error: MillraceError) -> None:
        """Lets what is held go unscreened, or raises where the rule is closed."""
        self._listening_since = math.inf
        await self._ready.put([self._screen.failed(error), *self._held.flush()])
        self._unguarded.set()

    async def _flush(self) -> None:
        if events := self._held.flush():
            await self._ready.put(events)

    def _events(
        self, decisions: Sequence[Released | Judged | ChoiceJudged | Assessment]
    ) -> tuple[list[EngineEvent | SafetyEvent], bool]:
        """What may leave after these decisions, and whether the answer ends with it."""
        events: list[EngineEvent | SafetyEvent] = []
        for said in decisions:
            match said:
                case Released(kind=kind) if kind == NAME:
                    self._held.rename(said)
                case Released():
                    events.append(self._held.release(said))
                case Judged():
                    self._held.judged(said)
                    assessment = Assessment(said.verdict, (said.finding,))
                    events += self._screen.findings(assessment, said.choice_index)
                case ChoiceJudged():
                    events += self._held.end(said.choice_index, said.verdict)
                    if self._held.is_all_blocked:
                        return [*events, self._held.completed()], True
                case Assessment():
                    self._screen.policy_version = said.policy_version
                    if said.unscreened:
                        events += self._screen.findings(Assessment(Verdict.ALLOW, unscreened=True))
                    if self._held.is_over:  # else it is no end: what safety owes is still here
                        return [*events, self._held.completed()], True
        return events, False
