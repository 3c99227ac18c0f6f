"""Trains the head that finds names: `python -m tools.train_names --help`; four minutes, the same each time.

    python -m tools.train_names --messages FILE --sentences FILE --everyday FILE

`messages` are ner-wnut17, `sentences` are pii-synthetic and `everyday` is banking77, or files of the same format;
docs/safety-models.md has their sources. What is printed is measured on sentences whose templates were not fitted: first
those of `sentences` by a head that saw nothing of that file, then all by five folds. It writes
services/safety/learned/names.npz and its digest, and downloads nothing.
"""

from __future__ import annotations

import argparse
import hashlib
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from kit import bert_onnx, minilm
from kit.encoder import Encoded
from kit.sentence_model import find
from services.safety.learned.features import Floats
from services.safety.learned.heads import PRECISION
from services.safety.learned.marking import ARRAYS, Mark, NamesHead, join
from services.safety.learned.words import Words, read_words
from tools.names_rows import EVERYDAY_STEP, KINDS, NamesRow, labels, lessons, public_rows

FOUND = KINDS[2:]
WEIGHTS = {"lessons": 1.0, "messages": 1.0, "sentences": 1.0, "everyday": 0.5}
LESSON_REPEATS = 20
FOLDS = 5
# Several small networks beside each other, fitted from different beginnings, are one wider network that errs less.
MEMBERS, HIDDEN = 3, 96
EPOCHS, BATCH, RATE, DECAY, DROPOUT = 6, 512, 3e-3, 1e-2, 0.2
THRESHOLDS = (0.4, 0.5, 0.6, 0.7)
ENCODED_AT_ONCE = 16


@dataclass(slots=True)
class Read:
    """A row as words, and what each of them is."""

    row: NamesRow
    words: Words
    features: Floats
    labels: list[int]

    @property
    def fold(self) -> int:
        """Which fold the row belongs to; rows of one group to the same."""
        return zlib.crc32(self.row.group.encode()) % FOLDS


