"""How much of prompts joins a step, and what the pace learns from steps."""

from __future__ import annotations

from itertools import cycle

import pytest

from services.inference.engines.local.pace import (
    DRAFT_STEP_GRAIN,
    PREFILL_TOKENS_MIN,
    PROMPT_STEP_GRAIN,
    STEP_TOKENS_MAX,
    WAVE_PIECES_MAX,
    WAVE_STRETCH_MAX,
    WAVE_TOKENS_MIN,
    Pace,
    measure,
)

STEP_S, ROW_S, TOKEN_S, CHANGE_S = 0.010, 0.001, 0.0005, 0.004
# Tokens of prompts that are read for long.
MANY = 100_000


def pace() -> Pace:
    """A step of eight answers takes 18 ms, and a token of a prompt half a millisecond."""
    return Pace(STEP_S, ROW_S, TOKEN_S, stretch=1.5)


def took(decode_count: int, prompt_count: float, row_s: float = ROW_S, token_s: float = TOKEN_S) -> float:
    """Seconds of a step on a machine that keeps to figures of its own."""
    return STEP_S + decode_count * row_s + prompt_count * token_s


def test_pace_is_measured_from_a_few_steps() -> None:
    """What a step costs, each answer in it, each token of a prompt, and another size: of each the fastest of three."""
    noise, last = cycle([9.0, 0.0, 5.0, 0.0, 0.0]), [0]

    def step(count: int, seconds: float) -> float:
        seconds += next(noise) + (CHANGE_S if count != last[0] else 0)
        last[0] = count
        return seconds

    found = measure(
        lambda tokens: step(tokens, took(1, tokens - 1)), lambda row_count, _: step(row_count, took(row_count, 0))
    )

    assert (found.step_s, found.row_s, found.token_s) == pytest.approx((STEP_S, ROW_S, TOKEN_S))
    assert found.change_s == pytest.approx(CHANGE_S)


def test_a_prompt_stretches_running_answers_by_half() -> None:
    """Beside eight answers a prompt gets what makes their step 1.5 times as long."""
    count = pace().step_token_count(8, 9, MANY) - 8

    assert took(8, count) == pytest.approx(1.5 * took(9, 0), abs=TOKEN_S)


def test_many_who_wait_may_stretch_a_step_further() -> None:
    """Where three wait for each that decodes a step may take three times as much longer; alone, prompts take it all."""
    cheap = Pace(STEP_S, ROW_S, TOKEN_S / 2, stretch=1.5)

    count = cheap.step_token_count(8, 32, MANY) - 8

    assert count > WAVE_TOKENS_MIN
    assert took(8, count / 2) <= 2.5 * took(32, 0) < took(8, (count + PROMPT_STEP_GRAIN) / 2)
    assert pace().step_token_count(0, 32, MANY) == STEP_TOKENS_MAX


def test_a_wave_is_read_in_large_pieces() -> None:
    """Where eight and half as many wait as run, a step has 256 tokens of prompts; it is never stretched too far."""
    cheap, dear = (Pace(STEP_S, ROW_S, times * TOKEN_S, stretch=1.5) for times in (0.5, 10))

    assert cheap.step_token_count(16, 24, MANY) - 16 == WAVE_TOKENS_MIN
    count = dear.step_token_count(16, 24, MANY) - 16
    assert took(16, 10 * count) <= WAVE_STRETCH_MAX * took(24, 0) < took(16, 10 * (count + PROMPT_STEP_GRAIN))


def test_a_few_prompts_are_no_wave() -> None:
    """Four long prompts beside eight answers stretch their steps by half, however large pieces a wave would get."""
    dear = Pace(STEP_S, ROW_S, 2 * TOKEN_S, stretch=1.5)

    assert took(8, 2 * (dear.step_token_count(8, 12, MANY) - 8)) <= 1.5 * took(12, 0)
    assert took(1, 2 * (dear.step_token_count(1, 3, MANY) - 1)) <= 3 * took(3, 0)


def test_what_is_over_soon_is_a_wave() -> None:
    """Two prompts that four pieces hold are read as fast as a wave; a single one is not, nor is what takes longer."""
    cheap, little = Pace(STEP_S, ROW_S, TOKEN_S / 2, stretch=1.5), WAVE_PIECES_MAX * WAVE_TOKENS_MIN

    assert WAVE_TOKENS_MIN - PROMPT_STEP_GRAIN < cheap.step_token_count(30, 32, little) - 30 <= WAVE_TOKENS_MIN
    usual = cheap.step_token_count(30, 32, little + 1)
    assert took(30, (usual - 30) / 2) <= 1.5 * took(32, 0)
    assert cheap.step_token_count(31, 32, little) == cheap.step_token_count(31, 32, MANY)


def test_dear_prompts_get_fewer_tokens() -> None:
    """Tokens of a prompt that cost four times what was measured get a piece that keeps the bound all the same."""
    learned, times = Pace(0.020, 0.0002, 0.0002, stretch=1.5), []
    alone = 0.020 + 8 * 0.0002
    learned.observe(8, 8, alone)

    for _ in range(20):
        count = learned.step_token_count(8, 8, MANY) - 8
        times.append(alone + count * 0.0008)
        learned.observe(8, 8 + count, times[-1])

    assert times[0] > 2 * alone
    assert times[-1] <= 1.51 * alone
    assert count > PREFILL_TOKENS_MIN


