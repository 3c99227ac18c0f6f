"""Embedding: texts to vectors, under the same door and by the same attempts as generations.

An embedder is asked like an engine whose answer is one event, so that order, retries, breakers, queues and receipts are
the same. Neither cache nor safety takes part: vectors are cheap to compute again, and they say nothing to anybody.
"""

from __future__ import annotations

import math
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AbstractContextManager, aclosing, nullcontext
from dataclasses import replace

from services.inference.access.permission import check_model
from services.inference.accounting.settlement import Settlement
from services.inference.admission import Admission
from services.inference.attempts.attempt import Observe
from services.inference.attempts.attempts import Attempts
from services.inference.attempts.targets import Targets
from services.inference.engine import Embedder, Source
from services.inference.events import Receipt
from services.inference.generation import EngineCompleted, Prompt
from services.inference.request import Request
from services.inference.routing.catalog import Target
from services.inference.routing.router import Route, Router

TEXTS_AT_ONCE = 64  # for so many texts, or part of them, an embedder has the time to a first token once


class Embedded(EngineCompleted):
    """One vector per text, in order, and what it used."""

    vectors: Sequence[list[float]] = ()


class Embeddings:
    """Embeds texts.

    Args:
        admission: The door.
        router: Chooses the targets.
        targets: What is known of each target, and its queue.
        embedder_for: Finds the embedder of a target.
        observe: Watches each attempt.
        settlement: Counts what was used.
    """

    def __init__(
        self,
        admission: Admission,
        router: Router,
        targets: Targets,
        embedder_for: Callable[[Target], Embedder],
        observe: Observe,
        settlement: Settlement,
    ) -> None:
        self._admission, self._router, self._targets = admission, router, targets
        self._embedder_for, self._observe, self._settlement = embedder_for, observe, settlement

    async def embed(
        self, request: Request, texts: Sequence[str], dimension_count: int | None, receipt: Receipt
    ) -> Embedded:
        """Embeds texts.

        Args:
            request: Who asks, for which model and until when; the prompt is empty.
            texts: 1 to 2,048.
            dimension_count: Length of the vectors; None means the model's own.
            receipt: Filled in as the request goes.
        Raises:
            MillraceError: Why no target answered.
        """

        def use(target: Target) -> AbstractContextManager[Source]:
            return nullcontext(_Texts(self._embedder_for(target), texts, dimension_count))

        attempts = Attempts(self._targets, use, self._observe, self._settlement.begin)
        with self._admission.admit(), self._router.hold():
            check_model(request.caller, [request.model])
            route = _with_time_for(len(texts), self._router.choose_embedding(request.model))
            receipt.model, receipt.created_time = route.model_name, time.time()
            receipt.kind = "embedding"
            with self._settlement.settle(request, receipt):
                await self._admission.quotas.admit_texts(request, texts, route, receipt)
                async with aclosing(attempts.run(request, route, receipt)) as batches:
                    async for batch in batches:
                        last = batch[-1]
        assert isinstance(last, Embedded)
        return last


class _Texts:
    """The texts of one call before one embedder: a source whose answer is one event."""

    streams = True  # so that an attempt's own deadline holds for its answer, and not the total one alone

    def __init__(self, embedder: Embedder, texts: Sequence[str], dimension_count: int | None) -> None:
        self._embedder, self._texts, self._dimension_count = embedder, texts, dimension_count

    async def generate(self, prompt: Prompt, deadline: float | None) -> AsyncGenerator[Sequence[EngineCompleted], None]:
        vectors, used = await self._embedder.embed(prompt.model, self._texts, self._dimension_count, deadline)
        yield [Embedded(used, vectors=vectors)]


def _with_time_for(text_count: int, route: Route) -> Route:
    """The route with time for so many texts: they come all at once, after as many times that to a first token."""
    deadlines = route.rules.deadlines
    ttft_s = min(deadlines.ttft_s * math.ceil(text_count / TEXTS_AT_ONCE), deadlines.total_s)
    patient = deadlines.model_copy(update={"ttft_s": ttft_s})
    return replace(route, rules=route.rules.model_copy(update={"deadlines": patient}))
