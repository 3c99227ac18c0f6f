"""Embedding: texts to vectors, by the first target of the model that answers; counted like a generation.

Neither cache nor safety takes part: vectors are cheap to compute again, and they say nothing to anybody.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import NamedTuple

from kit.errors import MillraceError
from services.inference import failure
from services.inference.admission import Admission
from services.inference.catalog import Target
from services.inference.engine import Embedder
from services.inference.events import Receipt
from services.inference.generation import Usage
from services.inference.routing import Router, RouteTarget
from services.inference.settlement import Settlement

ObserveEmbedding = Callable[[str, RouteTarget], AbstractContextManager[Callable[[Usage], None]]]


class Embedded(NamedTuple):
    """One vector per text, in order; who answered, and what it used."""

    model_name: str
    vectors: list[list[float]]
    usage: Usage


class Embeddings:
    """Embeds texts under the same door as generations."""

    def __init__(
        self,
        admission: Admission,
        router: Router,
        embedder_for: Callable[[Target], Embedder],
        observe: ObserveEmbedding,
        settlement: Settlement,
    ) -> None:
        self._admission, self._router, self._embedder_for = admission, router, embedder_for
        self._observe, self._settlement = observe, settlement

    async def embed(
        self, request_id: str, model: str, texts: Sequence[str], dimension_count: int | None, deadline: float | None
    ) -> Embedded:
        """Embeds texts.

        Args:
            request_id: For spans.
            model: Public name of an embedding model.
            texts: 1 to 2,048.
            dimension_count: Length of the vectors; None means the model's own.
            deadline: `time.monotonic()` instant; None means no bound.
        Raises:
            MillraceError: The last target's failure, or the first that would happen at every target.
        """
        with self._admission.admit(), self._router.hold():
            route = self._router.choose_embedding(model)
            receipt = Receipt(request_id, route.model_name, created_time=time.time())
            with self._settlement.settle(receipt):
                *others, last = route.targets
                for candidate in others:
                    try:
                        return await self._attempt(receipt, candidate, texts, dimension_count, deadline)
                    except MillraceError as error:
                        if not failure.may_go_elsewhere(error, route.rules):
                            raise
                return await self._attempt(receipt, last, texts, dimension_count, deadline)

    async def _attempt(
        self,
        receipt: Receipt,
        candidate: RouteTarget,
        texts: Sequence[str],
        dimension_count: int | None,
        deadline: float | None,
    ) -> Embedded:
        with self._observe(receipt.request_id, candidate) as see:
            embedder = self._embedder_for(candidate.target)
            vectors, used = await embedder.embed(candidate.target_model, texts, dimension_count, deadline)
            see(used)
        receipt.usage, receipt.cost_micro_usd = used, candidate.target.cost_micro_usd(used)
        return Embedded(receipt.model, vectors, used)