def test_dear_answers_do_not_make_prompts_dear() -> None:
    """While a batch fills up, answers that cost more than was measured are not taken for dear prompts."""
    learned = pace()
    for _ in range(10):
        learned.observe(8, 8, took(8, 0))
    before = learned.step_token_count(16, 32, MANY)
    for decode_count in range(9, 32):
        learned.observe(decode_count, decode_count + 20, took(decode_count, 20, row_s=4 * ROW_S))

    assert learned.step_token_count(16, 32, MANY) == before


def test_slow_answers_give_prompts_more_time() -> None:
    """Where decoding takes twice what was measured, prompts may take twice as long beside it."""
    learned = pace()
    before = learned.step_token_count(8, 8, MANY)

    for _ in range(40):
        learned.observe(8, 8, 2 * took(8, 0))

    assert learned.slowness == pytest.approx(2, rel=0.01)
    assert learned.step_token_count(8, 8, MANY) - 8 >= 2 * (before - 8) - PROMPT_STEP_GRAIN


def test_one_odd_step_does_not_rule() -> None:
    """A step that the machine held up for a second leaves the pace near what it was."""
    learned = pace()

    learned.observe(8, 8, 1.0)
    learned.observe(0, 512, 9.0)

    assert learned.slowness < 2


def test_guesses_are_computed_as_long_as_they_pay() -> None:
    """Beside one answer nearly all do: a step costs little more. Beside many each must be likely."""
    alone, many = (pace().draft_count(count, [0.3] * 40) for count in (1, 32))

    assert alone > 5
    assert many == 0
    assert 0 < pace().draft_count(32, [0.9] * 40) <= pace().draft_count(32, [0.99] * 40)
    assert pace().draft_count(1, [0.01] * 40) == 0


def test_steps_keep_their_size_where_another_costs_more() -> None:
    """Guesses that pay a little less, or a little more, are taken or left, for another size would cost four of them."""
    sticky = Pace(STEP_S, ROW_S, TOKEN_S, change_s=CHANGE_S)
    worths = [0.9] * 6 + [0.5] * 20
    free = pace().draft_count(8, worths)

    for last in (free - 2, free + 2):
        sticky.observe(8, 8, took(8 + last, 0), last)
        assert sticky.draft_count(8, worths) == last
    sticky.observe(8, 8, took(8, 0))
    assert sticky.draft_count(8, [1.0] * 20) > 4


def test_another_size_is_not_taken_for_slowness() -> None:
    """Steps whose size changes each time take longer by what that was measured to take: nothing is learned from it."""
    steady = Pace(STEP_S, ROW_S, TOKEN_S, change_s=CHANGE_S)
    for _ in range(20):
        for count in (8, 16):
            steady.observe(count, count, took(count, 0) + CHANGE_S)

    assert steady.slowness == pytest.approx(1)


def test_what_another_size_costs_is_learned() -> None:
    """A machine was held up when it was measured: forty changes that cost nothing show that they cost far less."""
    wrong = Pace(STEP_S, ROW_S, TOKEN_S, change_s=10 * CHANGE_S)
    for _ in range(20):
        wrong.observe(8, 8, took(8, 0))
        for _ in range(5):
            wrong.observe(16, 16, took(16, 0))

    assert wrong.change_s < 10 * CHANGE_S / 4
    assert wrong.slowness == pytest.approx(1, abs=0.1)


def test_guesses_make_a_step_at_most_twice_as_long() -> None:
    """However sure they are: not all who wait for it have one."""
    count = pace().draft_count(8, [1.0] * 500)

    assert took(8 + count, 0) <= 2 * took(8, 0) < took(8 + count + DRAFT_STEP_GRAIN + 1, 0)


def test_the_price_of_guesses_is_learned_and_forgotten() -> None:
    """Steps show that each costs four times as much: none is computed any more, until that was long ago."""
    one = pace()
    for _ in range(60):
        one.observe(8, 8, took(8, 0))
        one.observe(8, 8, took(8, 0) + 10 * 4 * ROW_S, 10)
    before = one.draft_count(8, [0.7] * 40)
    for _ in range(200):
        one.observe(8, 8, took(8, 0))

    assert one.draft_price < 1.1
    assert before == 0
    assert one.draft_count(8, [0.7] * 40) > 0


def test_large_steps_come_in_few_sizes() -> None:
    """A size that is new is dear: with prompts they are multiples of 16 tokens, with guesses of 4."""
    with_prompts = {pace().step_token_count(count, count + 5, MANY) for count in range(1, 24)}
    with_guesses = {count + pace().draft_count(count, [0.9] * 40) for count in range(9, 24)}

    assert {size % PROMPT_STEP_GRAIN for size in with_prompts if size > 2 * PROMPT_STEP_GRAIN} == {0}
    assert {size % DRAFT_STEP_GRAIN for size in with_guesses} == {0}
