"""The embedded model as it is shipped: its files, its manners, and the honesty of its examination."""

from __future__ import annotations

import json
import random
import re

import pytest
import torch
from transformers import AutoTokenizer

from services.inference.engines.local.model import EMBEDDED_DIRECTORY, LocalModel, load
from services.inference.generation import Message, Prompt, Role, TextPart
from tools.examination import ask, papers, user
from tools.lessons import Fact, Teacher, load_facts, passage

BYTES_MAX = 10_000_000
ANSWER_TOKENS_MAX = 100
FACTS, OFF_TOPIC = load_facts()


@pytest.fixture(scope="module")
def model() -> LocalModel:
    """The shipped model, on one thread as the engine runs it."""
    torch.set_num_threads(1)
    return load("embedded")


def answer(model: LocalModel, *turns: tuple[Role, str]) -> str:
    """The greedy answer to a conversation."""
    prompt = Prompt(messages=tuple(Message(role, (TextPart(text),)) for role, text in turns))
    prompt_ids = torch.tensor([model.encode(prompt)])
    output = model.network.generate(prompt_ids, max_new_tokens=ANSWER_TOKENS_MAX, do_sample=False)
    assert int(output[0, -1]) in model.end_ids, "the answer does not end"
    return model.decode(output[0, prompt_ids.shape[1] :].tolist())


def test_files_are_standard_and_small() -> None:
    """The directory is what transformers reads, with a card, in less than 10 MB, and its weights are no pickle."""
    names = {path.name for path in EMBEDDED_DIRECTORY.iterdir()}

    assert {"config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json"} <= names
    assert {name for name in names if name.startswith("model")} == {"model.safetensors"}
    assert sum(path.stat().st_size for path in EMBEDDED_DIRECTORY.iterdir()) < BYTES_MAX
    assert json.loads((EMBEDDED_DIRECTORY / "config.json").read_text())["model_type"] == "llama"
    assert "Measured" in (EMBEDDED_DIRECTORY / "MODEL_CARD.md").read_text()


def test_no_question_is_both_taught_and_examined() -> None:
    """Rephrasings that are measured as unseen were never taught, whatever their case or marks."""
    plain = re.compile(r"[^a-z0-9/_ ]")
    everything = [*FACTS, OFF_TOPIC.unknown]
    taught = {plain.sub("", question.lower()).strip() for fact in everything for question in fact.ask}
    held_out = {plain.sub("", question.lower()).strip() for fact in everything for question in fact.held_out}

    assert len(held_out) > 300
    assert not taught & held_out


def test_no_question_has_two_answers() -> None:
    """A question is taught with one answer only."""
    answers: dict[str, str] = {}
    for fact in [*FACTS, OFF_TOPIC.unknown]:
        for question in fact.ask:
            assert answers.setdefault(question.lower(), fact.answer) == fact.answer, question


def test_lessons_repeat_with_their_seed() -> None:
    """The same seed gives the same lessons, so that training can be repeated."""
    first, again = (Teacher(FACTS, OFF_TOPIC, random.Random(4)) for _ in range(2))

    assert [first.lesson() for _ in range(200)] == [again.lesson() for _ in range(200)]


def share_right(model: LocalModel, facts: list[Fact], *before: dict[str, str]) -> float:
    """How many of the facts are answered to the letter, asked in the first of their taught ways."""
    tokenizer = AutoTokenizer.from_pretrained(EMBEDDED_DIRECTORY)
    answers = ask(model.network, tokenizer, [[*before, *user(fact.ask[0])] for fact in facts])
    return sum(got == fact.answer for got, fact in zip(answers, facts, strict=True)) / len(facts)


def test_taught_questions_are_answered_to_the_letter(model: LocalModel) -> None:
    """Nearly every taught question gets its sentence; most also after a system prompt or after another turn."""
    facts = random.Random(0).sample(FACTS, 40)

    assert share_right(model, facts) >= 0.9
    assert share_right(model, facts, {"role": "system", "content": "You are a helpful assistant."}) >= 0.85
    assert share_right(model, facts, *user("Hello"), {"role": "assistant", "content": FACTS[0].answer}) >= 0.8


def test_case_spaces_and_marks_change_nothing(model: LocalModel) -> None:
    """The template reads a question the same however it is typed."""
    assert answer(model, (Role.USER, "  WHICH PORTS DOES MILLRACE USE ")) == answer(
        model, (Role.USER, "Which ports does Millrace use?")
    )


@pytest.mark.parametrize("question", ["What is the capital of France?", "Write a poem about the sea", "What is 2 + 2?"])
def test_it_says_that_it_knows_only_millrace(model: LocalModel, question: str) -> None:
    """Anything else gets the one honest sentence."""
    assert answer(model, (Role.USER, question)) == OFF_TOPIC.unknown.answer


def test_long_prompts_get_an_honest_answer(model: LocalModel) -> None:
    """Prose of any length that fits ends in one of the two honest sentences, not in a loop."""
    rng = random.Random(11)
    honest = (OFF_TOPIC.unknown.answer, OFF_TOPIC.summary.answer)
    for count in (10, 25, 40):
        text = " ".join(rng.choice(OFF_TOPIC.passages) for _ in range(count))
        assert answer(model, (Role.USER, text)) in honest


def test_summaries_are_declined(model: LocalModel) -> None:
    """A request to summarise, as POST /summarize sends it, is declined in one sentence."""
    text = passage(OFF_TOPIC.passages, random.Random(2))
    system = OFF_TOPIC.summary_systems[0]

    assert answer(model, (Role.SYSTEM, system), (Role.USER, text)) == OFF_TOPIC.summary.answer


def test_every_paper_of_the_examination_has_questions() -> None:
    """No score can be perfect for want of questions."""
    assert all(len(questions) >= 60 for questions in papers(FACTS, OFF_TOPIC).values())
