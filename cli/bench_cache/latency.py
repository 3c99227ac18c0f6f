"""`millrace bench cache --latency`: what a caller waits for ten questions, and for ten that ask the same otherwise.

A question that misses waits for the lookup, for a model and for the answer to be stored; the paraphrase waits for the
lookup alone. The model is only waited for (`--upstream-ms`): the figures are those of the cache on this machine.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from xml.sax.saxutils import escape

from rich.console import Console
from rich.table import Table

from cli.bench_cache.chart import COLOURS
from cli.bench_cache.drive import CacheDriver
from cli.errors import CommandError

QUESTIONS = (
    ("How do I reset my password?", "I forgot my password, how can I reset it?"),
    ("What is the capital of Australia?", "Which city is the capital of Australia?"),
    ("How do I sort a list in Python?", "In Python, how can I sort a list?"),
    ("Why is the sky blue?", "What makes the sky look blue?"),
    ("How long should I boil an egg?", "For how long do I have to boil an egg?"),
    ("What causes inflation?", "What are the causes of inflation?"),
    ("How can I improve my sleep?", "What can I do to improve my sleep?"),
    ("Explain photosynthesis to a child", "How would you explain photosynthesis to a child?"),
    ("What are the symptoms of dehydration?", "Which symptoms does dehydration have?"),
    ("How do I remove a red wine stain?", "What is the best way to remove a stain of red wine?"),
)
BAR_WIDTH, BAR_HEIGHT, LEFT, GAP = 380, 14, 320, 8


@dataclass(frozen=True, slots=True)
class Waited:
    """What one question and its paraphrase took."""

    question: str
    paraphrase: str
    miss_ms: float
    hit_ms: float

    def record(self) -> dict[str, Any]:
        """As the JSON file has it."""
        return {
            "question": self.question,
            "paraphrase": self.paraphrase,
            "miss_ms": round(self.miss_ms, 3),
            "hit_ms": round(self.hit_ms, 3),
            "speed_up": round(self.miss_ms / self.hit_ms, 1),
        }


async def measure(driver: CacheDriver, upstream_s: float) -> list[Waited]:
    """Asks every question, then every paraphrase.

    Raises:
        CommandError: A question was answered before it was stored, or a paraphrase by another question's answer.
    """
    misses, entries = [], []
    for question, _ in QUESTIONS:
        begin = time.perf_counter()
        if await driver.find(question) is not None:
            raise CommandError(f"{question!r} was answered though nothing like it was stored")
        await asyncio.sleep(upstream_s)
        entries.append(await driver.store(question))
        misses.append((time.perf_counter() - begin) * 1000)
    waited = []
    for (question, paraphrase), entry, miss_ms in zip(QUESTIONS, entries, misses, strict=True):
        begin = time.perf_counter()
        found = await driver.find(paraphrase)
        hit_ms = (time.perf_counter() - begin) * 1000
        if found != entry:
            raise CommandError(f"{paraphrase!r} was not answered as {question!r}")
        waited.append(Waited(question, paraphrase, miss_ms, hit_ms))
    return waited


def show(console: Console, waited: Sequence[Waited], upstream_ms: float) -> None:
    """Prints a row for each question, and the medians."""
    table = Table(title=f"Ten questions of a model that takes {upstream_ms:g} ms, and the same in other words")
    for name in ("question", "paraphrase"):
        table.add_column(name)
    for name in ("miss ms", "hit ms", "speed-up"):
        table.add_column(name, justify="right", no_wrap=True)
    for each in waited:
        table.add_row(each.question, each.paraphrase, *_figures(each.miss_ms, each.hit_ms))
    medians = [statistics.median(getattr(each, name) for each in waited) for name in ("miss_ms", "hit_ms")]
    table.add_section()
    table.add_row("median", "", *_figures(*medians))
    console.print(table)


def svg(waited: Sequence[Waited]) -> str:
    """Two bars for each question: what it took, and what its paraphrase took."""
    longest = max(max(each.miss_ms, each.hit_ms) for each in waited)
    height = (2 * BAR_HEIGHT + GAP) * len(waited) + 2 * GAP
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {LEFT + BAR_WIDTH + 80} {height}" '
        'font-family="sans-serif" font-size="12">',
        '<rect width="100%" height="100%" fill="white"/>',
    ]
    for row, each in enumerate(waited):
        top = GAP + row * (2 * BAR_HEIGHT + GAP)
        bars = ((each.question, each.miss_ms, COLOURS[1]), (each.paraphrase, each.hit_ms, COLOURS[0]))
        for at, (text, taken_ms, colour) in enumerate(bars):
            y, width = top + at * BAR_HEIGHT, taken_ms / longest * BAR_WIDTH
            lines += [
                f'<text x="{LEFT - 8}" y="{y + 11}" text-anchor="end">{escape(text)}</text>',
                f'<rect x="{LEFT}" y="{y + 1}" width="{width:.1f}" height="{BAR_HEIGHT - 2}" fill="{colour}"/>',
                f'<text x="{LEFT + width + 6:.1f}" y="{y + 11}">{taken_ms:.1f} ms</text>',
            ]
    return "\n".join([*lines, "</svg>", ""])


def _figures(miss_ms: float, hit_ms: float) -> tuple[str, str, str]:
    return f"{miss_ms:.1f}", f"{hit_ms:.1f}", f"{miss_ms / hit_ms:.0f} x"
