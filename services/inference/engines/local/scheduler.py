"""Decides what each step computes: who decodes, whose prompt is read on, who joins, and who gives way.

Every sequence that decodes gets its token in every step; what the budget leaves goes to prompts, a piece at a time, so
that a long prompt slows running answers by a bounded factor. Higher priorities join first, then the tenant that was
served least (the virtual token counter of Sheng et al. 2024, "Fairness in Serving Large Language Models"), then the
eldest. When the cache is full the last in rank loses its place and is computed again later. Pure: it knows no torch, no
clock and no thread.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from itertools import pairwise

from services.inference.engines.local.drafts import Drafter, Guess
from services.inference.engines.local.extents import Extent, Extents
from services.inference.engines.local.prefixes import BLOCK_TOKENS, Prefixes
from services.inference.engines.local.sequence import Sequence

# Positions taken beyond the prompt at first: most answers need no second place.
GROWTH_TOKENS = 64
# How many times as likely a guess for the slowest answer counts; for one that is twice as fast, a quarter of that.
# By turns with all guesses alike, a GPT-2 in int8: 32 answers that begin at once are over 14 % sooner, 8 answers 4 %,
# and on average they end as soon.
URGENCY_MAX = 1.5

Ids = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Row:
    """Tokens `begin` to `begin + count` of a sequence, to be computed in one step, and guesses of those after them."""

    sequence: Sequence
    begin: int
    count: int
    draft_ids: Ids = ()

    @property
    def end(self) -> int:
        """Where the tokens end, the guesses included."""
        return self.begin + self.count + len(self.draft_ids)

    @property
    def token_ids(self) -> list[int]:
        """The tokens, the guesses included."""
        return [*self.sequence.token_ids[self.begin : self.begin + self.count], *self.draft_ids]

    @property
    def gives_token(self) -> bool:
        """Whether the next token can be drawn after it."""
        return self.begin + self.count == len(self.sequence.token_ids)


@dataclass(frozen=True, slots=True)
class Copy:
    """`count` positions of the cache that are copied before the step."""

    source: int
    target: int
    count: int


@dataclass(slots=True)
class Plan:
    """One step: copies in their order, then all rows at once."""

    rows: list[Row] = field(default_factory=list)
    copies: list[Copy] = field(default_factory=list)

    @property
    def token_count(self) -> int:
        """Tokens that the step computes, but for guesses."""
        return sum(row.count for row in self.rows)

    @property
    def draft_count(self) -> int:
        """Guesses that it computes."""
        return sum(len(row.draft_ids) for row in self.rows)


class Scheduler:
    """The queue, the batch and the cache's positions of one model."""

    def __init__(
        self,
        token_count: int,
        row_count_max: int,
        step_token_count: Callable[[int, int, int], int],
        *,
        reuses_prefixes: bool = True,
        growth_token_count: int = GROWTH_TOKENS,
        draft_count: Callable[[int, list[float]], int] | None = None,
    ) -> None:
        """Makes an empty one.

        Args:
            token_count: Positions of the cache.
            row_count_max: Sequences that run at once.
            step_token_count: Tells from the count of those that decode, of all that run or wait (not more than can
                run), and of all tokens of prompts that are still to be read, how many tokens a step may compute.
            reuses_prefixes: Whether sequences that begin alike share the work.
            growth_token_count: Positions that a sequence gets beyond its tokens when it joins.
            draft_count: Tells from the count of those that decode, and from how much each guess is worth, the best
                first, how many guesses a step without prompts computes; None: nothing is guessed.
        """
        self.extents = Extents(token_count)
        self.waiting: list[Sequence] = []
        self.running: list[Sequence] = []
        self.preemption_count = 0
        self._row_count_max = row_count_max
        self._growth_token_count = growth_token_count
        self._step_token_count = step_token_count
        self._draft_count = draft_count
        self._prefixes = Prefixes() if reuses_prefixes else None
        self._kept: dict[Sequence, None] = {}  # ended, but their tokens may be of use; least recently used first
        self._served: dict[str, int] = {}
        self._arrival_count = 0

    @property
    def used_token_count(self) -> int:
        """Positions held by sequences that run."""
        return sum(sequence.extent.size for sequence in self.running if sequence.extent)

    def add(self, sequence: Sequence) -> None:
        """Queues a sequence."""
        self._arrival_count += 1
        sequence.number = self._arrival_count
        if sequence.tenant not in self._served:  # who comes back starts level with the one served least
            self._served[sequence.tenant] = min(self._served.values(), default=0)
        self.waiting.append(sequence)

    def remove(self, sequence: Sequence, *, is_spoilt: bool = False) -> None:
        """Takes a sequence out that has ended or is not wanted any more; its place is free from now on.

        What was computed of it may be of use to others, unless it `is_spoilt`.
        """
        sequence.drafter = None
        if sequence in self.waiting:
            self.waiting.remove(sequence)
        elif sequence in self.running:
            self.running.remove(sequence)
            if is_spoilt or self._prefixes is None or sequence.computed_count < BLOCK_TOKENS:
                self._free(sequence)
            else:
                self._kept[sequence] = None
        if not any(other.tenant == sequence.tenant for other in (*self.running, *self.waiting)):
            self._served.pop(sequence.tenant, None)

    def schedule(self) -> Plan:
        """Plans the next step; `complete` must follow once it was computed."""
        plan = Plan()
        self._plan_decodes(plan)
        decode_count = len(plan.rows)
        in_play = min(self._active_count() + len(self.waiting), self._row_count_max)
        unread = sum(count for one in (*self.running, *self.waiting) if (count := one.pending_count) > 1)
        budget = self._step_token_count(decode_count, in_play, unread) - decode_count
        budget = self._plan_prefills(plan, budget)
        self._admit(plan, budget)
        if self._draft_count is not None and len(plan.rows) == decode_count:
            plan.rows = _with_drafts(plan.rows, self._draft_count)
        return plan

    def complete(self, plan: Plan) -> None:
        """Books what a step has computed."""
        for row in plan.rows:
            sequence = row.sequence
            sequence.computed_count = row.begin + row.count
            self._served[sequence.tenant] += row.count
            if self._prefixes is not None:
                self._prefixes.add(sequence)

    def accept(self, sequence: Sequence) -> None:
        """Books a guess of the last step that was right."""
        sequence.computed_count += 1
        self._served[sequence.tenant] += 1

    def check(self) -> None:
        """Asserts that no position is held twice or lost; for tests."""
        held = [sequence.extent for sequence in (*self.running, *self._kept)]
        assert all(held), "a sequence runs without a place"
        places = sorted((extent for extent in held if extent), key=lambda extent: extent.start)
        assert all(a.start + a.size <= b.start for a, b in pairwise(places)), "places overlap"
        assert sum(extent.size for extent in places) + self.extents.free_token_count == self.extents.token_count
        assert all(sequence.extent is None for sequence in self.waiting), "who waits holds a place"
        assert all(sequence.extent and sequence.computed_count <= sequence.extent.size for sequence in self.running), (
            "a sequence is longer than its place"
        )

    def _active_count(self) -> int:
        return sum(not sequence.is_paused for sequence in self.running)

    def _plan_decodes(self, plan: Plan) -> None:
        """Gives each that decodes its token, best rank first: who must give way comes after who stays."""
        for sequence in sorted(self.running, key=lambda one: one.rank):
            decodes = sequence.extent is not None and sequence.pending_count == 1 and not sequence.is_paused
            if decodes and self._has_room(sequence, plan):
                plan.rows.append(Row(sequence, sequence.computed_count, 1))

    def _plan_prefills(self, plan: Plan, budget: int) -> int:
        """Reads on in the prompts of those that run; returns what is left of the budget."""
        for sequence in self.running:
            if budget > 0 and sequence.pending_count > 1 and not sequence.is_paused:
                count = min(sequence.pending_count, budget)
                plan.rows.append(Row(sequence, sequence.computed_count, count))
                budget -= count
        return budget

    def _admit(self, plan: Plan, budget: int) -> None:
        while budget > 0 and self._active_count() < self._row_count_max:
            sequence = min(self._admissible(), key=self._order, default=None)
            if sequence is None:
                return
            extent = self._place(sequence, plan)
            if extent is None:
                if not self._preempt_paused():
                    return
                continue
            sequence.extent = extent
            self.waiting.remove(sequence)
            self.running.append(sequence)
            count = min(sequence.pending_count, budget)
            plan.rows.append(Row(sequence, sequence.computed_count, count))
            budget -= count

    def _admissible(self) -> Iterator[Sequence]:
        """Those that may join: a choice waits until its leader has read the prompt that both have."""
        for sequence in self.waiting:
            leader = sequence.leader
            leads = leader is not None and (leader in self.waiting or leader in self.running)
            if not sequence.is_paused and not (leads and leader and leader.computed_count < leader.prompt_count):
                yield sequence

    def _order(self, sequence: Sequence) -> tuple[int, int, int]:
        return (-sequence.priority, self._served[sequence.tenant], sequence.number)

    def _place(self, sequence: Sequence, plan: Plan) -> Extent | None:
        """Finds a place for a sequence that joins, and copies into it what another has computed of its beginning."""
        wanted = min(len(sequence.token_ids) + self._growth_token_count, sequence.token_count_max)
        shared = self._shared(sequence)
        if shared and shared[0] in self._kept:
            self._kept[shared[0]] = self._kept.pop(shared[0])  # the last to be evicted now
        extent = self._take(wanted, spare=shared[0] if shared else None)
        if extent and shared and shared[0].extent:
            source, count = shared
            assert source.extent
            plan.copies.append(Copy(source.extent.start, extent.start, count))
            sequence.computed_count = sequence.reused_count = count
        return extent

    def _shared(self, sequence: Sequence) -> tuple[Sequence, int] | None:
        leader = sequence.leader
        if leader is not None and leader.extent is not None and len(sequence.token_ids) == sequence.prompt_count:
            count = min(leader.computed_count, sequence.prompt_count - 1)
            return (leader, count) if count > 0 else None
        return self._prefixes.find(sequence) if self._prefixes is not None else None

    def _take(self, token_count: int, spare: Sequence | None = None) -> Extent | None:
        """Takes an extent; drops kept tokens as needed, those of `spare` last."""
        extent = self.extents.take(token_count)
        while extent is None and self._kept:
            oldest = next((one for one in self._kept if one is not spare), spare)
            assert oldest is not None
            if oldest not in self._kept:
                break
            del self._kept[oldest]
            self._free(oldest)
            extent = self.extents.take(token_count)
        return extent

    def _has_room(self, sequence: Sequence, plan: Plan) -> bool:
        """Makes room for one more token; False where the sequence had to give way itself."""
        assert sequence.extent
        if len(sequence.token_ids) <= sequence.extent.size:
            return True
        bigger = self.extents.extend(sequence.extent)
        if bigger is not None:
            sequence.extent = bigger
            return True
        while (bigger := self._take(2 * sequence.extent.size)) is None:
            victim = self._victim()
            self._preempt(victim)
            if victim is sequence:
                return False
        plan.copies.append(Copy(sequence.extent.start, bigger.start, sequence.computed_count))
        self.extents.give_back(sequence.extent)
        sequence.extent = bigger
        return True

    def _victim(self) -> Sequence:
        """Who gives way: those whose reader does not read, then the last in rank."""
        return max(self.running, key=lambda sequence: (sequence.is_paused, sequence.rank))

    def _preempt_paused(self) -> bool:
        """Takes the place of a sequence whose reader does not read; False where every reader does."""
        paused = [sequence for sequence in self.running if sequence.is_paused]
        if paused:
            self._preempt(max(paused, key=lambda sequence: sequence.rank))
        return bool(paused)

    def _preempt(self, sequence: Sequence) -> None:
        self.preemption_count += 1
        self.running.remove(sequence)
        self._free(sequence)
        self.waiting.append(sequence)

    def _free(self, sequence: Sequence) -> None:
        assert sequence.extent
        if self._prefixes is not None:
            self._prefixes.remove(sequence)
        self.extents.give_back(sequence.extent)
        sequence.extent, sequence.computed_count = None, 0


