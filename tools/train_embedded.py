"""Trains the embedded model: `python -m tools.train_embedded`, minutes on two cores, the same result for the same seed.

It exists so that the suite has something real to serve on a machine without network, key or GPU: a Llama-shaped chat
model of 2.6 million parameters that answers questions about Millrace and says so when it is asked for anything else.
It writes a standard Hugging Face directory with a model card of what was measured. It never downloads anything.
"""

from __future__ import annotations

import argparse
import math
import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from tools.examination import Score, examine, write_card
from tools.lessons import Fact, Lesson, OffTopic, Teacher, load_facts

ROOT = Path(__file__).resolve().parent.parent
OUTPUT = ROOT / "services" / "inference" / "models" / "embedded"
SPECIAL = ("<|pad|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>")
PAD, END = 0, 1
VOCAB_SIZE = 2048
CONTEXT = 1024
# What the largest texts of the REST limits need at a token a character. Positions beyond CONTEXT are never trained:
# such a prompt is answered, but the answer is a guess.
SERVED_CONTEXT = 8192
ANSWER_TOKENS_MAX = 1024  # unless a request says otherwise; what it was taught takes a hundred
IGNORED = -100  # torch's label for positions without loss
# Where answers part, choosing the right one is all; the other tokens only recite. The size is a guess.
FORK_WEIGHT = 4.0
# Share of lessons that end where their last answer is decided: reciting the rest again would take most of the time.
CUT_SHARE = 0.75

# One message is `<|role|>text<|end|>`. What others say is read in lower case, without the spaces around it or the mark
# at its end: so small a model should not have to learn that these change nothing. Roles that it was not taught are
# read as the nearest that it was.
CHAT_TEMPLATE = (
    "{%- for message in messages -%}"
    "{%- set role = {'developer': 'system', 'tool': 'user'}.get(message['role'], message['role']) -%}"
    "{%- if role not in ('system', 'user', 'assistant') -%}{{ raise_exception('unknown role ' + role) }}{%- endif -%}"
    "{%- set text = message['content'] -%}"
    "{%- if role != 'assistant' -%}{%- set text = (text | trim | lower).rstrip('?!. ') -%}{%- endif -%}"
    "{{ '<|' + role + '|>' + text + '<|end|>' }}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{ '<|assistant|>' }}{%- endif -%}"
)


def main() -> None:
    """Trains, measures and writes the model."""
    args = parse_arguments()
    torch.manual_seed(args.seed)
    torch.set_num_threads(args.threads)
    facts, off_topic = load_facts()
    tokenizer = train_tokenizer(facts, off_topic)
    model = LlamaForCausalLM(shape())
    print(f"{len(facts)} facts, {sum(p.numel() for p in model.parameters()):,} parameters", flush=True)
    begin = time.monotonic()
    course = Course(
        tokenizer, Teacher(facts, off_topic, random.Random(args.seed)), [*facts, off_topic.unknown, off_topic.summary]
    )
    train(model, course.batches(args.batch_tokens), args.steps, args.lr)
    minutes = (time.monotonic() - begin) / 60
    save(model, tokenizer, args.output)
    scores = measure(args.output, facts, off_topic)
    command = f"python -m tools.train_embedded --steps {args.steps} --seed {args.seed} --threads {args.threads}"
    write_card(args.output, scores, command, minutes, len(facts), model)


def parse_arguments() -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--output", type=Path, default=OUTPUT, help="directory to write")
    parser.add_argument("--steps", type=int, default=3000, help="optimiser steps")
    parser.add_argument("--batch-tokens", type=int, default=1024, help="tokens of a step, padding included")
    parser.add_argument("--lr", type=float, default=4e-3, help="peak learning rate")
    parser.add_argument("--seed", type=int, default=1, help="seed of weights and lessons")
    parser.add_argument("--threads", type=int, default=2, help="threads of torch")
    return parser.parse_args()


def shape() -> LlamaConfig:
    """The architecture: five Llama layers of width 192, embeddings tied."""
    return LlamaConfig(
        vocab_size=VOCAB_SIZE,
        hidden_size=192,
        intermediate_size=512,
        num_hidden_layers=5,
        num_attention_heads=6,
        num_key_value_heads=6,
        max_position_embeddings=SERVED_CONTEXT,
        tie_word_embeddings=True,
        pad_token_id=PAD,
        bos_token_id=None,
        eos_token_id=END,
    )


def train_tokenizer(facts: Sequence[Fact], off_topic: OffTopic) -> PreTrainedTokenizerFast:
    """Trains a byte-level BPE tokenizer on the words of the lessons; any other text falls back to bytes."""
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE,
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    texts = [text for fact in facts for text in (fact.answer, fact.answer, *fact.ask, *map(str.lower, fact.ask))]
    texts += [*off_topic.unknown.ask, *off_topic.summary.ask, *off_topic.systems, *off_topic.passages]
    core.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token=SPECIAL[PAD],
        eos_token=SPECIAL[END],
        additional_special_tokens=list(SPECIAL[2:]),
        model_max_length=SERVED_CONTEXT,
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
    )


