"""A chart of a few series of points, as SVG for a document and as characters for a terminal.

Shares only: both axes are percentages. What is drawn is given whole; nothing here computes a figure.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

WIDTH, HEIGHT = 720, 440
LEFT, RIGHT, TOP, BOTTOM = 64, 24, 40, 56
TICK_COUNT = 6
# Distinct to the colour-blind too: Okabe and Ito 2008.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7")
MARKS = "o*x+"
COLUMNS, ROWS = 64, 16


@dataclass(frozen=True, slots=True)
class Point:
    """A point, with the 95 % interval of its x where it has one."""

    x: float
    y: float
    label: str = ""
    interval: tuple[float, float] | None = None


@dataclass(frozen=True, slots=True)
class Series:
    """Points of one kind, joined in the order given if `joined`."""

    name: str
    points: Sequence[Point]
    joined: bool = True


@dataclass(frozen=True, slots=True)
class Chart:
    """What to draw. All values are shares from 0 to 1; the axes end at the first tick beyond the largest."""

    title: str
    x_label: str
    y_label: str
    series: Sequence[Series]

    @property
    def _limits(self) -> tuple[float, float]:
        points = [point for series in self.series for point in series.points]
        x_max = max((max(point.x, (point.interval or (0, 0))[1] if point.y else 0) for point in points), default=0)
        return _ceiling(x_max), _ceiling(max((point.y for point in points), default=0))

    def svg(self) -> str:
        """The chart as a document of its own."""
        lines = [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" '
            'font-size="12">',
            f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
            _label(WIDTH / 2, 22, self.title, size=15),
            *self._axes(),
        ]
        for number, series in enumerate(self.series):
            lines += self._drawn(series, COLOURS[number % len(COLOURS)], number)
        return "\n".join([*lines, "</svg>", ""])

    def text(self) -> str:
        """The chart in characters, with its legend below."""
        x_max, y_max = self._limits
        grid = [[" "] * (COLUMNS + 1) for _ in range(ROWS + 1)]
        for number, series in enumerate(self.series):
            for point in series.points:
                row, column = ROWS - round(point.y / y_max * ROWS), round(min(point.x / x_max, 1) * COLUMNS)
                grid[row][column] = MARKS[number % len(MARKS)]
        lines = [f"{y_max * (ROWS - row) / ROWS:>6.1%} |{''.join(cells)}" for row, cells in enumerate(grid)]
        legend = "   ".join(f"{MARKS[at % len(MARKS)]} {series.name}" for at, series in enumerate(self.series))
        axis = f"{'':>6} +{'-' * (COLUMNS + 1)}\n{'':>8}{'0%':<{COLUMNS - 6}}{x_max:>7.1%}"
        return "\n".join([f"{self.y_label}", *lines, axis, f"{'':>8}{self.x_label}   {legend}"])

    def _axes(self) -> Iterator[str]:
        x_max, y_max = self._limits
        for step in range(TICK_COUNT):
            share = step / (TICK_COUNT - 1)
            x, y = self._place(share * x_max, share * y_max)
            yield f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="#ddd"/>'
            yield f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}" stroke="#ddd"/>'
            yield _label(LEFT - 8, y + 4, _percent(share * y_max), anchor="end")
            yield _label(x, HEIGHT - BOTTOM + 18, _percent(share * x_max))
        yield _label((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 12, self.x_label)
        middle = (TOP + HEIGHT - BOTTOM) / 2
        yield f'<g transform="rotate(-90 16 {middle})">{_label(16, middle, self.y_label)}</g>'

    def _drawn(self, series: Series, colour: str, number: int) -> Iterator[str]:
        places = [self._place(point.x, point.y) for point in series.points]
        if series.joined and len(places) > 1:
            path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
            yield f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.5"/>'
        for point, (x, y) in zip(series.points, places, strict=True):
            if point.interval:
                (low, _), (high, _) = (self._place(end, point.y) for end in point.interval)
                yield f'<line x1="{low:.1f}" x2="{high:.1f}" y1="{y:.1f}" y2="{y:.1f}" stroke="{colour}"/>'
            if point.label or not series.joined:
                yield f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{colour}"/>'
            if point.label:
                yield _label(x + 7, y - 6, point.label, anchor="start", colour=colour)
        yield _label(WIDTH - RIGHT - 8, HEIGHT - BOTTOM - 12 - 18 * number, series.name, anchor="end", colour=colour)

    def _place(self, x: float, y: float) -> tuple[float, float]:
        x_max, y_max = self._limits
        across = LEFT + min(x / x_max, 1) * (WIDTH - LEFT - RIGHT)
        return across, HEIGHT - BOTTOM - y / y_max * (HEIGHT - TOP - BOTTOM)


def _ceiling(value: float) -> float:
    """The next round share: 1, 2, 2.5 or 5 times a power of ten, at most 1."""
    if value <= 0:
        return 0.1
    power = 10.0 ** math.floor(math.log10(value))
    return min(1.0, next(step * power for step in (1, 2, 2.5, 5, 10) if step * power >= value * (1 - 1e-9)))


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"


def _label(x: float, y: float, text: str, *, anchor: str = "middle", size: int = 12, colour: str = "#333") -> str:
    place = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}" fill="{colour}"'
    return f"<text {place}>{escape(text)}</text>"
