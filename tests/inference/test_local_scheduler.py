"""The scheduler alone: who runs, who waits, who gives way; and its places."""

from __future__ import annotations

import random
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from services.inference.engines.local.extents import EXTENT_TOKENS_MIN, Extent, Extents
from services.inference.engines.local.scheduler import Plan, Scheduler
from services.inference.engines.local.sequence import Sequence


def sequence(count: int = 10, answer: int = 10, first: int = 0, **options: object) -> Sequence:
    """A sequence that has not begun."""
    ids = list(range(first, first + count))
    return Sequence(ids, count, count + answer, **options)  # type: ignore[arg-type]


def scheduler(token_count: int = 1024, row_count_max: int = 8, prefill: int = 16, **options: object) -> Scheduler:
    """A scheduler whose steps read so many tokens of prompts."""
    return Scheduler(token_count, row_count_max, lambda decodes, *_: decodes + prefill, **options)  # type: ignore[arg-type]


def step(one: Scheduler) -> Plan:
    """Does a step: every sequence whose tokens are all computed gets one more, and ends at its bound."""
    plan = one.schedule()
    one.check()
    one.complete(plan)
    for row in plan.rows:
        if row.sequence.pending_count == 0:
            row.sequence.token_ids.append(7)
            if len(row.sequence.token_ids) >= row.sequence.token_count_max:
                one.remove(row.sequence)
    one.check()
    return plan


@given(
    token_count=st.integers(1, 3000),
    steps=st.lists(st.tuples(st.sampled_from(["take", "extend", "free"]), st.integers(1, 500)), max_size=60),
)
def test_extents_never_overlap_and_none_is_lost(token_count: int, steps: list[tuple[str, int]]) -> None:
    """Whatever is taken, doubled and given back, extents stay apart, aligned and within the cache."""
    extents, held = Extents(token_count), list[Extent]()
    for what, number in steps:
        if what == "take":
            taken = extents.take(number)
            assert taken is None or (taken.size >= number and taken.start % taken.size == 0)
            held += [taken] if taken else []
        elif held:
            extent = held.pop(number % len(held))
            doubled = extents.extend(extent) if what == "extend" else None
            if what == "free":
                extents.give_back(extent)
            else:
                held.append(doubled or extent)
        places = sorted((extent.start, extent.start + extent.size) for extent in held)
        assert all(a[1] <= b[0] for a, b in pairwise(places))
        assert sum(extent.size for extent in held) + extents.free_token_count == extents.token_count
    for extent in held:
        extents.give_back(extent)
    largest = extents.size_max
    assert largest == 0 or extents.take(largest) is not None


def test_decodes_come_first_and_prompts_in_pieces() -> None:
    """A long prompt gets what the step leaves, and each running answer its token in every step."""
    one = scheduler(prefill=16)
    running = [sequence(5, 90, first=10 * at) for at in range(3)]
    for each in running:
        one.add(each)
    step(one)
    long = sequence(100, 5, first=500)
    one.add(long)

    plans = [step(one) for _ in range(7)]

    for plan in plans:
        assert {row.sequence for row in plan.rows if row.count == 1} >= set(running)
        assert plan.token_count <= len(running) + 1 + 16
    assert [row.count for plan in plans for row in plan.rows if row.sequence is long][:7] == [16] * 6 + [4]


def test_the_pace_hears_what_is_still_to_be_read() -> None:
    """It is told how many decode, how many run or wait, and how many tokens of prompts nobody has read yet."""
    told: list[tuple[int, ...]] = []
    one = Scheduler(1024, 2, lambda *counts: told.append(counts) or counts[0] + 16)  # type: ignore[func-returns-value]
    for count in (8, 40, 30):
        one.add(sequence(count))

    step(one)
    step(one)

    assert told == [(0, 2, 78), (1, 2, 62)]


def test_higher_priority_joins_first() -> None:
    """Of those that wait the highest priority joins, then the eldest."""
    one = scheduler(row_count_max=1)
    low, high, later = sequence(answer=1), sequence(answer=1, priority=5), sequence(answer=1)
    for each in (low, high, later):
        one.add(each)

    order = [step(one).rows[0].sequence for _ in range(3)]

    assert order == [high, low, later]


