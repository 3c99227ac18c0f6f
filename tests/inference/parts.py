"""Scripted stand-ins for what the pipeline's parts lean on, and short ways to make its nouns."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Sequence
from typing import Any

import msgspec
import yaml

from kit.errors import MillraceError
from services.inference.events import Receipt
from services.inference.generation import (
    ChoiceFinished,
    Delta,
    EngineCompleted,
    EngineEvent,
    FinishReason,
    Message,
    Prompt,
    Role,
    Sampling,
    TextPart,
    Usage,
)
from services.inference.request import Request
from services.inference.routing.catalog import Catalog, Target
from services.inference.routing.router import Route, RouteTarget
from services.inference.routing.rules import DeadlineRule, Rules
from services.inference.screening.safety_port import Assessment, ChoiceJudged, Judged, OutputPiece, Released
from services.inference.screening.segments import Segment

Decision = Released | Judged | ChoiceJudged | Assessment
DONE = EngineCompleted(Usage(5, 7), "m-1", "fp")
STOP = ChoiceFinished(0, FinishReason.STOP)


def catalog(text: str) -> Catalog:
    """A catalogue from YAML without its version."""
    return Catalog.model_validate({"version": 1, **yaml.safe_load(text)})


def prompt(text: str = "hi", streamed: bool = True, **fields: Any) -> Prompt:
    """A prompt of one user message."""
    return Prompt(streamed=streamed, messages=(Message(Role.USER, (TextPart(text),)),), **fields)


def request(text: str = "hi", model: str = "gpt", n: int = 1, **fields: Any) -> Request:
    """A request of one user message."""
    fields.setdefault("prompt", prompt(text, fields.pop("streamed", True), sampling=Sampling(n=n)))
    return Request("r1", "acme", model, **fields)


def route(count: int = 1, rules: Rules | None = None, **deadlines: float) -> Route:
    """A route over targets t1, t2, ..."""
    targets = tuple(Target(engine="local", model=f"t{number}") for number in range(1, count + 1))
    rules = rules or Rules(deadlines=DeadlineRule(**deadlines))
    return Route("gpt", "chat", "", tuple(RouteTarget(one, one.model) for one in targets), rules)


def receipt() -> Receipt:
    """An empty receipt."""
    return Receipt("r1", "gpt")


class FakeEngine:
    """Plays a script: batches of events, errors that are raised, events that are waited for.

    Where there are several `scripts`, each call plays the next, and the last one is played from then on.
    """

    kind = "fake"
    streams = True

    def __init__(self, *script: Sequence[EngineEvent] | Exception | asyncio.Event) -> None:
        self.scripts: list[Sequence[Sequence[EngineEvent] | Exception | asyncio.Event]] = [script]
        self.prompts: list[Prompt] = []
        self.deadlines: list[float | None] = []
        self.waiting = asyncio.Event()
        self.closed = False

    async def warm(self) -> None:
        pass

    async def generate(self, prompt: Prompt, deadline: float | None) -> AsyncGenerator[Sequence[EngineEvent], None]:
        self.prompts.append(prompt)
        self.deadlines.append(deadline)
        try:
            for step in self.scripts.pop(0) if len(self.scripts) > 1 else self.scripts[0]:
                if isinstance(step, Exception):
                    raise step
                if isinstance(step, asyncio.Event):
                    self.waiting.set()
                    await step.wait()
                else:
                    yield [msgspec.structs.replace(event) for event in step]
        finally:
            self.closed = True

    async def count_tokens(self, prompt: Prompt) -> int:
        return len(prompt.messages)

    async def close(self) -> None:
        pass


def saying(*words: str) -> FakeEngine:
    """An engine that says these words, one a batch, and ends well."""
    return FakeEngine(*([Delta(text=word)] for word in words), [STOP], [DONE])


class ScriptedStream:
    """A safety stream told by `decide` what to answer to each send, and to `done` (None).

    Who sends after a failure hears of it, unless the stream is `silent`: over the wire that is a matter of luck.
    """

    def __init__(
        self,
        decide: Callable[[Sequence[OutputPiece] | None], Iterable[Sequence[Decision] | Exception]],
        silent: bool = False,
    ) -> None:
        self._decide, self._silent = decide, silent
        self._answers: asyncio.Queue[Sequence[Decision] | Exception] = asyncio.Queue()
        self._broken: Exception | None = None
        self.sent: list[OutputPiece] = []
        self.cancelled = False

    async def send(self, pieces: Sequence[OutputPiece]) -> None:
        self._answer(pieces)
        self.sent += pieces

    async def done(self) -> None:
        self._answer(None)

    def _answer(self, pieces: Sequence[OutputPiece] | None) -> None:
        if self._broken and self._silent:
            return
        if self._broken:
            raise self._broken
        for answer in self._decide(pieces):
            if isinstance(answer, Exception):
                self._broken = answer
            self._answers.put_nowait(answer)

    async def __aiter__(self) -> AsyncIterator[Sequence[Decision]]:
        while True:
            answer = await self._answers.get()
            if isinstance(answer, Exception):
                raise answer
            yield answer
            if answer and isinstance(answer[-1], Assessment):
                return

    def cancel(self) -> None:
        self.cancelled = True


class FakeSafety:
    """Answers with what it was given: an assessment or an error per kind of question."""

    def __init__(
        self,
        said: Assessment | MillraceError | None = None,
        stream: ScriptedStream | MillraceError | None = None,
        whole: Assessment | MillraceError | None = None,
    ) -> None:
        self.said, self.stream, self.whole = said, stream, whole
        self.segments: list[Segment] = []
        self.pieces: list[OutputPiece] = []

    async def check_input(self, profile: str, segments: Sequence[Segment]) -> Assessment:
        self.segments += segments
        return _answer(self.said)

    async def check_output(self, profile: str, pieces: Sequence[OutputPiece]) -> Assessment:
        self.pieces += pieces
        return _answer(self.whole)

    def stream_output(self, profile: str, choice_count: int) -> ScriptedStream:
        return _answer(self.stream)


def _answer(what: Any) -> Any:
    assert what is not None, "safety was asked what the test did not expect"
    if isinstance(what, MillraceError):
        raise what
    return what
