"""The `local` embedder: a sentence-transformers model, run in one thread of this process.

Texts that come while the model is busy go together into its next turn, whoever sent them (`kit.encoder`); a long list
goes in a few at a time, so that it does not hold up a short one. Nothing is cut off: a text that is longer than the
model reads is refused. Vectors have length 1.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

from kit.encoder import QUEUE_TEXTS_MAX, TURN_TEXTS_MAX, Encoder, Loaded, load
from kit.errors import DeadlineExceeded, InvalidArgument
from services.inference.accounting import metering
from services.inference.engines.local.machine import LOADING
from services.inference.engines.local.slots import Slots
from services.inference.generation import Usage

ACTIVE_MAX = QUEUE_TEXTS_MAX // TURN_TEXTS_MAX  # each has at most one turn's texts in the encoder's queue
QUEUE_MAX = 256
WAIT_S_MAX = 30.0


class LocalEmbedder:
    """Runs one model: a directory, a hub name, or `all-minilm-l6-v2`, which is installed with the suite."""

    kind = "local"

    def __init__(self, name: str, *, threads: int = 0) -> None:
        """`threads` of the model; 0 takes one, which is best for small models."""
        self._encoder = Encoder(name, threads=threads or 1, load=_load)
        self._slots = Slots(ACTIVE_MAX, QUEUE_MAX, WAIT_S_MAX)

    async def warm(self) -> None:
        """Loads the model; once, however often it is called.

        Raises:
            FailedPrecondition: MODEL_NOT_LOADABLE or MODEL_NOT_GENUINE.
        """
        await self._encoder.warm()

    async def embed(
        self, model: str, texts: Sequence[str], dimension_count: int | None, deadline: float | None
    ) -> tuple[list[list[float]], Usage]:
        """Returns one vector per text, in order, and the tokens used.

        Raises:
            InvalidArgument: `texts[INDEX]` with reason CONTEXT_LENGTH_EXCEEDED, or `dimension_count`.
            ResourceExhausted: QUEUE_FULL or QUEUE_TIMEOUT.
            DeadlineExceeded: The deadline came before the end.
            Unavailable: MODEL_NOT_READY or SHUTTING_DOWN.
        """
        own = self._encoder.dimension
        if dimension_count is not None and dimension_count != own:
            problem = f"this model gives vectors of {own} numbers and cannot shorten them"
            raise InvalidArgument("dimension_count", problem)
        meter, came_at = metering.current(), time.monotonic()
        meter.is_queued = True
        try:
            async with asyncio.timeout(None if deadline is None else deadline - came_at), self._slots.place():
                meter.is_queued, meter.queue_s = False, time.monotonic() - came_at
                vectors, token_count = await self._encoder.encode_counted(texts)
        except TimeoutError as error:
            raise DeadlineExceeded("DEADLINE_EXCEEDED", "the texts were not embedded by the deadline") from error
        return vectors.tolist(), Usage(prompt_token_count=token_count)

    async def close(self) -> None:
        """Frees everything after the turn in hand."""
        await self._encoder.close()


def _load(name: str, threads: int) -> Loaded:
    with LOADING:
        return load(name, threads)
