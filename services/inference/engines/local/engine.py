"""The `local` engine: one Hugging Face model, run in this process by one thread.

Streams true tokens, honours every sampling parameter of the contract and ends within a step of a cancel. Requests are
computed together, step by step, and come and go between steps. torch is imported in the model's thread, so that
importing this module costs nothing.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from kit import openmp
from kit.errors import DeadlineExceeded, FailedPrecondition, ResourceExhausted, Unavailable
from services.inference.accounting import metering
from services.inference.engines.local.conversation import offered
from services.inference.engines.local.job import Job
from services.inference.engines.local.loading import Progress, followed
from services.inference.engines.local.machine import LOADING, thread_count
from services.inference.engines.local.outbox import Bell, Outbox
from services.inference.engines.local.refusals import (
    check_length,
    check_prompt_ids,
    check_supported,
    check_token_ids,
    check_tools,
)
from services.inference.engines.local.tool_calls import ToolCallReader
from services.inference.engines.local.tool_format import ToolFormat
from services.inference.engines.local.worker import Work, Worker
from services.inference.generation import ChoiceFinished, EngineCompleted, EngineEvent, FinishReason, Prompt

if TYPE_CHECKING:
    from services.inference.engines.local.grammar import Grammar
    from services.inference.engines.local.metrics import LocalMetrics
    from services.inference.engines.local.model import Precision
    from services.inference.engines.local.sampler import Constraint
    from services.inference.engines.local.serving import Serving

logger = logging.getLogger(__name__)

Asked = TypeVar("Asked")
Made = TypeVar("Made")

NEVER = float("inf")
RETRY_AFTER_MS = 1_000
LEAVE_S = 2.0  # a step of a large model on a busy machine; beyond it what is counted may miss that step's tokens
# An answer that its deadline cuts ends this much earlier, and never by more than the share of its time, so that its end
# gets to the caller before the deadline does.
DEADLINE_MARGIN_S, DEADLINE_MARGIN_SHARE = 0.05, 0.05
# Of a model without any limit, where the request has none either.
ANSWER_TOKENS_MAX = 4_096


class LocalEngine:
    """Runs one model."""

    kind = "local"
    streams = True

    def __init__(
        self,
        name: str,
        *,
        active_max: int = 32,
        queue_max: int = 256,
        wait_s_max: float = 30.0,
        threads: int = 0,
        cache_mib: int = 0,
        reuses_prefixes: bool = True,
        drafts: bool = True,
        precision: Precision = "auto",
        metrics: LocalMetrics | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Makes the engine; `warm` loads the model.

        Args:
            name: A directory, a hub name, or `embedded`.
            active_max: Choices that are computed at once.
            queue_max: Generations that may wait beyond that; more are refused.
            wait_s_max: Longest wait.
            threads: Torch's; 0 takes one per core, and one for a model too small to gain by more.
            cache_mib: Memory of keys and values; 0 takes a share of what is free.
            reuses_prefixes: Whether prompts of one tenant that begin alike share the work.
            drafts: Whether tokens are guessed where text repeats itself; no answer changes.
            precision: What is computed in; automatic is float32 on a processor and the checkpoint's own on CUDA.
            metrics: Where its figures go; None: nowhere.
            clock: Of deadlines, in seconds; monotonic.
        """
        openmp.wait_asleep()  # torch is not loaded yet, unless something else in the process has
        self._name = name
        self._metrics, self._clock = metrics, clock
        self._threads, self._cache_mib = threads, cache_mib
        self._reuses_prefixes, self._drafts = reuses_prefixes, drafts
        self._precision: Precision = precision
        self._active_max, self._queue_max, self._wait_s_max = active_max, queue_max, wait_s_max
        self._worker = Worker(f"local-{name.rpartition('/')[2]}")
        self._encoder = ThreadPoolExecutor(1, thread_name_prefix="local-encode")
        self._open: set[Job] = set()
        self._serving: Serving | None = None
        self._loading: asyncio.Future[Serving] | None = None
        self._progress = Progress(name)
        self._bell: Bell
        self._is_closed = False

    @property
    def loaded_share(self) -> float:
        """How far the model's loading is, 0 to 1."""
        return self._progress.share

    @property
    def running_count(self) -> int:
        """Generations that the model works on."""
        return sum(job.is_started for job in self._open)

    @property
    def waiting_count(self) -> int:
        """Generations that wait for their first step."""
        return sum(not job.is_started for job in self._open)

    @property
    def job_count(self) -> int:
        """Generations that the model's thread knows of."""
        return self._worker.job_count

    @property
    def is_idle(self) -> bool:
        """Whether the model's thread sleeps: nothing is asked, or no reader has room."""
        return self._worker.is_idle

    @property
    def context_token_count_max(self) -> int | None:
        """Most tokens of prompt and answer together; None until the model is loaded, or where it has no limit."""
        return self._serving.token_count_max if self._serving else None

    async def warm(self) -> None:
        """Loads the model in its thread; once, however often it is called.

        Raises:
            FailedPrecondition: MODEL_NOT_LOADABLE.
        """
        if self._loading is None:
            loop = asyncio.get_running_loop()
            self._loading = loop.create_future()
            self._bell = Bell(loop)
            self._worker.start(partial(self._load, loop, self._loading), self._bell.ring)
        self._serving = await asyncio.shield(self._loading)

    async def generate(self, prompt: Prompt, deadline: float | None) -> AsyncGenerator[Sequence[EngineEvent], None]:
        """Streams an answer, as the engine protocol says; one that has begun by the deadline ends there, and says so.

        Raises:
            InvalidArgument: A field that this engine cannot honour, or CONTEXT_LENGTH_EXCEEDED.
            FailedPrecondition: TOKEN_NOT_IN_MODEL.
            ResourceExhausted: QUEUE_FULL or QUEUE_TIMEOUT.
            DeadlineExceeded: The deadline came before the first token.
            Unavailable: MODEL_NOT_READY, MODEL_STUCK or SHUTTING_DOWN.
        """
        serving = self._ready()
        check_supported(prompt)
        check_tools(prompt, serving.model.tool_format)
        check_token_ids(prompt.sampling, serving.model.vocab_size)
        with self._worker.expecting():
            prompt_ids = await self._aside(serving.model.encode, prompt)
            check_prompt_ids(prompt_ids, serving.model.embedding_count)
            check_length(len(prompt_ids), serving.token_count_max)
            job, meter = self._job(serving, prompt, prompt_ids), metering.current()
            job.constrain = await self._constrain(serving, prompt)
            self._start(job)
        wait_until, end_at = self._clock() + self._wait_s_max, self._end_before(deadline)
        running = set(range(prompt.sampling.n))
        try:
            while True:
                events = await self._take(job, end_at, wait_until) or _cut(job, running)
                running -= {event.choice_index for event in events if isinstance(event, ChoiceFinished)}
                yield events
                if isinstance(events[-1], EngineCompleted):
                    return
        finally:
            self._open.discard(job)
            try:
                await self._leave(job)
            finally:
                meter.usage, meter.queue_s, meter.is_queued = job.usage, job.queue_s, not job.is_started

    async def count_tokens(self, prompt: Prompt) -> int:
        """Counts the prompt's tokens, the chat template's included."""
        check_supported(prompt)
        return len(await self._aside(self._ready().model.encode, prompt))

    async def close(self) -> None:
        """Stops the work in hand; readers get UNAVAILABLE."""
        self._is_closed = True
        self._encoder.shutdown(wait=False, cancel_futures=True)
        await asyncio.to_thread(self._worker.close, _shutting_down())

    def _ready(self) -> Serving:
        if self._is_closed:
            raise _shutting_down()
        if self._serving is None:
            raise Unavailable("MODEL_NOT_READY", "the model is being loaded; retry", retry_after_ms=RETRY_AFTER_MS)
        return self._serving

    async def _constrain(self, serving: Serving, prompt: Prompt) -> Callable[[], Constraint] | None:
        """Compiles the output format, or the calls that are asked for, to what holds each choice to it."""
        grammar: Grammar | None = None
        if prompt.output_format is not None and prompt.output_format.kind != "text":
            grammar = await self._aside(serving.grammars.compile, prompt.output_format)
        elif prompt.tools:
            grammar = await self._aside(serving.grammars.compile_calls, prompt)
        return grammar.constraint if grammar else None

    async def _aside(self, work: Callable[[Asked], Made], asked: Asked) -> Made:
        """Does what takes too long for the event loop, and needs no torch, in a thread beside the model's."""
        try:
            return await asyncio.get_running_loop().run_in_executor(self._encoder, work, asked)
        except RuntimeError as error:
            if self._is_closed:
                raise _shutting_down() from error
            raise

    def _job(self, serving: Serving, prompt: Prompt, prompt_ids: list[int]) -> Job:
        return Job(
            self._name,
            prompt_ids,
            prompt.sampling,
            Outbox(self._bell, self._worker.wake),
            serving.token_count_max or len(prompt_ids) + (prompt.sampling.max_tokens or ANSWER_TOKENS_MAX),
            prompt.tenant,
            prompt.priority,
            read_calls=_reading(prompt, serving.model.tool_format),
        )

    def _start(self, job: Job) -> None:
        self._ready()  # its thread may have ended while the prompt was read
        if len(self._open) >= self._active_max + self._queue_max:
            raise _exhausted("QUEUE_FULL", "the model's queue is full; retry later")
        self._open.add(job)
        self._worker.add(job)

    def _end_before(self, deadline: float | None) -> float:
        """When an answer must end, so that its end is in time."""
        if deadline is None:
            return NEVER
        return deadline - min(max(0.0, deadline - self._clock()) * DEADLINE_MARGIN_SHARE, DEADLINE_MARGIN_S)

    async def _take(self, job: Job, end_at: float, wait_until: float) -> list[EngineEvent]:
        """Waits for events, and for the first ones not longer than a place is waited for; none: the answer must end."""
        while (left_s := end_at - self._clock()) > 0:
            if not job.is_started:
                left_s = min(left_s, wait_until - self._clock(), self._worker.watch.left_s)
            try:
                async with asyncio.timeout(None if left_s == NEVER else left_s):
                    return await job.outbox.take()
            except TimeoutError as error:
                if not job.is_started and self._worker.watch.is_stuck:
                    raise _stuck() from error
                if not job.is_started and self._clock() >= wait_until:
                    problem = "no place at the model became free in time; retry later"
                    raise _exhausted("QUEUE_TIMEOUT", problem) from error
        return []

    async def _leave(self, job: Job) -> None:
        """Ends a request, and waits for the step in hand: what that makes was made, though nobody reads it."""
        loop = asyncio.get_running_loop()
        left = asyncio.Event()
        job.on_left = lambda: loop.call_soon_threadsafe(left.set)
        self._worker.cancel(job)
        # One that the model has not begun may be in the step in hand all the same: only its thread knows.
        if not (job.is_done or job.is_left or self._worker.watch.is_stuck):
            with suppress(TimeoutError):
                async with asyncio.timeout(LEAVE_S):
                    await left.wait()

    def _load(self, loop: asyncio.AbstractEventLoop, loading: asyncio.Future[Serving]) -> Work | None:
        """Loads the model, in its thread; returns its work, or nothing where it cannot be loaded."""
        begin = time.monotonic()
        try:
            with LOADING:
                self._progress.tell()
                import torch

                from services.inference.engines.local.model import load
                from services.inference.engines.local.serving import serve

                with followed(self._progress):
                    model = load(self._name, self._precision)
                torch.set_num_threads(thread_count(self._threads, model.parameter_count))
                serving = serve(
                    model,
                    self._active_max,
                    self._cache_mib,
                    reuses_prefixes=self._reuses_prefixes,
                    drafts=self._drafts,
                    int8=self._precision == "int8",
                    metrics=self._metrics,
                    progress=self._progress,
                )
                self._progress.end()
        except Exception as error:  # whatever keeps a model from loading is told to who waits for it
            loop.call_soon_threadsafe(_settle, loading, _not_loadable(self._name, error))
            return None
        logger.info("local model loaded", extra={"model": self._name, "seconds": round(time.monotonic() - begin, 2)})
        loop.call_soon_threadsafe(_settle, loading, serving)
        return serving.work


