"""Tokens per second over callers as SVG, one line for each engine. What is drawn is given whole."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from xml.sax.saxutils import escape

WIDTH, HEIGHT = 820, 440
LEFT, RIGHT, TOP, BOTTOM = 64, 220, 40, 56
TICK_COUNT = 5
# Distinct to the colour-blind too: Okabe and Ito 2008.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")

Lines = Mapping[str, Sequence[tuple[int, float]]]


def svg(records: Sequence[Mapping[str, Any]]) -> str:
    """The records of one run as a document of its own; callers stand at equal distances."""
    lines: dict[str, list[tuple[int, float]]] = {}
    for one in records:
        lines.setdefault(f"{one['engine']} {one['precision']}", []).append((one["concurrency"], one["tokens_per_s"]))
    levels = sorted({level for line in lines.values() for level, _ in line})
    # The machine's limit may lie far above what anything reaches: lines that leave the chart are cut off.
    reached = [rate for name, line in lines.items() for _, rate in line if not name.startswith("machine")]
    top = _ceiling(max(reached, default=1.0))
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" '
        'font-size="12">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        _label((LEFT + WIDTH - RIGHT) / 2, 22, "Tokens per second by callers at once", size=15),
        *_axes(levels, top),
        *_drawn(lines, levels, top),
    ]
    return "\n".join([*parts, "</svg>", ""])


def _axes(levels: Sequence[int], top: float) -> Iterator[str]:
    for step in range(TICK_COUNT):
        rate = top * step / (TICK_COUNT - 1)
        y = _y(rate, top)
        yield f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="#ddd"/>'
        yield _label(LEFT - 8, y + 4, f"{rate:g}", anchor="end")
    for level in levels:
        yield _label(_x(level, levels), HEIGHT - BOTTOM + 18, str(level))
    yield _label((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 12, "callers")


def _drawn(lines: Lines, levels: Sequence[int], top: float) -> Iterator[str]:
    for number, (name, line) in enumerate(lines.items()):
        colour = COLOURS[number % len(COLOURS)]
        places = [(_x(level, levels), _y(min(rate, top), top)) for level, rate in line]
        dash = "" if number < len(COLOURS) else ' stroke-dasharray="5 3"'
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        yield f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.5"{dash}/>'
        for (x, y), (_, rate) in zip(places, line, strict=True):
            yield f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"><title>{rate:g} tokens/s</title></circle>'
        yield _label(WIDTH - RIGHT + 16, TOP + 12 + 18 * number, name, anchor="start", colour=colour)


def _x(level: int, levels: Sequence[int]) -> float:
    return LEFT + (levels.index(level) + 0.5) / len(levels) * (WIDTH - LEFT - RIGHT)


def _y(rate: float, top: float) -> float:
    return HEIGHT - BOTTOM - rate / top * (HEIGHT - TOP - BOTTOM)


def _ceiling(rate: float) -> float:
    """The next round number: 1, 2, 4 or 8 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(max(rate, 1e-9)))
    return next(step * power for step in (1, 2, 4, 8, 10) if step * power >= rate)


def _label(x: float, y: float, text: str, *, anchor: str = "middle", size: int = 12, colour: str = "#333") -> str:
    place = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}" fill="{colour}"'
    return f"<text {place}>{escape(text)}</text>"
