"""One choice of a request as the scheduler sees it: its tokens, and how many of them the cache holds."""

from __future__ import annotations

from dataclasses import dataclass

from services.inference.engines.local.drafts import Drafter
from services.inference.engines.local.extents import Extent


@dataclass(eq=False, slots=True)
class Sequence:
    """A growing list of tokens.

    Attributes:
        token_ids: The prompt and what was generated.
        prompt_count: Tokens of the prompt.
        token_count_max: Most tokens of prompt and answer together.
        tenant: Who asks; tenants share the model evenly.
        priority: Higher goes first.
        number: The order of arrival; given by the scheduler.
        leader: Another choice of the same request, whose prompt this one copies.
        extent: Its place in the cache; None while it waits.
        computed_count: Tokens that the cache holds.
        reused_count: Tokens of the prompt that were copied and not computed.
        is_paused: Whether its reader has fallen behind.
        drafter: Guesses how it goes on; None before the first guess, and once it has ended.
    """

    token_ids: list[int]
    prompt_count: int
    token_count_max: int
    tenant: str = ""
    priority: int = 0
    number: int = 0
    leader: Sequence | None = None
    extent: Extent | None = None
    computed_count: int = 0
    reused_count: int = 0
    is_paused: bool = False
    drafter: Drafter | None = None

    @property
    def pending_count(self) -> int:
        """Tokens that are not computed yet; 1 for a sequence that decodes."""
        return len(self.token_ids) - self.computed_count

    @property
    def rank(self) -> tuple[int, int]:
        """Its place among others; the lower goes first and is preempted last."""
        return (-self.priority, self.number)