def _reading(prompt: Prompt, tool_format: ToolFormat | None) -> Callable[[], ToolCallReader] | None:
    """What reads the calls of tools out of each choice, where there may be any."""
    tools = offered(prompt)
    if tool_format is None or not tools:
        return None
    is_named = prompt.tool_choice is not None and prompt.tool_choice.mode == "named"
    count_max = 1 if is_named or prompt.parallel_tool_calls is False else None
    return partial(ToolCallReader, tool_format, frozenset(tool.name for tool in tools), count_max)


def _cut(job: Job, running: Iterable[int]) -> list[EngineEvent]:
    """The end of an answer at its deadline: what is there, and that it was cut. What is held back stays unsaid.

    Raises:
        DeadlineExceeded: There is nothing yet.
    """
    if not job.usage.completion_token_count:
        raise DeadlineExceeded("DEADLINE_EXCEEDED", "the answer did not begin by the deadline; allow more time")
    events = job.outbox.take_ready()
    if events and isinstance(events[-1], EngineCompleted):
        return events
    cut = set(running) - {event.choice_index for event in events if isinstance(event, ChoiceFinished)}
    ends = [ChoiceFinished(index, FinishReason.DEADLINE) for index in sorted(cut)]
    return [*events, *ends, EngineCompleted(job.usage, target_model=job.name)]


def _settle(loading: asyncio.Future[Serving], result: Serving | Exception) -> None:
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


def _stuck() -> Unavailable:
    problem = "the model hangs within a step, and has to be restarted if it does not come back; ask another one"
    return Unavailable("MODEL_STUCK", problem, retry_after_ms=RETRY_AFTER_MS)


def _exhausted(reason: str, message: str) -> ResourceExhausted:
    return ResourceExhausted(reason, message, retry_after_ms=RETRY_AFTER_MS)
