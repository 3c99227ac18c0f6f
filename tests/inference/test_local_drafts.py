"""What is guessed, how sure, and that no answer is another because of it."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch

from services.inference.engines.local.drafts import GUESS_MAX, LOOKBACK_TOKENS, MATCH_MAX, Drafter
from services.inference.engines.local.extents import Extent
from services.inference.engines.local.model import LocalModel
from services.inference.engines.local.runner import Runner
from services.inference.engines.local.scheduler import Plan, Row, Scheduler
from services.inference.engines.local.sequence import Sequence
from services.inference.generation import ChoiceFinished, EngineCompleted, FinishReason
from tests.fakes.tiny_gpt2 import END_ID
from tests.inference.local_batch import Bench, Reader, random_prompts, tiny_model

ENDLESS = {END_ID: -100.0}
SHAPES = ("gpt2", "llama")


@pytest.fixture(scope="module", params=SHAPES)
def shape(request: pytest.FixtureRequest) -> str:
    """Of a model."""
    return str(request.param)


@pytest.fixture(scope="module", params=["torch", "openvino"])
def model(request: pytest.FixtureRequest, shape: str, tmp_path_factory: pytest.TempPathFactory) -> LocalModel:
    """A tiny model, computed by each."""
    return tiny_model(tmp_path_factory.mktemp(shape), shape, request.param)


def test_a_text_goes_on_as_it_did_before() -> None:
    """After tokens that stood there earlier comes what followed them, and then what is being guessed itself."""
    guess = Drafter().guess([1, 2, 3, 4, 5, 9, 1, 2, 3])

    assert guess.token_ids == [4, 5, 9, 1, 2, 3, 4, 5]
    assert Drafter().guess([8, 7, 7]).token_ids == [7] * GUESS_MAX


def test_a_token_that_is_new_is_followed_by_no_guess() -> None:
    """There is nothing to go by."""
    assert Drafter().guess([1, 2, 3]).token_ids == []
    assert Drafter().guess([1]).likelihoods == []


def test_what_followed_three_tokens_goes_before_what_followed_one() -> None:
    """Though the one stood there later; and the latest of the three counts."""
    text = [1, 2, 3, 50, 1, 2, 3, 60, 9, 3, 70]

    assert Drafter().guess([*text, 1, 2, 3]).token_ids[0] == 60
    assert Drafter().guess([*text, 8, 3]).token_ids[0] == 70


def test_a_longer_match_is_likelier() -> None:
    """And each token of a guess is less likely than the one before."""
    short = Drafter().guess([1, 2, 3, 4, 9, 4])
    long = Drafter().guess([1, 2, 3, 4, 9, 1, 2, 3, 4])

    assert long.likelihoods[0] > short.likelihoods[0]
    assert all(a > b > 0 for a, b in zip(long.likelihoods, long.likelihoods[1:], strict=False))


def test_what_comes_teaches_how_good_guesses_are() -> None:
    """Whether they were computed or not: tokens come one by one here."""
    right, wrong = Drafter(), Drafter()
    repeated, mixed = [5, 6], [5, 6]
    rng = random.Random(3)
    for _ in range(40):
        repeated += [5, 6]
        mixed += [5, rng.randrange(10, 1000)]
        likely, unlikely = right.guess(repeated), wrong.guess(mixed[:-1])

    assert likely.likelihoods[0] > 0.95
    assert unlikely.likelihoods[0] < 0.05


def test_several_tokens_at_once_teach_as_much() -> None:
    """A guess of which a part was right counts for each of its tokens up to the first that was wrong."""
    one, other = Drafter(), Drafter()
    text = [1, 2, 3, 4, 5, 6, 1, 2]
    first = one.guess(text).likelihoods[:3]
    other.guess(text)

    after = one.guess([*text, 3, 4, 9, 1, 2]).likelihoods[:3]
    unchanged = other.guess(text).likelihoods[:3]

    assert unchanged == first
    assert after[0] / first[0] > 1  # right after a match of two
    assert after[2] / after[1] < first[2] / first[1]  # wrong after one of four


def test_a_long_text_is_looked_through_from_its_end() -> None:
    """What lies further back is not entered: its index would take more memory than it brings."""
    beginning = [-1, -2, -3]
    near, far = (beginning + list(range(count)) + beginning for count in (LOOKBACK_TOKENS - 4, LOOKBACK_TOKENS + 4))

    assert Drafter().guess(near).token_ids[0] == 0
    assert Drafter().guess(far).token_ids == []
    assert len(Drafter().guess(near).likelihoods) == GUESS_MAX > MATCH_MAX


def scheduler(count_max: int = 99, **options: object) -> Scheduler:
    """One whose steps compute so many guesses."""
    return Scheduler(
        1024, 8, lambda decodes, *_: decodes + 64, draft_count=lambda _, shares: min(count_max, len(shares)), **options
    )  # type: ignore[arg-type]


def begin(one: Scheduler, *sequences: Sequence) -> Plan:
    """Reads the prompts, draws a token for each, and plans the next step."""
    for sequence in sequences:
        one.add(sequence)
    one.complete(one.schedule())
    for sequence in sequences:
        sequence.token_ids.append(sequence.token_ids[0])
    return one.schedule()


def test_guesses_end_where_the_place_and_the_answer_do() -> None:
    """The last token that an answer may have needs none."""
    ids = [1, 2, 3] * 9
    short, long = Sequence([*ids], 27, 30), Sequence([*ids], 27, 200)
    plan = begin(scheduler(growth_token_count=0), short, long)

    drafts = {row.sequence: row.draft_ids for row in plan.rows}
    assert drafts[short] == (2,)  # and the last one is drawn after it
    assert drafts[long] == (2, 3, 1, 2)  # 28 of 32 positions are taken


def test_the_likeliest_guesses_of_all_are_computed() -> None:
    """A step has room for so many."""
    sure, unsure = Sequence([1, 2, 3, 4, 5] * 4, 20, 100), Sequence([1, 9, 8, 7, 6], 5, 100)
    plan = begin(scheduler(3), unsure, sure)

    drafts = {row.sequence: row.draft_ids for row in plan.rows}
    assert drafts == {sure: (2, 3, 4), unsure: ()}
    assert (plan.token_count, plan.draft_count) == (2, 3)


def test_guesses_for_slow_answers_come_first() -> None:
    """Of two that are as likely the one for the answer that has had fewer tokens a step is computed."""
    one = scheduler(2)
    fast, slow = (Sequence([*ids] * 4, 20, 100) for ids in ((1, 2, 3, 4, 5), (6, 7, 8, 9, 10)))
    one.complete(begin(one, fast, slow))
    fast.token_ids += [2, 3, 4]
    fast.computed_count += 2
    slow.token_ids += [7]

    drafts = {row.sequence: row.draft_ids for row in one.schedule().rows}

    assert drafts == {fast: (), slow: (8, 9)}


def test_nothing_is_guessed_beside_prompts() -> None:
    """What a prompt costs those who run is bounded as it is."""
    one = scheduler()
    begin(one, Sequence([1, 2, 3] * 4, 12, 100))
    one.add(Sequence([4, 5, 6], 3, 100))

    plan = one.schedule()

    assert len(plan.rows) == 2
    assert plan.draft_count == 0


@pytest.mark.parametrize("int8", [False, True])
def test_guesses_are_computed_as_if_one_by_one(shape: str, int8: bool, tmp_path: Path) -> None:
    """Each attends to those before it, which the same step computes; beyond the first block of the cache, too."""
    runner = Runner(tiny_model(tmp_path, shape, "openvino", int8=int8).network, 256)
    ids = [(7 * at + 3) % END_ID for at in range(40)]
    alone, guessed = Sequence(ids[:31], 31, 90, extent=Extent(0, 64)), Sequence(ids[:31], 31, 90, extent=Extent(64, 64))
    runner.run(Plan([Row(alone, 0, 30), Row(guessed, 0, 30)]))
    one_by_one = []
    for at in range(30, 40):
        alone.token_ids = ids[: at + 1]
        one_by_one.append(runner.run(Plan([Row(alone, at, 1)]))[1][0])

    _, found = runner.run(Plan([Row(guessed, 30, 1, tuple(ids[31:]))]))

    largest = torch.stack(one_by_one).abs().max()
    assert found.shape[0] == 10
    assert (found - torch.stack(one_by_one)).abs().max() < 1e-5 * largest


def answers(model: LocalModel, draft_tokens: int) -> tuple[list[Reader], Bench]:
    """Requests of every kind, and the batch that has answered them."""
    bench, rng = Bench(model, draft_tokens=draft_tokens), random.Random(4)
    kinds: list[dict[str, object]] = [
        {"temperature": 0.0},
        {"temperature": 0.7, "seed": 5},
        {"temperature": 1.0, "seed": 6, "top_p": 0.7, "top_logprobs": 3},
        {"temperature": 0.3, "seed": 7, "presence_penalty": 0.5, "frequency_penalty": 0.2},
        {"temperature": 0.0, "repetition_penalty": 1.1, "min_tokens": 9},
        {"temperature": 0.5, "seed": 8, "n": 3},
        {"temperature": 1.0, "seed": 9, "logit_bias": {7: 8.0}},  # most of it repeats itself
    ]
    readers = []
    for at, prompt in enumerate(random_prompts(48, rng, END_ID)):
        count = rng.randint(1, 40)
        options = {"logit_bias": ENDLESS if at % 2 else {}, **kinds[at % len(kinds)]}
        readers.append(bench.add(prompt, max_tokens=count, **options))
        while rng.random() < 0.6:
            bench.step()
    bench.finish()
    return readers, bench


def test_no_answer_is_another(model: LocalModel) -> None:
    """Whatever is drawn, and however: events, ends, counts and log probabilities are those without guesses."""
    plain, without = answers(model, 0)
    guessed, bench = answers(model, 24)

    for one, other in zip(plain, guessed, strict=True):
        assert one.error is None
        for index in range(3):
            assert one.tokens(index) == other.tokens(index)
        ends = [[e for e in r.events if isinstance(e, ChoiceFinished)] for r in (one, other)]
        assert sorted(ends[0], key=lambda e: e.choice_index) == sorted(ends[1], key=lambda e: e.choice_index)
        usages = [
            e.usage.completion_token_count for r in (one, other) for e in r.events if isinstance(e, EngineCompleted)
        ]
        assert usages[0] == usages[1]
    assert len(bench.told) < len(without.told)


def test_an_answer_ends_within_a_guess(model: LocalModel) -> None:
    """At a stop string or at its bound, as if tokens had come one by one; nothing leaves after it."""
    plain = Bench(model, draft_tokens=0)
    whole = plain.add([3, 4, 5], max_tokens=40, logit_bias={7: 100.0, END_ID: -100.0})
    plain.finish()
    assert len(set(whole.tokens())) == 1
    text = whole.tokens()[0].decode()

    bench = Bench(model)
    stopped = bench.add([3, 4, 5], max_tokens=40, stop=(text * 7,), logit_bias={7: 100.0, END_ID: -100.0})
    cut = bench.add([3, 4, 5], max_tokens=7, logit_bias={7: 100.0, END_ID: -100.0})
    bench.finish()

    for reader, reason in ((stopped, FinishReason.STOP), (cut, FinishReason.LENGTH)):
        *_, end, completed = reader.events
        assert isinstance(end, ChoiceFinished)
        assert end.finish_reason is reason
        assert isinstance(completed, EngineCompleted)
        assert completed.usage.completion_token_count == 7
    assert len(bench.told) < 7
