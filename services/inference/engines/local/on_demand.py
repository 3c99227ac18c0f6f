"""A local model that is loaded by the first call that needs it, and let go when nobody has used it for a while.

Many models can be in the models file where few fit into memory. Whoever comes while one is being loaded waits a little,
then is told to come back (or goes to the next target); the loading goes on. A model in use is never let go. It knows
nothing of what it holds but how that is loaded, asked and closed.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import Any

from kit.errors import MillraceError, Unavailable
from kit.process import give_memory_back
from services.inference.generation import EngineEvent, Prompt, Usage

log = logging.getLogger(__name__)

# Less than the time to a first token that routes give unless they say otherwise (10 s): a load that takes longer counts
# as such, and not as a target that is silent.
LOAD_WAIT_S = 6.0
RETRY_AFTER_MS = 2_000


class OnDemand:
    """Stands for an engine or an embedder, which `make` makes anew each time that it is needed."""

    kind = "local"
    streams = True

    def __init__(
        self, make: Callable[[], Any], *, idle_s: float = 0.0, loads_at_start: bool = False, wait_s: float = LOAD_WAIT_S
    ) -> None:
        """Args: how it is made; how long it may be idle (0: for ever); whether `warm` loads it; how long calls wait."""
        self._make, self._idle_s, self._loads_at_start, self._wait_s = make, idle_s, loads_at_start, wait_s
        self._loading: asyncio.Task[Any] | None = None
        self._made: Any = None  # while it is being loaded
        self._closing: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._lent_count = 0
        self._is_closed = False

    @property
    def is_loaded(self) -> bool:
        """Whether a call would be answered at once."""
        return self._loading is not None and self._loading.done()

    @property
    def is_loading(self) -> bool:
        """Whether it is being loaded."""
        return self._loading is not None and not self._loading.done()

    @property
    def loaded_share(self) -> float | None:
        """How far the model is, 0 to 1, while it is being loaded; None where that is not known."""
        share: float | None = getattr(self._made, "loaded_share", None)
        return share

    async def warm(self) -> None:
        """Loads the model, where that is not left to the first call; raises as the engine does."""
        if self._loads_at_start:
            await asyncio.shield(self._load())
            self._rest()

    async def generate(self, prompt: Prompt, deadline: float | None) -> AsyncGenerator[Sequence[EngineEvent], None]:
        """Streams an answer, as the engine does; MODEL_LOADING where that is not there in time."""
        async with self._lent() as engine, aclosing(engine.generate(prompt, deadline)) as batches:
            async for batch in batches:
                yield batch

    async def count_tokens(self, prompt: Prompt) -> int:
        """Counts the prompt's tokens, as the engine does."""
        async with self._lent() as engine:
            count: int = await engine.count_tokens(prompt)
            return count

    async def embed(
        self, model: str, texts: Sequence[str], dimension_count: int | None, deadline: float | None
    ) -> tuple[list[list[float]], Usage]:
        """Embeds texts, as the embedder does."""
        async with self._lent() as embedder:
            embedded: tuple[list[list[float]], Usage] = await embedder.embed(model, texts, dimension_count, deadline)
            return embedded

    async def close(self) -> None:
        """Stops the work in hand and frees everything; a load that has begun is given up."""
        self._is_closed = True
        self._let_go()
        if self._closing:
            await self._closing

    @asynccontextmanager
    async def _lent(self) -> AsyncIterator[Any]:
        """Lends what is loaded; it is not let go meanwhile.

        Raises:
            Unavailable: MODEL_LOADING, MODEL_UNAVAILABLE or SHUTTING_DOWN.
        """
        self._lent_count += 1
        try:
            yield await self._ready()
        finally:
            self._lent_count -= 1
            self._rest()

    async def _ready(self) -> Any:
        loading = self._load()
        try:
            async with asyncio.timeout(self._wait_s):
                return await asyncio.shield(loading)
        except TimeoutError:
            problem = "the model is being loaded; retry"
            raise Unavailable("MODEL_LOADING", problem, retry_after_ms=RETRY_AFTER_MS) from None
        except asyncio.CancelledError:
            if not loading.cancelled():  # the caller has left
                raise
            raise _shutting_down() from None
        except MillraceError as error:
            raise Unavailable("MODEL_UNAVAILABLE", "the model could not be loaded; the log says why") from error

    def _load(self) -> asyncio.Task[Any]:
        if self._is_closed:
            raise _shutting_down()
        if self._timer:
            self._timer.cancel()
        if self._loading is None:
            self._loading = asyncio.create_task(self._loaded(self._closing))
            self._loading.add_done_callback(self._check)
        return self._loading

    async def _loaded(self, closing: asyncio.Task[None] | None) -> Any:
        if closing:
            await closing  # two of a kind might not fit into memory
        engine = self._made = self._make()
        try:
            await engine.warm()
        except BaseException:
            await engine.close()
            raise
        finally:
            self._made = None
        return engine

    def _check(self, loading: asyncio.Task[Any]) -> None:
        """Forgets a load that has failed: the next call tries again."""
        if loading.cancelled() or loading.exception() is None:
            return
        log.error("model could not be loaded", exc_info=loading.exception())
        if self._loading is loading:
            self._loading = None

    def _rest(self) -> None:
        """Lets go of what nobody uses, after a while."""
        if self._timer:
            self._timer.cancel()
        if self._idle_s and not self._lent_count and self._loading is not None:
            self._timer = asyncio.get_running_loop().call_later(self._idle_s, self._idle)

    def _idle(self) -> None:
        if self.is_loading:
            self._rest()
        else:
            log.info("model let go: nobody has used it for a while", extra={"idle_s": self._idle_s})
            self._let_go()

    def _let_go(self) -> None:
        if self._timer:
            self._timer.cancel()
        loading, self._loading = self._loading, None
        if loading is not None:
            self._closing = asyncio.create_task(_close(loading))


async def _close(loading: asyncio.Task[Any]) -> None:
    if not loading.done():
        loading.cancel()
        await asyncio.wait([loading])
    elif not loading.cancelled() and loading.exception() is None:
        await loading.result().close()
        del loading
        await asyncio.to_thread(give_memory_back)  # what computes and what it has computed hold each other


def _shutting_down() -> Unavailable:
    return Unavailable("SHUTTING_DOWN", "the service is stopping; retry elsewhere", retry_after_ms=RETRY_AFTER_MS)
