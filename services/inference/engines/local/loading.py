"""How much of a model's weights has been read, for whoever waits for it: as a figure, and in the log.

transformers counts the tensors that it has read for its own progress bar; here the bar is replaced by this count. It
knows nothing of a download, which comes before, nor of how the weights are laid out for the processor, which comes
after.
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
# What transformers calls its bar.
WEIGHTS = "Loading weights"


class Progress:
    """Of one model. Written by the thread that loads it, read by any: one float is never half written."""

    def __init__(
        self, name: str, clock: Callable[[], float] = time.monotonic, log_interval_s: float = LOG_INTERVAL_S
    ) -> None:
        """`clock` in seconds, monotonic; the log has one line at most in each interval."""
        self._name, self._clock, self._log_interval_s = name, clock, log_interval_s
        self.share = 0.0
        """Tensors that have been read among those of the checkpoint, 0 to 1."""

    def count(self, tensors: Collection[T]) -> Iterator[T]:
        """Passes tensors through, and tells how many have been dealt with."""
        log_at = self._clock() + self._log_interval_s
        for read_count, tensor in enumerate(tensors, 1):
            yield tensor
            self.share = read_count / len(tensors)
            if (now := self._clock()) >= log_at:
                log_at = now + self._log_interval_s
                self.tell()

    def tell(self) -> None:
        """Says in the log how far it is."""
        facts = {"model": self._name, "loaded_share": round(self.share, 3)}
        logger.info("loading %s: %.0f %% of its weights", self._name, 100 * self.share, extra=facts)


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