def test_tenants_share_evenly() -> None:
    """A tenant that asks a hundred times does not make another wait for them all."""
    one = scheduler(row_count_max=1, prefill=64)
    for at in range(100):
        one.add(sequence(8, 1, first=at, tenant="busy"))
    for at in range(3):
        one.add(sequence(8, 1, first=200 + at, tenant="quiet"))

    order = [step(one).rows[0].sequence.tenant for _ in range(6)]

    assert order.count("quiet") == 3


def test_a_tenant_that_returns_gets_no_credit() -> None:
    """Time away earns nothing: who comes back is level with the others, not ahead of them."""
    one = scheduler(row_count_max=1, prefill=64)
    for at in range(50):
        one.add(sequence(8, 1, first=at, tenant="steady"))
    for _ in range(20):
        step(one)
    for at in range(20):
        one.add(sequence(8, 1, first=300 + at, tenant="back"))

    order = [step(one).rows[0].sequence.tenant for _ in range(10)]

    assert 4 <= order.count("back") <= 6


def test_guesses_that_are_right_count_as_served() -> None:
    """Of two tenants whose prompts are as long the one whose answers came in fewer steps has had no less."""
    one = scheduler(row_count_max=2, prefill=64)
    quoting, telling = sequence(8, 20, tenant="quoting"), sequence(8, 20, first=100, tenant="telling")
    for each in (quoting, telling):
        one.add(each)
    step(one)
    for _ in range(3):
        one.accept(quoting)
        quoting.token_ids.append(7)
    for tenant in ("quoting", "telling"):
        one.add(sequence(8, 1, tenant=tenant))
    one.remove(quoting)

    assert step(one).rows[-1].sequence.tenant == "telling"


def test_last_in_rank_gives_way() -> None:
    """When the cache is full the latest and least important sequence loses its place, and is computed again."""
    one = scheduler(token_count=2 * EXTENT_TOKENS_MIN, growth_token_count=0, prefill=64)
    important, first, last = (sequence(20, 40, first=100 * at, priority=at == 0) for at in range(3))
    one.add(first)
    one.add(last)
    step(one)
    while not one.preemption_count:
        step(one)

    assert last in one.waiting
    assert first in one.running
    assert last.computed_count == 0
    one.add(important)
    ended: list[Sequence] = []
    while one.running or one.waiting:
        rows = step(one).rows
        ended += [row.sequence for row in rows if row.sequence not in (*one.running, *one.waiting, *ended)]
    assert ended == [first, important, last]


def test_a_shared_beginning_is_copied_and_not_computed() -> None:
    """A prompt that begins like an earlier one of the same tenant computes only the rest, also after that has ended."""
    one = scheduler(prefill=64)
    one.add(sequence(40, 1, tenant="a"))
    step(one)
    same, other = sequence(48, 1, tenant="a"), sequence(48, 1, tenant="b")
    one.add(same)
    one.add(other)

    plan = step(one)

    assert {row.sequence: (row.begin, row.count) for row in plan.rows}[same] == (32, 16)
    assert {row.sequence: row.begin for row in plan.rows}[other] == 0
    assert [copy.count for copy in plan.copies] == [32]


def test_kept_beginnings_give_way_to_requests() -> None:
    """What is kept for reuse never makes a request wait."""
    one = scheduler(token_count=4 * EXTENT_TOKENS_MIN, prefill=64)
    for at in range(20):
        one.add(sequence(20, 1, first=100 * at))
        plan = step(one)
        assert len(plan.rows) == 1
    assert one.preemption_count == 0


def test_random_traffic_keeps_the_invariants() -> None:
    """Arrivals, ends, pauses and cancels at random: no position is lost or held twice, and all ends."""
    rng = random.Random(3)
    one = scheduler(token_count=40 * EXTENT_TOKENS_MIN, prefill=20, growth_token_count=0)
    for _ in range(400):
        answer = rng.randint(1, 60)
        one.add(sequence(rng.randint(1, 90), answer, first=rng.choice([0, 100]), tenant=rng.choice("ab")))
        for each in (*one.running, *one.waiting):
            each.is_paused = rng.random() < 0.2
        if rng.random() < 0.2 and one.running:
            one.remove(rng.choice(one.running))
            one.check()
        step(one)
    while one.running or one.waiting:
        for each in (*one.running, *one.waiting):
            each.is_paused = False
        step(one)

    assert one.preemption_count
