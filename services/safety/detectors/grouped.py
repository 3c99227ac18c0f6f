"""Finds identity numbers that are written in groups of digits, in a run of such groups that was cut out of a text."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple

from services.safety.detectors import checksums
from services.safety.detectors.detector import Match


class _Grouped(NamedTuple):
    category: str
    score: float
    shape: re.Pattern[str]
    check: Callable[[str], bool] | None = None


_ALL = (
    _Grouped("BR_CPF", 0.9, re.compile(r"(?<![0-9])[0-9]{3}\.[0-9]{3}\.[0-9]{3}-[0-9]{2}(?![0-9])"), checksums.cpf),
    _Grouped(
        "IN_AADHAAR",
        0.9,
        re.compile(r"(?<![0-9])(?<![0-9][ -])[2-9][0-9]{3}([ -])[0-9]{4}\1[0-9]{4}(?![ -]?[0-9])"),
        checksums.verhoeff,
    ),
    # The IRS gives these middle groups only.
    _Grouped(
        "US_ITIN", 0.7, re.compile(r"(?<![0-9])9[0-9]{2}-(?:5[0-9]|6[0-5]|7[0-9]|8[0-8]|9[0-24-9])-[0-9]{4}(?![0-9])")
    ),
)
GROUPED_CATEGORIES = frozenset(each.category for each in _ALL)


def find_grouped(run: str, wanted: frozenset[str]) -> list[Match]:
    """Finds identity numbers in a run of digit groups; positions are the run's."""
    return [
        Match(found.start(), found.end(), each.category, each.score)
        for each in _ALL
        if each.category in wanted
        for found in each.shape.finditer(run)
        if each.check is None or each.check("".join(filter(str.isdigit, found.group())))
    ]
