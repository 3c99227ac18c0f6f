"""The `local` embedder: a sentence-transformers model, run in one thread of this process.

Texts of several requests take turns a few at a time, so that a long list does not hold up a short one. Nothing is cut
off: a text that is longer than the model reads is refused. torch is imported in the thread, so that importing this
module costs nothing.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from kit import minilm
from kit.errors import DeadlineExceeded, FailedPrecondition, InvalidArgument, MillraceError, Unavailable
from services.inference.engines.local.machine import LOADING, thread_count
from services.inference.engines.local.slots import Slots
from services.inference.generation import Usage

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

logger = logging.getLogger(__name__)

# Texts that are embedded in one turn: about 20 ms of a small model on two cores, so that a cancel is felt soon.
TURN_TEXTS = 16
ACTIVE_MAX = 8
QUEUE_MAX = 256
WAIT_S_MAX = 30.0
RETRY_AFTER_MS = 1_000


class LocalEmbedder:
    """Runs one model: a directory, a hub name, or `all-minilm-l6-v2`, which is installed with the suite."""

    kind = "local"

    def __init__(self, name: str, *, threads: int = 0) -> None:
        """`threads` is torch's; 0 takes what suits the model."""
        self._name = name
        self._threads = threads
        self._slots = Slots(ACTIVE_MAX, QUEUE_MAX, WAIT_S_MAX)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="local-embed")
        self._model: SentenceTransformer | None = None
        self._loading: asyncio.Future[SentenceTransformer] | None = None
        self._is_closed = False

    async def warm(self) -> None:
        """Loads the model; once, however often it is called.

        Raises:
            FailedPrecondition: MODEL_NOT_LOADABLE or MODEL_NOT_GENUINE.
        """
        if self._loading is None:
            self._loading = asyncio.get_running_loop().run_in_executor(self._thread, self._load)
        self._model = await asyncio.shield(self._loading)

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
        encoder = self._ready_model()
        _check_dimension(encoder, dimension_count)
        try:
            async with asyncio.timeout(None if deadline is None else deadline - time.monotonic()):
                return await self._embed(encoder, texts)
        except TimeoutError as error:
            raise DeadlineExceeded("DEADLINE_EXCEEDED", "the texts were not embedded by the deadline") from error

    async def close(self) -> None:
        """Frees everything after the turn in hand."""
        self._is_closed = True
        await asyncio.to_thread(self._thread.shutdown, wait=True, cancel_futures=True)
        self._model = None

    async def _embed(self, encoder: SentenceTransformer, texts: Sequence[str]) -> tuple[list[list[float]], Usage]:
        loop = asyncio.get_running_loop()
        vectors: list[list[float]] = []
        token_count = 0
        async with self._slots.place():
            for begin in range(0, len(texts), TURN_TEXTS):
                self._ready_model()
                part = list(texts[begin : begin + TURN_TEXTS])
                some, used = await loop.run_in_executor(self._thread, _turn, encoder, part, begin)
                vectors += some
                token_count += used
        return vectors, Usage(prompt_token_count=token_count)

    def _ready_model(self) -> SentenceTransformer:
        if self._is_closed:
            raise Unavailable(
                "SHUTTING_DOWN", "the service is stopping; retry elsewhere", retry_after_ms=RETRY_AFTER_MS
            )
        if self._model is None:
            raise Unavailable("MODEL_NOT_READY", "the model is being loaded; retry", retry_after_ms=RETRY_AFTER_MS)
        return self._model

    def _load(self) -> SentenceTransformer:
        begin = time.monotonic()
        try:
            with LOADING:
                encoder = self._import_and_load()
        except MillraceError:
            raise
        except Exception as error:  # whatever keeps a model from loading is told to who waits for it
            said = str(error).strip().partition("\n")[0]
            problem = f"model {self._name!r} cannot be loaded: {said}"
            raise FailedPrecondition("MODEL_NOT_LOADABLE", problem) from error
        logger.info("local embedder loaded", extra={"model": self._name, "seconds": round(time.monotonic() - begin, 2)})
        return encoder

    def _import_and_load(self) -> SentenceTransformer:
        source = minilm.find() if self._name == minilm.NAME else self._name
        import torch
        from sentence_transformers import SentenceTransformer
        from transformers.utils.logging import disable_progress_bar

        disable_progress_bar()  # its bars would stand between the lines of the log
        encoder = SentenceTransformer(source, trust_remote_code=False)
        torch.set_num_threads(thread_count(self._threads, sum(weight.numel() for weight in encoder.parameters())))
        return encoder


def _turn(encoder: SentenceTransformer, texts: list[str], first: int) -> tuple[list[list[float]], int]:
    """Embeds a few texts, in the thread; `first` is the index of the first among all texts."""
    counts = [len(ids) for ids in encoder.tokenizer(texts, truncation=False, verbose=False)["input_ids"]]
    limit = encoder.max_seq_length
    for at, count in enumerate(counts):
        if limit is not None and count > limit:
            raise InvalidArgument(
                f"texts[{first + at}]",
                f"has {count} tokens, but the model reads {limit}; split it",
                reason="CONTEXT_LENGTH_EXCEEDED",
            )
    vectors = encoder.encode(texts, batch_size=TURN_TEXTS, show_progress_bar=False, convert_to_numpy=True)
    return [vector.tolist() for vector in vectors], sum(counts)


def _check_dimension(encoder: SentenceTransformer, dimension_count: int | None) -> None:
    own = encoder.get_embedding_dimension()
    if dimension_count is not None and dimension_count != own:
        raise InvalidArgument("dimension_count", f"this model gives vectors of {own} numbers and cannot shorten them")
