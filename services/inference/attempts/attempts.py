"""Attempts: one target after another until one answers, within the deadlines of the call.

Trying again is free until the first delta has left; after it the target never changes. A caller who does not read
along has seen nothing until all is there, so for it another target may answer however late the first one broke.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass

from kit.errors import MillraceError
from services.inference.attempts.attempt import Answer, Asking, Observe, UseEngine
from services.inference.attempts.deadline import DeadlineBudget
from services.inference.attempts.hedging import Race
from services.inference.attempts.targets import Targets, TargetState
from services.inference.attempts.tries import Tries, Turn
from services.inference.events import Attempt, AttemptEvent, AttemptOutcome, Receipt
from services.inference.generation import EngineEvent, Usage
from services.inference.request import Request
from services.inference.routing.ordering import order
from services.inference.routing.router import Route, RouteTarget

Batch = Sequence[EngineEvent] | Sequence[AttemptEvent]
Begin = Callable[[Request, Receipt, Attempt], None]
HEDGE_LOST = "HEDGE_LOST"
TOKEN_COUNT_EXPECTED = 256  # of an answer whose length is not bounded, for what a hedge may cost


def unrecorded(request: Request, receipt: Receipt, attempt: Attempt) -> None:
    """Takes no note of an attempt."""


@dataclass(frozen=True, slots=True)
class _Call:
    """One call and its tries."""

    request: Request
    route: Route
    tries: Tries


class Attempts:
    """Runs requests on the targets of their routes.

    Args:
        targets: What is known of each target, and its queue.
        use_engine: Lends the engine of a target.
        observe: Watches each attempt.
        begin: Takes note of each attempt before anybody is told of it.
    """

    def __init__(
        self,
        targets: Targets,
        use_engine: UseEngine,
        observe: Observe,
        begin: Begin = unrecorded,
        clock: Callable[[], float] = time.monotonic,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self._targets, self._use_engine, self._observe, self._take_note = targets, use_engine, observe, begin
        self._clock, self._draw = clock, draw

    async def run(self, request: Request, route: Route, receipt: Receipt) -> AsyncGenerator[Batch, None]:
        """Streams the answer of the first target that gives one.

        Every try is written into `receipt.attempts`, and told as an event when it begins and when it ends without an
        answer.

        Raises:
            MillraceError: Why no target answered, or one that broke after the first delta.
        """
        call = self._begin(request, route, receipt)
        tries, told = call.tries, 0
        try:
            while True:
                turn = await _next_turn(tries)
                self._note(call, turn)
                yield [AttemptEvent(attempt) for attempt in receipt.attempts[told:]]
                told = len(receipt.attempts)
                has_left = False
                whole: list[EngineEvent] = []  # of a caller who reads nothing before all is there: nothing has left
                try:
                    async with aclosing(self._answer(call, turn)) as batches:
                        async for batch in batches:
                            if not request.prompt.streamed:
                                whole += batch
                                continue
                            if not has_left and len(receipt.attempts) > told:
                                yield [AttemptEvent(attempt) for attempt in receipt.attempts[told - 1 :]]
                            has_left = True
                            yield batch
                    if whole:
                        yield whole
                    return
                except MillraceError:
                    if has_left or tries.is_hopeless:
                        raise
                if whole:
                    tries.deadlines.restart()
                yield [AttemptEvent(attempt) for attempt in receipt.attempts[told - 1 :]]
                told = len(receipt.attempts)
        finally:
            tries.close()

    def _begin(self, request: Request, route: Route, receipt: Receipt) -> _Call:
        def state_of(candidate: RouteTarget) -> TargetState:
            return self._targets.of(candidate, route.rules)

        candidates = order(route, request, state_of, self._draw)
        deadlines = DeadlineBudget(route.rules.deadlines, request, self._clock)
        tries = Tries(candidates, route.rules, state_of, receipt, deadlines, self._clock, self._draw)
        return _Call(request, route, tries)

    def _answer(self, call: _Call, turn: Turn) -> Answer:
        return self._hedged(call, turn) if call.route.rules.hedging.enabled else self._ask(call, turn)

    def _ask(self, call: _Call, turn: Turn) -> Answer:
        return Asking(call.request, turn, call.tries, self._use_engine, self._observe).run()

    async def _hedged(self, call: _Call, turn: Turn) -> Answer:
        """The answer of the target whose turn it is, or of a second one where that begins sooner."""
        rule = call.route.rules.hedging
        turn.state.hedges.called(rule)
        delay_s = turn.state.first_tokens.p95_s() if rule.delay_s is None else rule.delay_s
        async with Race(self._ask(call, turn)) as race:
            if delay_s is not None and not await race.has_begun(delay_s) and (second := self._second(call, turn)):
                race.add(self._ask(call, second))
            first = await race.decide(lambda: call.tries.is_hopeless)
            for attempt in call.tries.receipt.attempts:
                if attempt.outcome is AttemptOutcome.CANCELLED:
                    attempt.error_reason = HEDGE_LOST
            yield first
            async for batch in race.winner:
                yield batch

    def _second(self, call: _Call, turn: Turn) -> Turn | None:
        """A second turn, where one can be had and paid."""
        asked, rule = call.request.prompt, call.route.rules.hedging
        expected = Usage(call.request.char_count // 4, asked.sampling.max_tokens or TOKEN_COUNT_EXPECTED)

        def may_cost(candidate: RouteTarget) -> bool:
            cost_micro_usd = candidate.target.cost_micro_usd(expected)
            return turn.state.hedges.take(rule, None if cost_micro_usd is None else cost_micro_usd / 1_000_000)

        second = call.tries.hedge(may_cost)
        if second:
            second.state.hedge_count += 1
            self._note(call, second)
        return second

    def _note(self, call: _Call, turn: Turn) -> None:
        turn.attempt.target_model, turn.attempt.created_time = turn.candidate.target_model, time.time()
        self._take_note(call.request, call.tries.receipt, turn.attempt)


async def _next_turn(tries: Tries) -> Turn:
    """The next turn, waited for where one is due in time.

    Raises:
        MillraceError: There is none; why the call has failed.
    """
    while not tries.deadlines.is_over:
        if turn := tries.take():
            return turn
        at = tries.wait_until()
        if at is None:
            break
        await asyncio.sleep(at - tries.clock())
    raise tries.final_error()
