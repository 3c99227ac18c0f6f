"""How far a model is that is being loaded, for whoever waits for it: as a figure, and in the log.

Two halves. transformers counts the tensors of a checkpoint for its own progress bar, which is replaced by this count;
those that need no conversion are but mapped into memory then. So the layers count as well that are laid out for the
processor, which is when such a file is read. It knows nothing of a download, which comes before.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

logger = logging.getLogger(__name__)

T = TypeVar("T")

LOG_INTERVAL_S = 2.0
STAGES = 2
# What transformers calls its bar.
WEIGHTS = "Loading weights"


class Progress:
    """Of one model. Written by the thread that loads it, read by any: one float is never half written."""

    def __init__(
        self, name: str, clock: Callable[[], float] = time.monotonic, log_interval_s: float = LOG_INTERVAL_S
    ) -> None:
        """`clock` in seconds, monotonic; the log has one line at most in each interval."""
        self._name, self._clock, self._log_interval_s = name, clock, log_interval_s
        self._log_at = clock() + log_interval_s
        self._stage = 0
        self.share = 0.0
        """Of both halves, 0 to 1."""

    def count(self, parts: Collection[T]) -> Iterator[T]:
        """Passes the parts of the next half through, and counts what has been dealt with."""
        begun, self._stage = self._stage / STAGES, self._stage + 1
        for done_count, part in enumerate(parts, 1):
            yield part
            # A half that was begun anew, in another way, tells no more than all.
            self.share = min(begun + done_count / len(parts) / STAGES, 1.0)
            if (now := self._clock()) >= self._log_at:
                self._log_at = now + self._log_interval_s
                self.tell()

    def end(self) -> None:
        """All is there; a half that a model has no need of included."""
        self.share = 1.0

    def tell(self) -> None:
        """Says in the log how far it is."""
        facts = {"model": self._name, "loaded_share": round(self.share, 3)}
        logger.info("loading %s: %.0f %%", self._name, 100 * self.share, extra=facts)


@contextmanager
def followed(progress: Progress) -> Iterator[None]:
    """Tells how a model comes on that transformers loads meanwhile; one at a time in a process (`machine.LOADING`)."""
    from transformers.utils.logging import set_tqdm_hook

    def make_bar(bar: Callable[..., Any], args: tuple[Any, ...], settings: dict[str, Any]) -> Any:
        return progress.count(args[0]) if settings.get("desc") == WEIGHTS else bar(*args, **settings)

    before = set_tqdm_hook(make_bar)
    try:
        yield
    finally:
        set_tqdm_hook(before)
