"""Trains the embedded heads of the safety service: `python -m tools.train_safety --help`; minutes, the same each time.

    python -m tools.train_safety --moderation FILE --tweets FILE --injection FILE --everyday FILE --cache FOLDER

The files are JSON lines, compressed or not, in the formats of `millrace bench safety`; docs/safety-models.md names
those that the shipped heads were taught by. What is printed is measured on rows that were not fitted: five folds, in
which lessons that were made from one sentence stay together, and the mean of three such splits. It writes
services/safety/learned/heads.npz and its digest, and downloads nothing.
"""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.metrics import average_precision_score

from services.safety.learned.features import Floats
from services.safety.learned.heads import ARRAYS, Heads, probabilities
from tools.safety_fit import UNKNOWN, Lesson, calibrated, fit, logits, unseen_logits
from tools.safety_rows import Numbers, Row, injection_lessons, moderation_lessons, read_rows

MODERATION = ("sexual", "hate", "violence", "harassment", "self-harm", "hate/threatening", "violence/graphic", "any")
INJECTION = ("direct", "planted")
# Tweets teach slurs, but their labels are others' and their style is no prompt's. Of the weights of lessons 0.1 to 0.6
# did equally well.
MODERATION_WEIGHTS = {"moderation": 1.0, "lessons": 0.3, "benign": 0.1, "tweets": 0.05}
INJECTION_WEIGHTS = {"injection": 1.0, "lessons": 1.0, "everyday": 0.5}
TWEETS_OF_EACH_LABEL = 1000
MODERATION_REPEATS, INJECTION_REPEATS = 4, 5
# Of the everyday files (bank questions, made-up sentences with personal data, messages) every so-manieth row is taken.
EVERYDAY_STEPS = (40, 3, 10)
# Kinds of planted instructions that are what any user might ask: only where they stand makes them attacks.
ORDINARY = (
    "Task Automation",
    "Business Intelligence",
    "Conversational Agent",
    "Research Assistance",
    "Sentiment Analysis",
)
# Kinds of planted instructions that nobody means well, wherever they stand: code that acts against the machine, and
# answers that no filter can read.
HOSTILE = (
    "Data Eavesdropping",
    "Traffic Analysis",
    "Keylogging",
    "Screen Scraping",
    "Introduce System Fingerprinting",
    "Blocking Internet Connection",
    "Corrupting an Operating System",
    "Encrypting Documents and Demanding Ransom (Ransomware)",
    "Compromising Computers",
    "Bringing Down Hosts and Servers (Denial of Service)",
    "Substitution Ciphers",
    "Base Encoding",
    "Reverse Text",
    "Emoji Substitution",
)
THRESHOLDS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)


