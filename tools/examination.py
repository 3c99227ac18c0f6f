"""The examination of the embedded model: how many answers are exactly right, on taught and on unseen words.

It exists so that the model card states what was measured and nothing else. An answer counts only when it is the taught
sentence to the letter. It never trains.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from tools.lessons import Fact, OffTopic, noisy, passage

Message = dict[str, str]

BATCH = 48
ANSWER_TOKENS_MAX = 128
SEED = 20_000  # another one than training's
CARD = """---
license: apache-2.0
language: en
library_name: transformers
pipeline_tag: text-generation
---

# The embedded model of Millrace

A Llama-shaped chat model with {parameter_count:,} parameters, so that Millrace has something real to serve without
network, key or GPU. It was trained from nothing on {fact_count} facts about Millrace that were written by hand
(`tools/facts`). It knows only these: it says so when it is asked for anything else, and it cannot reason, calculate,
translate, write code or summarise. Do not judge Millrace's speed with larger models by it, and use a larger model for
any real work.

Weights in half precision, byte-level BPE tokenizer with {vocab_size} entries, chat template with system, user and
assistant turns. Prompts of up to {context} tokens are taken; it was trained on contexts of 1,024, and what it says to
a longer prompt is a guess.

## Measured

Greedy answers that equal the taught sentence to the letter, read back from this directory in float32:

| Questions | Right | Of | Share |
|---|---:|---:|---:|
{rows}

Trained in {minutes:.1f} minutes by:

```
{command}
```
"""


@dataclass(frozen=True)
class Score:
    """How many questions of one kind got exactly the right answer."""

    name: str
    right_count: int
    question_count: int


@dataclass(frozen=True)
class Question:
    """A conversation, and the answers that are right."""

    messages: list[Message]
    right: tuple[str, ...]


def examine(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, facts: Sequence[Fact], off_topic: OffTopic
) -> list[Score]:
    """Asks every kind of question and prints each score, with a few of the wrong answers."""
    scores = []
    for name, questions in papers(facts, off_topic).items():
        answers = ask(model, tokenizer, [question.messages for question in questions])
        wrong = [
            (one.messages[-1]["content"], got)
            for one, got in zip(questions, answers, strict=True)
            if got not in one.right
        ]
        scores.append(Score(name, len(questions) - len(wrong), len(questions)))
        print(f"{name}: {scores[-1].right_count}/{len(questions)}", flush=True)
        for question, got in wrong[:12]:
            print(f"    {question[-70:]!r} -> {got[:90]!r}", flush=True)
    return scores


def papers(facts: Sequence[Fact], off_topic: OffTopic) -> dict[str, list[Question]]:
    """The questions, by kind."""
    rng = random.Random(SEED)
    everything = [*facts, off_topic.unknown]
    held_out = [Question(user(text), (fact.answer,)) for fact in everything for text in fact.held_out]
    systems, lead_ins = off_topic.held_out_systems, off_topic.summary.held_out

    def varied(vary: Callable[[str], list[Message]]) -> list[Question]:
        return [Question(vary(one.messages[-1]["content"]), one.right) for one in held_out]

    def prose() -> str:
        return passage(off_topic.held_out_passages, rng)

    honest = (off_topic.unknown.answer, off_topic.summary.answer)
    return {
        "taught": [Question(user(text), (fact.answer,)) for fact in everything for text in fact.ask],
        "rephrased, never seen": held_out,
        "rephrased and mistyped": varied(lambda text: user(noisy(text, rng))),
        "rephrased, with a new system prompt": varied(
            lambda text: [{"role": "system", "content": rng.choice(systems)}, *user(text)]
        ),
        "rephrased, after two other turns": varied(
            lambda text: [*history(everything, rng), *history(everything, rng), *user(text)]
        ),
        "long unknown texts (either honest answer)": [Question(user(prose()), honest) for _ in range(60)],
        "requests to summarise": [
            Question(user(f"{rng.choice(lead_ins)}\n\n{prose()}"), (off_topic.summary.answer,)) for _ in range(60)
        ],
    }


def user(text: str) -> list[Message]:
    """A conversation of one question."""
    return [{"role": "user", "content": text}]


def history(facts: Sequence[Fact], rng: random.Random) -> list[Message]:
    """An earlier turn about something else."""
    fact = rng.choice(facts)
    return [*user(rng.choice(fact.ask)), {"role": "assistant", "content": fact.answer}]


@torch.inference_mode()
def ask(model: Any, tokenizer: PreTrainedTokenizerFast, conversations: Sequence[list[Message]]) -> list[str]:
    """Answers conversations greedily, those of like length together."""
    tokenizer.padding_side = "left"
    prompts = [tokenizer.apply_chat_template(c, tokenize=False, add_generation_prompt=True) for c in conversations]
    order = sorted(range(len(prompts)), key=lambda at: len(prompts[at]))
    answers = [""] * len(prompts)
    for begin in range(0, len(order), BATCH):
        rows = order[begin : begin + BATCH]
        batch = tokenizer(
            [prompts[at] for at in rows],
            return_tensors="pt",
            padding=True,
            add_special_tokens=False,
            return_token_type_ids=False,
        )
        output = model.generate(**batch, max_new_tokens=ANSWER_TOKENS_MAX, do_sample=False)
        texts = tokenizer.batch_decode(output[:, batch["input_ids"].shape[1] :], skip_special_tokens=True)
        for at, text in zip(rows, texts, strict=True):
            answers[at] = text
    return answers


def write_card(
    output: Path, scores: Sequence[Score], command: str, minutes: float, fact_count: int, model: LlamaForCausalLM
) -> None:
    """Writes MODEL_CARD.md beside the weights."""
    rows = "\n".join(
        f"| {s.name} | {s.right_count} | {s.question_count} | {100 * s.right_count / s.question_count:.1f} % |"
        for s in scores
    )
    card = CARD.format(
        parameter_count=model.num_parameters(),
        fact_count=fact_count,
        context=model.config.max_position_embeddings,
        vocab_size=model.config.vocab_size,
        rows=rows,
        minutes=minutes,
        command=command,
    )
    (output / "MODEL_CARD.md").write_text(card, encoding="utf-8")
