"""What every engine is: a source of tokens behind one small protocol.

The pipeline knows only this. An engine never knows about caches, safety, routes or the wire.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from typing import Protocol

from services.inference.generation import EngineEvent, Prompt, Usage


class Source(Protocol):
    """What an attempt asks for an answer: an engine, or what stands for one."""

    streams: bool
    """Whether an answer comes as it grows. Where not, it comes whole, and only the total deadline can bound it."""

    def generate(self, prompt: Prompt, deadline: float | None) -> AsyncGenerator[Sequence[EngineEvent], None]:
        """Streams an answer: each item is the events that were ready in one tick, never empty.

        The last event is EngineCompleted, after a ChoiceFinished for each choice. Closing the iterator (`aclose`) or
        cancelling its task stops the work within one step and frees what it held.

        Args:
            prompt: What to continue. Ranges were checked; what the engine cannot honour is refused here.
            deadline: `time.monotonic()` instant by which the answer must be complete; None means no bound.
        """
        ...


class Engine(Source, Protocol):
    """Generates text with one model, or with every model of one upstream.

    Failures are raised as `kit.errors` classes: InvalidArgument naming the field that the engine cannot honour
    (nothing is dropped), InvalidArgument with reason CONTEXT_LENGTH_EXCEEDED, ResourceExhausted when full,
    Unavailable or DeadlineExceeded when the model cannot be reached in time.
    """

    kind: str
    """`local` or `openai`: the engine's name in receipts, spans and the models file."""

    async def warm(self) -> None:
        """Loads what must be there before the first call; raises when the model can never be served."""

    async def count_tokens(self, prompt: Prompt) -> int:
        """Counts the prompt's tokens, template included; Unimplemented (COUNT_TOKENS_UNSUPPORTED) where it cannot."""
        ...

    async def close(self) -> None:
        """Stops the work in hand and frees everything."""


class Embedder(Protocol):
    """Turns texts into vectors."""

    kind: str

    async def warm(self) -> None:
        """Loads what must be there before the first call."""

    async def embed(
        self, model: str, texts: Sequence[str], dimension_count: int | None, deadline: float | None
    ) -> tuple[list[list[float]], Usage]:
        """Returns one vector per text, in order, and the tokens used."""
        ...

    async def close(self) -> None:
        """Frees everything."""