def main() -> None:
    """Trains, measures and writes the heads."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("moderation", "tweets", "injection", "cache"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument(
        "--everyday", type=Path, required=True, nargs=len(EVERYDAY_STEPS), help="texts that are no attack"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the lessons")
    args = parser.parse_args()
    numbers = Numbers(args.cache)
    harms = moderation_rows(args.moderation, args.injection, args.tweets, args.seed)
    attacks = injection_rows(args.injection, args.everyday, args.seed)
    moderation = _learn(numbers, harms, MODERATION, MODERATION_WEIGHTS)
    write({"moderation": moderation, "injection": _learn(numbers, attacks, INJECTION, INJECTION_WEIGHTS)})


def moderation_rows(moderation: Path, injection: Path, tweets: Path, seed: int) -> list[Row]:
    """Rows of harm: labelled texts, lessons, benign prompts that look frightening, and tweets for slurs."""
    rows = [Row(row["text"], _labels(row["labels"]), "moderation") for row in read_rows(moderation)]
    harmless = dict.fromkeys(MODERATION, 0)
    rows += [Row(row["text"], harmless, "benign") for row in read_rows(injection) if not row["injection"]]
    rows += moderation_lessons(seed, MODERATION_REPEATS, MODERATION)
    calm = (row for row in injection_lessons(seed, repeats=1) if row.group.startswith(("benign", "everyday")))
    rows += [Row(row.text, harmless, "benign") for row in calm]
    known = [row for row in read_rows(tweets) if "hate" in row["labels"]]
    for label in (0, 1):
        of_label = [row for row in known if row["labels"]["hate"] == label][:TWEETS_OF_EACH_LABEL]
        rows += [Row(row["text"], {"hate": label}, "tweets") for row in of_label]
    return rows


def injection_rows(injection: Path, everyday: Sequence[Path], seed: int) -> list[Row]:
    """Rows of attacks and of what is none: labelled prompts, lessons of this project, everyday questions."""
    raw = read_rows(injection)
    # Some attacks are listed a second time without their kind.
    kinds = {row["text"]: row["kind"].removeprefix("indirect:") for row in raw if row.get("kind")}
    rows = []
    for row in raw:
        kind = kinds.get(row["text"], "")
        if kind in ORDINARY:
            continue
        labels = dict.fromkeys(INJECTION, 0)
        if row["injection"]:
            said = INJECTION if kind in HOSTILE else ["planted" if kind else "direct"]
            labels = dict.fromkeys(said, 1)
        rows.append(Row(row["text"], labels, "injection", kind))
    rows += injection_lessons(seed, INJECTION_REPEATS)
    plain = [row for file, step in zip(everyday, EVERYDAY_STEPS, strict=True) for row in read_rows(file)[::step]]
    rows += [Row(row["text"], dict.fromkeys(INJECTION, 0), "everyday") for row in plain]
    return rows


def write(kinds: Mapping[str, Heads], path: Path = ARRAYS) -> None:
    """Writes all heads in half precision, and the digest of the file."""
    arrays: dict[str, Any] = {}
    for kind, heads in kinds.items():
        arrays[f"{kind}.names"] = np.array(heads.names)
        arrays[f"{kind}.whether"] = np.array(heads.whether)
        arrays[f"{kind}.bias"] = heads.bias.astype(np.float32)
        for part in ("dense", "sparse", "rarity"):
            arrays[f"{kind}.{part}"] = getattr(heads, part).astype(np.float16)
        for part in ("centre", "points", "weights") if heads.anchors else ():
            arrays[f"{kind}.{part}"] = getattr(heads.anchors, part).astype(np.float16)
    np.savez_compressed(path, **arrays)
    path.with_suffix(".sha256").write_text(hashlib.sha256(path.read_bytes()).hexdigest() + "\n")
    print(f"{path}: {path.stat().st_size:,} bytes")


def _labels(labels: Mapping[str, int]) -> dict[str, int]:
    known = {name: label for name, label in labels.items() if name in MODERATION}
    return known | {"any": int(any(labels.values()))}


def _learn(numbers: Numbers, rows: Sequence[Row], names: Sequence[str], weights: Mapping[str, float]) -> Heads:
    numbers.fill(rows)
    lesson = Lesson.of(rows, names, weights)
    _report_transfer(lesson, names)
    unseen = unseen_logits(lesson, names)
    judges = np.array([weights[row.source] == 1 for row in rows])
    whether = names.index("any") if "any" in names else -1
    heads, unseen = calibrated(fit(lesson, names, whether=whether), lesson, unseen, judges)
    report(lesson, names, probabilities(unseen, whether), judges)
    return heads


def _report_transfer(lesson: Lesson, names: Sequence[str]) -> None:
    """Prints what heads say of the public set that were taught by everything but that."""
    is_public = np.array([row.source in ("moderation", "injection") for row in lesson.rows])
    seen, unseen = np.flatnonzero(~is_public), np.flatnonzero(is_public)
    sums = logits(fit(lesson, names, seen), lesson, unseen)
    for number, name in enumerate(names):
        labels = lesson.labels[unseen, number]
        known = labels != UNKNOWN
        _print_ranking(f"other set, {name}", labels[known], sums[None, known, number])


def report(lesson: Lesson, names: Sequence[str], scores: Floats, judges: Any) -> None:
    """Prints what unseen rows were given, shape (splits, rows, categories)."""
    for number, name in enumerate(names):
        rows = judges & (lesson.labels[:, number] != UNKNOWN)
        _print_ranking(name, lesson.labels[rows, number], scores[:, rows, number])
    kinds = np.array([row.source for row in lesson.rows])
    harm = lesson.labels.max(axis=1) == 1
    top = scores[..., [number for number, name in enumerate(names) if name != "any"]].max(axis=-1)
    _print_ranking("highest score", harm[judges], top[:, judges])
    for threshold in THRESHOLDS:
        shares = [
            f"{kind} {'recall' if label else 'false alarms'} {(top[:, rows] >= threshold).mean():.3f}"
            for kind in dict.fromkeys(kinds)
            for label in (True, False)
            if (rows := (kinds == kind) & (harm == label)).any()
        ]
        print(f"at {threshold}: {', '.join(shares)}")


def _print_ranking(name: str, labels: Any, splits: Floats) -> None:
    """Prints the mean over splits, and how far AUPRC goes from it."""
    auprc = [average_precision_score(labels, scores) for scores in splits]
    at_tenth = [(scores[labels == 1] > np.quantile(scores[labels == 0], 0.9)).mean() for scores in splits]
    print(
        f"{name:28} rows {len(labels):5} positive {labels.sum():4} auprc {np.mean(auprc):.3f} "
        f"({min(auprc):.3f} to {max(auprc):.3f}) recall at a tenth of false alarms {np.mean(at_tenth):.2f}",
        flush=True,
    )


if __name__ == "__main__":
    main()
