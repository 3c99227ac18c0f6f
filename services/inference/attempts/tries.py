"""Tries: which target of a call is asked next, and when.

Every candidate once, in order and at once; then, as the retry rule and each target's retry budget allow, again those
whose failure may pass, after a backoff or the wait that the target asked for. Who is known to be down, resting or full
is passed over. It decides and keeps count; it never asks a target.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from kit.errors import Code, DeadlineExceeded, MillraceError, ResourceExhausted, Unavailable
from services.inference.attempts import failure
from services.inference.attempts.backoff import backoff_s
from services.inference.attempts.breaker import Permit
from services.inference.attempts.deadline import NEVER, DeadlineBudget
from services.inference.attempts.targets import TargetState
from services.inference.events import Attempt, AttemptOutcome, Receipt
from services.inference.routing.ordering import longer_than
from services.inference.routing.router import RouteTarget
from services.inference.routing.rules import Rules

StateOf = Callable[[RouteTarget], TargetState]
RETRY_AFTER_MS = 1_000  # what a caller is told where nothing better is known


@dataclass(slots=True)
class Turn:
    """A target whose turn it is: `attempt` is in the receipt, `permit` is the breaker's leave."""

    candidate: RouteTarget
    state: TargetState
    permit: Permit
    attempt: Attempt
    until: float  # instant of the clock by which it must have begun to answer


@dataclass(slots=True)
class _Place:
    """A candidate and what is known of it in this call."""

    candidate: RouteTarget
    state: TargetState
    was_asked: bool = False
    again_at: float = NEVER  # when it may be asked again; never, until its failure says so
    passed_over: str = ""  # why it was not asked, where it was told

    def is_ready(self, now: float) -> bool:
        """Whether it could be asked now."""
        return self.state.rests_until <= now and self.state.breaker.admits()

    def may_follow(self, now: float) -> bool:
        """Whether it waits for its first turn and could have it now."""
        return not self.was_asked and self.is_ready(now)