def main() -> None:
    """Trains, measures and writes the head."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("messages", "sentences", "everyday"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    args = parser.parse_args()
    torch.set_num_threads(1)
    rows = list(lessons(0, LESSON_REPEATS)) + public_rows(args.messages, "messages")
    rows += public_rows(args.sentences, "sentences") + public_rows(args.everyday, "everyday", EVERYDAY_STEP)
    known = list(read(rows))
    print("sentences, by a head that has seen none of them", flush=True)
    others = [each for each in known if each.row.source != "sentences"]
    report([each for each in known if each.row.source == "sentences"], fit(others).probabilities)
    in_folds: dict[int, NamesHead] = {n: fit([each for each in known if each.fold != n]) for n in range(FOLDS)}
    for source in ("sentences", "messages", "lessons"):
        print(f"{source}, by heads that have not seen their templates", flush=True)
        report_folds([each for each in known if each.row.source == source], in_folds)
    write(fit(known))


def read(rows: Sequence[NamesRow]) -> Iterator[Read]:
    """Encodes rows; those longer than the encoder reads are left out."""
    network = bert_onnx.BertOnnx(find(minilm.NAME, PRECISION), 1)
    network.tokenizer.no_truncation()
    network.tokenizer.no_padding()
    encodings = [network.tokenizer.encode(row.text) for row in rows]
    order = [n for n in np.argsort([len(each) for each in encodings], kind="stable") if len(encodings[n]) <= 256]
    for begin in range(0, len(order), ENCODED_AT_ONCE):
        part = order[begin : begin + ENCODED_AT_ONCE]
        vectors, states = network.run([encodings[n].ids for n in part])
        for number, vector, state in zip(part, vectors, states, strict=True):
            encoded = Encoded(vector, state, np.array(encodings[number].offsets, np.int32))
            words = read_words(rows[number].text)
            if words.spans:
                yield Read(rows[number], words, words.features(encoded), labels(rows[number], words.spans))


def fit(known: Sequence[Read]) -> NamesHead:
    """Fits the networks and puts them together as one."""
    features = torch.tensor(np.concatenate([each.features for each in known]))
    kinds = torch.tensor([label for each in known for label in each.labels])
    weights = torch.tensor([WEIGHTS[each.row.source] for each in known for _ in each.labels])
    mean, spread = features.mean(0), features.std(0) + 1e-3
    features -= mean
    features /= spread
    members = [_member(features, kinds, weights, seed) for seed in range(MEMBERS)]
    hidden = torch.cat([member[0].weight for member in members]).T / spread[:, None]
    hidden_bias = torch.cat([member[0].bias for member in members]) - mean @ hidden
    out = torch.cat([member[2].weight for member in members], 1).T / MEMBERS
    out_bias = torch.stack([member[2].bias for member in members]).mean(0)
    return NamesHead(FOUND, *(part.detach().numpy() for part in (hidden, hidden_bias, out, out_bias)))


def _member(features: torch.Tensor, kinds: torch.Tensor, weights: torch.Tensor, seed: int) -> Any:
    torch.manual_seed(seed)
    first, last = torch.nn.Linear(features.shape[1], HIDDEN), torch.nn.Linear(HIDDEN, len(KINDS))
    network = torch.nn.Sequential(first, torch.nn.ReLU(), last)
    batches = len(features) // BATCH + 1
    optimizer = torch.optim.AdamW(network.parameters(), weight_decay=DECAY)
    rate = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, EPOCHS * batches)
    drop = torch.nn.functional.dropout
    for _ in range(EPOCHS):
        for part in torch.randperm(len(features)).split(BATCH):
            logits = last(drop(torch.relu(first(drop(features[part], DROPOUT))), DROPOUT))
            losses = torch.nn.functional.cross_entropy(logits, kinds[part], reduction="none")
            optimizer.zero_grad()
            (losses * weights[part]).mean().backward()
            optimizer.step()
            rate.step()
    return network


def report_folds(known: Sequence[Read], heads: dict[int, NamesHead]) -> None:
    """Prints what heads say of rows that they have not seen."""
    said = {id(each.features): heads[each.fold].probabilities(each.features) for each in known}
    report(known, lambda features: said[id(features)])


def report(known: Sequence[Read], probabilities: Callable[[Floats], Floats]) -> None:
    """Prints precision, recall and F1 of each kind at several thresholds; spans that overlap agree."""
    marked = [join(each.row.text, each.words.spans, probabilities(each.features), FOUND) for each in known]
    for kind in FOUND:
        for threshold in THRESHOLDS:
            wanted = [[(s, e) for s, e, k in each.row.spans if KINDS[k] == kind] for each in known]
            found = [[mark for mark in marks if mark.category == kind and mark.score >= threshold] for marks in marked]
            _print_rates(f"{kind} at {threshold}", wanted, found)


def _print_rates(name: str, wanted: Sequence[Sequence[tuple[int, int]]], found: Sequence[Sequence[Mark]]) -> None:
    right = reached = 0
    for spans, marks in zip(wanted, found, strict=True):
        right += sum(any(mark.start < end and start < mark.end for start, end in spans) for mark in marks)
        reached += sum(any(mark.start < end and start < mark.end for mark in marks) for start, end in spans)
    precision = right / max(sum(map(len, found)), 1)
    recall = reached / max(sum(map(len, wanted)), 1)
    f1 = 2 * precision * recall / max(precision + recall, 1e-9)
    print(f"  {name:16} precision {precision:.3f} recall {recall:.3f} f1 {f1:.3f}", flush=True)


def write(head: NamesHead, path: Path = ARRAYS) -> None:
    """Writes the arrays in half precision, and the digest of the file."""
    arrays: dict[str, Any] = {"names": np.array(head.names)}
    arrays |= {part: getattr(head, part).astype(np.float16) for part in ("hidden", "out")}
    arrays |= {part: getattr(head, part).astype(np.float32) for part in ("hidden_bias", "out_bias")}
    np.savez_compressed(path, **arrays)
    path.with_suffix(".sha256").write_text(hashlib.sha256(path.read_bytes()).hexdigest() + "\n")
    print(f"{path}: {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