def train(model: LlamaForCausalLM, batches: Iterator[Batch], step_count: int, peak: float) -> None:
    """Teaches the model with AdamW under a warm-up and a cosine."""
    decayed = [p for p in model.parameters() if p.dim() > 1]
    plain = [p for p in model.parameters() if p.dim() <= 1]
    groups = [{"params": decayed, "weight_decay": 0.1}, {"params": plain, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=peak, betas=(0.9, 0.98), fused=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: learning_rate(step, step_count))
    model.train()
    begin, seen, mean = time.monotonic(), 0, 0.0
    for step, batch in zip(range(1, step_count + 1), batches, strict=False):
        loss = weighted_loss(model, batch)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad(set_to_none=True)
        seen += batch.input_ids.numel()
        mean = loss.item() if step == 1 else 0.95 * mean + 0.05 * loss.item()
        if step % 100 == 0:
            seconds = time.monotonic() - begin
            print(
                f"step {step}/{step_count} loss {mean:.4f} {seen / seconds:,.0f} tokens/s {seconds:.0f} s", flush=True
            )


def weighted_loss(model: LlamaForCausalLM, batch: Batch) -> torch.Tensor:
    """Cross entropy of the answers' tokens. No attention mask: padding stands behind everything that could see it."""
    hidden = model.model(input_ids=batch.input_ids, use_cache=False).last_hidden_state[:, :-1]
    labels, weights = batch.labels[:, 1:], batch.weights[:, 1:]
    learnt = labels != IGNORED
    each = torch.nn.functional.cross_entropy(model.lm_head(hidden[learnt]), labels[learnt], reduction="none")
    return (each * weights[learnt]).sum() / weights[learnt].sum()


def learning_rate(step: int, step_count: int) -> float:
    """Warm-up over the first 4 %, then a cosine to nothing; a factor on the peak."""
    warm = max(1, step_count // 25)
    if step < warm:
        return (step + 1) / warm
    return 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, step_count - warm)))


@dataclass(frozen=True)
class Row:
    """A lesson in tokens: what is read, what is learnt, and how much each token counts."""

    ids: list[int]
    labels: list[int]
    weights: list[float]


@dataclass(frozen=True)
class Batch:
    """Rows padded on the right; tensors of shape (rows, tokens)."""

    input_ids: torch.Tensor
    labels: torch.Tensor
    weights: torch.Tensor


class Course:
    """Lessons as batches of tokens, without end."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, teacher: Teacher, facts: Sequence[Fact]) -> None:
        self._tokenizer = tokenizer
        self._teacher = teacher
        answers = [self._answer(fact.answer, raw) for fact in facts for raw in (False, True)]
        followers: dict[tuple[int, ...], set[int]] = {}
        for answer in answers:
            for at, token in enumerate(answer):
                followers.setdefault(tuple(answer[:at]), set()).add(token)
        self._random = random.Random(0)
        self._forks = {prefix for prefix, tokens in followers.items() if len(tokens) > 1}

    def batches(self, batch_tokens: int) -> Iterator[Batch]:
        """Packs lessons of like length together, so that little of a batch is padding."""
        while True:
            pool = sorted((self._row(self._teacher.lesson()) for _ in range(1024)), key=lambda row: len(row.ids))
            packed: list[list[Row]] = [[]]
            for row in pool:
                if packed[-1] and (len(packed[-1]) + 1) * len(row.ids) > batch_tokens:
                    packed.append([])
                packed[-1].append(row)
            self._random.shuffle(packed)
            yield from map(padded, packed)

    def _row(self, lesson: Lesson) -> Row:
        row = Row([], [], [])
        if lesson.system:
            self._read(row, self._render("system", lesson.system, False))
        for turn in lesson.turns:
            self._read(row, turn.question if lesson.raw else self._render("user", turn.question, True))
            answer = self._answer(turn.answer, lesson.raw)
            weights = [FORK_WEIGHT if tuple(answer[:at]) in self._forks else 1.0 for at in range(len(answer))]
            if turn is lesson.turns[-1] and self._random.random() < CUT_SHARE:
                decided = len(weights) - weights[::-1].index(FORK_WEIGHT)
                answer, weights = answer[:decided], weights[:decided]
            row.ids.extend(answer)
            row.labels.extend(answer)
            row.weights.extend(weights)
        return Row(row.ids[-CONTEXT:], row.labels[-CONTEXT:], row.weights[-CONTEXT:])

    def _render(self, role: str, text: str, is_last: bool) -> str:
        message = [{"role": role, "content": text}]
        return str(self._tokenizer.apply_chat_template(message, tokenize=False, add_generation_prompt=is_last))

    def _read(self, row: Row, text: str) -> None:
        piece = self._encode(text)
        row.ids.extend(piece)
        row.labels.extend([IGNORED] * len(piece))
        row.weights.extend([0.0] * len(piece))

    def _encode(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False)
        return ids

    def _answer(self, answer: str, raw: bool) -> list[int]:
        return self._encode(f"{' ' if raw else ''}{answer}<|end|>")


def padded(rows: Sequence[Row]) -> Batch:
    """Makes one batch of rows."""
    width = max(len(row.ids) for row in rows)
    return Batch(
        torch.tensor([row.ids + [PAD] * (width - len(row.ids)) for row in rows]),
        torch.tensor([row.labels + [IGNORED] * (width - len(row.ids)) for row in rows]),
        torch.tensor([row.weights + [0.0] * (width - len(row.ids)) for row in rows]),
    )


def save(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, output: Path) -> None:
    """Writes the directory; weights in half precision, and it is these that are examined."""
    model.eval()
    model.generation_config = GenerationConfig(
        do_sample=False, eos_token_id=END, pad_token_id=PAD, max_new_tokens=ANSWER_TOKENS_MAX
    )
    output.mkdir(parents=True, exist_ok=True)
    model.half().save_pretrained(output)
    tokenizer.save_pretrained(output)


def measure(output: Path, facts: Sequence[Fact], off_topic: OffTopic) -> list[Score]:
    """Reads the directory back as a user would and examines it."""
    model = LlamaForCausalLM.from_pretrained(output, dtype=torch.float32)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(output)
    return examine(model, tokenizer, facts, off_topic)


if __name__ == "__main__":
    main()