@dataclass(slots=True)
class Tries:
    """The tries of one call; all that failed or were passed over stand in its receipt.

    Attributes:
        is_hopeless: One has failed for a reason that would be the same everywhere.
    """

    candidates: Sequence[RouteTarget]
    rules: Rules
    state_of: StateOf
    receipt: Receipt
    deadlines: DeadlineBudget
    clock: Callable[[], float]
    draw: Callable[[], float] = random.random
    is_hopeless: bool = False
    _places: list[_Place] = field(init=False)
    _retry_count: int = 0
    _failures: list[MillraceError] = field(default_factory=list)
    _turns: list[Turn] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._places = [_Place(candidate, self.state_of(candidate)) for candidate in self.candidates]

    def take(self) -> Turn | None:
        """The next turn that can be had at once; None where there is none, or one must be waited for."""
        now = self.clock()
        for place in self._places:
            if not place.was_asked and (turn := self._enter(place, now)):
                place.was_asked = True
                place.state.budget.deposit()
                return turn
        due = min(self._waiting(), key=lambda place: place.again_at, default=None)
        if due is None or due.again_at > now:
            return None
        due.again_at = NEVER
        if due.was_asked:
            if not due.state.budget.withdraw():
                return self.take()
            self._retry_count += 1
            due.state.retry_count += 1
        due.was_asked = True
        return self._enter(due, now) or self.take()

    def hedge(self, may_cost: Callable[[RouteTarget], bool]) -> Turn | None:
        """A second turn beside the one that is silent: at the next target, or once more at the only one.

        Args:
            may_cost: Takes leave to pay for a try at a target.
        """
        now = self.clock()
        fresh = [place for place in self._places if not place.was_asked]
        ready = (place for place in fresh or self._places[:1] if place.is_ready(now))
        place = next(ready, None)
        turn = self._enter(place, now) if place and may_cost(place.candidate) else None
        if place and turn:
            place.was_asked = turn.attempt.hedged = True
        return turn

    def wait_until(self) -> float | None:
        """The instant at which a turn can be had, if that is in time; None where no more is to be hoped for."""
        at = min((place.again_at for place in self._waiting()), default=NEVER)
        return at if at < self.deadlines.first_token_at else None

    def failed(self, turn: Turn, error: MillraceError) -> None:
        """Takes note of a try that failed."""
        self._failures.append(error)
        self.is_hopeless = self.is_hopeless or not failure.may_go_elsewhere(error, self.rules)
        if error.reason == failure.RATE_LIMITED and error.retry_after_ms:
            turn.state.rest(error.retry_after_ms / 1000)
        if error.reason == failure.CONTEXT_TOO_LONG:
            longer = longer_than([place.candidate for place in self._places], turn.candidate)
            self._places = [place for place in self._places if place.candidate in longer]
        if failure.may_pass(error):
            self._ask_again(turn, error)

    def close(self) -> None:
        """Gives back the leave of turns that nobody has used: a caller may go between a turn and its try."""
        for turn in self._turns:
            turn.permit.forgotten()
            if turn.attempt.outcome is AttemptOutcome.RUNNING:
                turn.attempt.outcome = AttemptOutcome.CANCELLED

    def final_error(self) -> MillraceError:
        """Why nothing more can be tried: the last failure that may pass, else the last one, else who is left alone."""
        passing = [error for error in self._failures if error.code in failure.ELSEWHERE]
        error = next(reversed(passing or self._failures), None)
        if error is None:
            return self._out_of_time() if self.deadlines.is_over else self._all_passed_over()
        is_untold = error.retry_after_ms is None or len(self._places) > 1  # another may be back before the last one
        if error.code in (Code.UNAVAILABLE, Code.RESOURCE_EXHAUSTED) and is_untold:
            error.retry_after_ms = max(RETRY_AFTER_MS, self._soonest_ms())
        return error

    def _enter(self, place: _Place, now: float) -> Turn | None:
        """A turn at a target, or None where it rests or its breaker is open; the first time, that is noted."""
        if place.state.rests_until > now:
            self._pass_over(place, failure.RATE_LIMITED)
            if place.state.rests_until - now <= self.rules.retries.retry_after_s_max:
                place.again_at = place.state.rests_until
            return None
        permit = place.state.breaker.enter()
        if permit is None:
            self._pass_over(place, failure.BREAKER_OPEN)
            return None
        another_waits = any(one is not place and one.may_follow(now) for one in self._places)
        until = self.deadlines.first_token_until(another_waits)
        turn = Turn(place.candidate, place.state, permit, self._attempt(place.candidate), until)
        self._turns.append(turn)
        return turn

    def _attempt(self, candidate: RouteTarget) -> Attempt:
        target = candidate.target
        attempt = Attempt(len(self.receipt.attempts) + 1, target.engine, target.label)
        self.receipt.attempts.append(attempt)
        return attempt

    def _pass_over(self, place: _Place, reason: str) -> None:
        if place.passed_over == reason:
            return
        place.passed_over = reason
        place.state.skipped_count += 1
        attempt = self._attempt(place.candidate)
        attempt.outcome, attempt.error_reason = AttemptOutcome.SKIPPED, reason

    def _ask_again(self, turn: Turn, error: MillraceError) -> None:
        rule = self.rules.retries
        asked_s = None if error.retry_after_ms is None else error.retry_after_ms / 1000
        if asked_s is not None and asked_s > rule.retry_after_s_max:
            return
        place = next((one for one in self._places if one.candidate is turn.candidate), None)
        if place:
            place.again_at = self.clock() + backoff_s(rule, self._retry_count, asked_s, self.draw)

    def _soonest_ms(self) -> int:
        """When the first of the targets could be asked again."""
        return int(min((place.state.retry_after_s() for place in self._places), default=0.0) * 1000)

    def _waiting(self) -> list[_Place]:
        """Who can be asked later: those who rest, and as often as the rule says those who have failed."""
        may_retry = self._retry_count < self.rules.retries.retries_max
        return [
            place
            for place in self._places
            if place.again_at < NEVER and (may_retry or not place.was_asked) and place.state.breaker.admits()
        ]

    def _out_of_time(self) -> MillraceError:
        return DeadlineExceeded("DEADLINE_EXCEEDED", "the time was over before a target could be asked; allow more")

    def _all_passed_over(self) -> MillraceError:
        retry_after_ms = max(1, self._soonest_ms())
        if any(place.passed_over == failure.BREAKER_OPEN for place in self._places):
            message = f"every target of the model has failed lately and is left alone; retry after {retry_after_ms} ms"
            return Unavailable(failure.BREAKER_OPEN, message, retry_after_ms=retry_after_ms)
        message = f"every target of the model is rate limited; retry after {retry_after_ms} ms"
        return ResourceExhausted(failure.RATE_LIMITED, message, retry_after_ms=retry_after_ms)
