"""Replaces personal data by numbered placeholders, and puts it back.

Two kinds of placeholder never meet: `<EMAIL_ADDRESS>` leads nowhere, `<EMAIL_ADDRESS_1>` leads back. So a card number
that a model made up and that was redacted from its answer can never be taken for the caller's own. Equal originals get
equal numbers; a number that the texts already hold in writing is not given away. The way back is handed to the caller
and kept nowhere else.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from kit.errors import InvalidArgument, Unavailable
from services.safety.checking import Screened, Text, check, stretches
from services.safety.detectors.detector import Detector
from services.safety.policy import Direction, Profile, Rule, Verdict
from services.safety.reading import Stretch, looks_like_json
from services.safety.run import State, duties
from services.safety.screening import Finding, Screening

# Presidio gives phone numbers 0.4 and nothing useful less; names are learned, and surer than that when they are right.
_THRESHOLDS = {"pii": 0.4, "names": 0.6}
_DEADLINE_S = 5.0

# Models write placeholders back in whatever case they like.
_TOKEN = re.compile(r"<[A-Z][A-Z0-9_]{0,99}_[0-9]{1,9}>", re.IGNORECASE | re.ASCII)


class Placeholder(NamedTuple):
    """A placeholder, what it stands for, and of what kind that is."""

    token: str
    original: str
    category: str


class Anonymiser:
    """Finds personal data and replaces it.

    Args:
        detectors: By name; each finds personal data.
        pool: Threads for long texts.
    """

    def __init__(self, detectors: Mapping[str, Detector], pool: concurrent.futures.Executor) -> None:
        self._detectors = detectors
        self._pool = pool
        self._categories = sorted({category for each in detectors.values() for category in each.categories})

    async def redact(
        self, texts: Sequence[str], categories: Sequence[str], known: Sequence[Placeholder]
    ) -> tuple[list[str], list[Placeholder]]:
        """Replaces what is found; equal originals get equal placeholders, also those of earlier calls.

        Raises:
            InvalidArgument: A category is unknown or a placeholder malformed.
            Unavailable: A detector did not finish.
        """
        profile = Profile("redact", "", 0, {Direction.INPUT: self._rules(categories)})
        screening = Screening(profile, Direction.INPUT, duties(profile, Direction.INPUT, self._detectors), self._pool)
        screened = await check(screening, [Text(text, is_json=looks_like_json(text)) for text in texts])
        if any(run.state in (State.FAILED, State.TIMED_OUT) for run in screening.runs):
            raise Unavailable("DETECTOR_UNAVAILABLE", "the texts could not be read in time; send fewer or shorter ones")
        mapping = _Mapping(known, (found.reading.text for found in screened))
        return [mapping.apply(found)[0] for found in screened], mapping.placeholders

    def _rules(self, categories: Sequence[str]) -> tuple[Rule, ...]:
        for index, category in enumerate(categories):
            if category not in self._categories:
                known = ", ".join(self._categories)
                raise InvalidArgument(f"categories[{index}]", f"unknown category; choose from: {known}")
        asked = frozenset(categories)
        actions = {c: Verdict.REDACT if c in asked else Verdict.ALLOW for c in self._categories} if asked else {}
        return tuple(
            Rule(
                name,
                _THRESHOLDS.get(name, 0.4),
                Verdict.REDACT,
                actions,
                False,
                _DEADLINE_S,
                anonymises=True,
                anonymised=asked,
            )
            for name in self._detectors
        )


def anonymise(screened: Sequence[Screened]) -> tuple[list[Screened], list[Placeholder]]:
    """Numbers what the policy redacts with a way back, over all texts of a prompt; a blocked prompt stays as it is."""
    is_blocked = any(each.verdict is Verdict.BLOCK for each in screened)
    if is_blocked or not any(finding.reversible for each in screened for finding in each.findings):
        return list(screened), []
    mapping = _Mapping((), (each.reading.text for each in screened))
    numbered = [_numbered(mapping, each) for each in screened]
    return numbered, mapping.placeholders


def _numbered(mapping: _Mapping, screened: Screened) -> Screened:
    if screened.verdict is not Verdict.REDACT:
        return screened
    replacement, findings = mapping.apply(screened)
    return Screened(screened.verdict, replacement, findings, screened.reading)


class _Mapping:
    """Numbers originals, category by category."""

    def __init__(self, known: Sequence[Placeholder], texts: Iterable[str]) -> None:
        check_placeholders(known)
        self.placeholders = list(known)
        self._tokens = {(p.category, p.original): p.token for p in known}
        # A text may already hold something that reads like a placeholder; its number must not be given away.
        taken = {p.token for p in known}.union(*(_TOKEN.findall(text) for text in texts))
        self._taken = {token.upper() for token in taken}
        self._numbers: dict[str, itertools.count[int]] = {}

    def apply(self, screened: Screened) -> tuple[str, tuple[Finding, ...]]:
        """Replaces findings, which are in order, overlapping ones as one; returns them with what replaced them."""
        replaced: list[Stretch] = []
        told: list[Finding] = []
        for group, end in stretches(screened.findings):
            first = group[0]
            placeholder = first.placeholder
            if first.reversible:
                placeholder = self._token(first.category, screened.reading.text[first.start : end])
                told += [dataclasses.replace(finding, token=placeholder) for finding in group]
            else:
                told += group
            replaced.append(Stretch(first.start, end, placeholder))
        others = [finding for finding in screened.findings if finding.action is not Verdict.REDACT]
        return screened.reading.replaced(replaced), tuple(sorted([*told, *others], key=lambda finding: finding.place))

    def _token(self, category: str, original: str) -> str:
        token = self._tokens.get((category, original))
        if token is None:
            numbers = self._numbers.setdefault(category, itertools.count(1))
            token = next(t for t in (f"<{category}_{n}>" for n in numbers) if t not in self._taken)
            self._tokens[category, original] = token
            self.placeholders.append(Placeholder(token, original, category))
        return token


def restore(texts: Iterable[str], known: Sequence[Placeholder]) -> tuple[list[str], int]:
    """Puts originals back; what was put back is not looked at again. Returns the texts and how many were replaced.

    Raises:
        InvalidArgument: A placeholder is malformed or given twice.
    """
    check_placeholders(known)
    originals = {p.token.upper(): p.original for p in known}
    count = 0

    def original(match: re.Match[str]) -> str:
        nonlocal count
        token = match.group().upper()
        count += token in originals
        return originals.get(token, match.group())

    return [_TOKEN.sub(original, text) for text in texts], count


def check_placeholders(known: Sequence[Placeholder]) -> None:
    """Refuses placeholders that could not have come from `Anonymiser.redact`.

    Raises:
        InvalidArgument: Names the first.
    """
    seen: set[str] = set()
    for index, placeholder in enumerate(known):
        if not _TOKEN.fullmatch(placeholder.token):
            raise InvalidArgument(f"placeholders[{index}].token", "must look like <EMAIL_ADDRESS_1>")
        if placeholder.token.upper() in seen:
            raise InvalidArgument(f"placeholders[{index}].token", "is given twice")
        seen.add(placeholder.token.upper())
