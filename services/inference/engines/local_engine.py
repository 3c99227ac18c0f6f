"""The `local` engine: one Hugging Face model, run in this process by one thread.

Streams true tokens, honours every sampling parameter of the contract and ends within a step of a cancel. Requests
take turns a step at a time; batching comes in its own time behind the same door. torch is imported in the model's
thread, so that importing this module costs nothing.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING

from kit.errors import DeadlineExceeded, FailedPrecondition, Unavailable
from services.inference.engines.local_outbox import Outbox
from services.inference.engines.local_refusals import check_length, check_supported, check_token_ids
from services.inference.engines.local_slots import Slots
from services.inference.engines.local_threads import LOADING, thread_count
from services.inference.engines.local_worker import Job, Steps, Worker
from services.inference.generation import EngineCompleted, EngineEvent, Prompt

if TYPE_CHECKING:
    from services.inference.engines.local_model import LocalModel

logger = logging.getLogger(__name__)

RETRY_AFTER_MS = 1_000


class LocalEngine:
    """Runs one model."""

    kind = "local"
    streams = True

    def __init__(
        self, name: str, *, active_max: int = 16, queue_max: int = 256, wait_s_max: float = 30.0, threads: int = 0
    ) -> None:
        """Makes the engine; `warm` loads the model.

        Args:
            name: A directory, a hub name, or `embedded`.
            active_max: Generations that take turns at once.
            queue_max: Generations that may wait for a turn; more are refused.
            wait_s_max: Longest wait.
            threads: Torch's; 0 takes one per core, and one for a model too small to gain by more.
        """
        self._name = name
        self._threads = threads
        self._slots = Slots(active_max, queue_max, wait_s_max)
        self._worker = Worker(f"local-{name.rpartition('/')[2]}")
        self._encoder = ThreadPoolExecutor(1, thread_name_prefix="local-encode")
        self._model: LocalModel | None = None
        self._loading: asyncio.Future[LocalModel] | None = None
        self._is_closed = False

    @property
    def slots(self) -> Slots:
        """The places at this model."""
        return self._slots

    @property
    def job_count(self) -> int:
        """Generations that hold memory of the model."""
        return self._worker.job_count

    @property
    def is_idle(self) -> bool:
        """Whether the model's thread sleeps: nothing is asked, or no reader has room."""
        return self._worker.is_idle

    @property
    def context_token_count_max(self) -> int | None:
        """Most tokens of prompt and answer together; None until the model is loaded, or where it has no limit."""
        return self._model.context_token_count_max if self._model else None

    async def warm(self) -> None:
        """Loads the model in its thread; once, however often it is called.

        Raises:
            FailedPrecondition: MODEL_NOT_LOADABLE.
        """
        if self._loading is None:
            loop = asyncio.get_running_loop()
            self._loading = loop.create_future()
            self._worker.start(partial(self._load, loop, self._loading))
        self._model = await asyncio.shield(self._loading)

    async def generate(self, prompt: Prompt, deadline: float | None) -> AsyncGenerator[Sequence[EngineEvent], None]:
        """Streams an answer, as the engine protocol says.

        Raises:
            InvalidArgument: A field that this engine cannot honour, or CONTEXT_LENGTH_EXCEEDED.
            ResourceExhausted: QUEUE_FULL or QUEUE_TIMEOUT.
            DeadlineExceeded: The deadline came before the end.
            Unavailable: MODEL_NOT_READY or SHUTTING_DOWN.
        """
        model = self._ready_model()
        check_supported(prompt)
        check_token_ids(prompt.sampling, model.vocab_size)
        prompt_ids = await self._encode(model, prompt)
        check_length(len(prompt_ids), model.context_token_count_max)
        async with self._slots.place(_left(deadline)):
            job = self._start(model, prompt, prompt_ids)
            try:
                while True:
                    events = await _take(job.outbox, deadline)
                    yield events
                    if isinstance(events[-1], EngineCompleted):
                        return
            finally:
                self._worker.cancel(job)

    async def count_tokens(self, prompt: Prompt) -> int:
        """Counts the prompt's tokens, the chat template's included."""
        check_supported(prompt)
        return len(await self._encode(self._ready_model(), prompt))

    async def close(self) -> None:
        """Stops the work in hand; readers get UNAVAILABLE."""
        self._is_closed = True
        self._encoder.shutdown(wait=False, cancel_futures=True)
        await asyncio.to_thread(self._worker.close, _shutting_down())

    def _ready_model(self) -> LocalModel:
        if self._is_closed:
            raise _shutting_down()
        if self._model is None:
            raise Unavailable("MODEL_NOT_READY", "the model is being loaded; retry", retry_after_ms=RETRY_AFTER_MS)
        return self._model

    async def _encode(self, model: LocalModel, prompt: Prompt) -> list[int]:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._encoder, model.encode, prompt)
        except RuntimeError as error:
            if self._is_closed:
                raise _shutting_down() from error
            raise

    def _start(self, model: LocalModel, prompt: Prompt, prompt_ids: list[int]) -> Job:
        def begin() -> Steps:
            from services.inference.engines.local_decode import Decoding

            return Decoding(model, self._name, prompt_ids, prompt.sampling)

        job = Job(begin, Outbox(asyncio.get_running_loop(), self._worker.wake))
        self._worker.add(job)
        return job

    def _load(self, loop: asyncio.AbstractEventLoop, loading: asyncio.Future[LocalModel]) -> bool:
        """Loads the model, in its thread; returns whether there is one."""
        try:
            with LOADING:
                import torch

                from services.inference.engines.local_model import load

                begin = time.monotonic()
                model = load(self._name)
                torch.set_num_threads(thread_count(self._threads, model.parameter_count))
        except Exception as error:  # whatever keeps a model from loading is told to who waits for it
            loop.call_soon_threadsafe(_settle, loading, _not_loadable(self._name, error))
            return False
        facts = {"model": self._name, "seconds": round(time.monotonic() - begin, 2), "threads": torch.get_num_threads()}
        logger.info("local model loaded", extra=facts)
        loop.call_soon_threadsafe(_settle, loading, model)
        return True


async def _take(outbox: Outbox, deadline: float | None) -> list[EngineEvent]:
    if deadline is None:
        return await outbox.take()
    try:
        async with asyncio.timeout(_left(deadline)):
            return await outbox.take()
    except TimeoutError as error:
        raise DeadlineExceeded(
            "DEADLINE_EXCEEDED", "the answer was not complete by the deadline; allow more"
        ) from error


def _left(deadline: float | None) -> float | None:
    return None if deadline is None else deadline - time.monotonic()


def _settle(loading: asyncio.Future[LocalModel], result: LocalModel | Exception) -> None:
    if loading.done():
        return
    if isinstance(result, Exception):
        loading.set_exception(result)
    else:
        loading.set_result(result)


def _not_loadable(name: str, error: Exception) -> FailedPrecondition:
    said = str(error).strip().partition("\n")[0]
    problem = FailedPrecondition("MODEL_NOT_LOADABLE", f"model {name!r} cannot be loaded: {said}")
    problem.__cause__ = error
    return problem


def _shutting_down() -> Unavailable:
    return Unavailable("SHUTTING_DOWN", "the service is stopping; retry elsewhere", retry_after_ms=RETRY_AFTER_MS)
