"""A reservation: what a request may use, taken before the work and settled once by what the work took.

Open -> Settled | Released | Expired, and the first transition wins: here for this process, in the store for all. It
never waits: what it decides is carried out behind its back.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum

from services.inference.generation import Usage
from services.inference.quota.limit import Claim, Window, amount_in

Amounts = tuple[int, ...]
End = Callable[["Reservation", Amounts], None]


class State(Enum):
    """How far a reservation has come; all but the first are final."""

    OPEN = "open"
    SETTLED = "settled"
    RELEASED = "released"
    EXPIRED = "expired"


class Reservation:
    """What was reserved for one request.

    Args:
        claim: What is held.
        end: Carries out the end, once.

    Attributes:
        progress: Tells the usage and the cost so far, where they are known, for what a lost process leaves behind.
    """

    def __init__(self, claim: Claim, end: End) -> None:
        self.claim = claim
        self.state = State.OPEN
        self.progress: Callable[[], tuple[Usage, int] | None] = lambda: None
        self._end = end

    def settle(self, usage: Usage, cost_micro_usd: int | None) -> None:
        """Charges what was really used, be it more than what was reserved; an unknown price (None) is no charge."""
        self._close(State.SETTLED, usage, cost_micro_usd or 0)

    def release(self) -> None:
        """Charges nothing: no work was done. That the request came still counts."""
        self._close(State.RELEASED, Usage(), 0)

    def expire(self) -> None:
        """Notes that the store has given it up, because nothing was heard of it for too long."""
        if self.state is State.OPEN:
            self.state = State.EXPIRED

    def used(self, usage: Usage, cost_micro_usd: int) -> Amounts:
        """So much of each limit of the claim."""
        tokens = usage.prompt_token_count + usage.completion_token_count
        return tuple(
            [
                0 if limit.window is Window.AT_ONCE else amount_in(limit.unit, amount, tokens, cost_micro_usd)
                for limit, amount in zip(self.claim.limits, self.claim.amounts, strict=True)
            ]
        )

    def _close(self, state: State, usage: Usage, cost_micro_usd: int) -> None:
        if self.state is not State.OPEN:
            return
        self.state = state
        self._end(self, self.used(usage, cost_micro_usd))