def _with_drafts(rows: list[Row], draft_count: Callable[[int, list[float]], int]) -> list[Row]:
    """Adds guesses to rows that decode, those of all that are worth most, as many as pay.

    Steps become fewer only if every answer gets on: so a guess counts for less where the answer is ahead.
    """
    drafters = [_drafter(row.sequence) for row in rows]
    guesses = [_guess(row.sequence, drafter) for row, drafter in zip(rows, drafters, strict=True)]
    slowest = min((drafter.speed for drafter in drafters), default=1.0)
    urgencies = [URGENCY_MAX * (slowest / drafter.speed) ** 2 for drafter in drafters]
    ranked = sorted(
        ((urgencies[at] * share, at) for at, guess in enumerate(guesses) for share in guess.likelihoods), reverse=True
    )
    count = draft_count(len(rows), [worth for worth, _ in ranked]) if ranked else 0
    taken = Counter(at for _, at in ranked[:count])
    return [
        replace(row, draft_ids=tuple(guess.token_ids[: taken[at]])) if taken[at] else row
        for at, (row, guess) in enumerate(zip(rows, guesses, strict=True))
    ]


def _drafter(sequence: Sequence) -> Drafter:
    """Whoever guesses for a sequence."""
    sequence.drafter = sequence.drafter or Drafter()
    return sequence.drafter


def _guess(sequence: Sequence, drafter: Drafter) -> Guess:
    """Guesses how a sequence goes on, as far as its place and its end allow; the last token needs no guess."""
    assert sequence.extent
    guess = drafter.guess(sequence.token_ids)
    count = len(sequence.token_ids)
    room = max(0, min(sequence.extent.size - count, sequence.token_count_max - count - 1))
    return Guess(guess.token_ids[:room], guess.likelihoods[:room])
