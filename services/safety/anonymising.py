"""Replaces personal data by numbered placeholders, and puts it back.

The way back is handed to the caller and kept nowhere else.
"""

from __future__ import annotations

import concurrent.futures
import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from kit.errors import InvalidArgument, Unavailable
from services.safety.checking import check
from services.safety.detectors.pii import PersonalData
from services.safety.policy import Direction, Profile, Rule, Verdict
from services.safety.screening import Finding, Screening, State

# Presidio gives phone numbers 0.4 and nothing useful less.
_THRESHOLD = 0.4
_DEADLINE_S = 5.0

_TOKEN = re.compile(r"<[A-Z][A-Z0-9_]{0,99}_[0-9]{1,9}>")


class Placeholder(NamedTuple):
    """A placeholder, what it stands for, and of what kind that is."""

    token: str
    original: str
    category: str


class Anonymiser:
    """Finds personal data and replaces it."""

    def __init__(self, detector: PersonalData, pool: concurrent.futures.Executor) -> None:
        self._detector = detector
        self._pool = pool

    async def redact(
        self, texts: Sequence[str], categories: Sequence[str], known: Sequence[Placeholder]
    ) -> tuple[list[str], list[Placeholder]]:
        """Replaces what is found; equal originals get equal placeholders, also those of earlier calls.

        Raises:
            InvalidArgument: A category is unknown or a placeholder malformed.
            Unavailable: The detector did not finish.
        """
        mapping = _Mapping(known, texts)
        rule = Rule("pii", _THRESHOLD, Verdict.REDACT, self._actions(categories), False, _DEADLINE_S)
        profile = Profile("redact", "", 0, {Direction.INPUT: (rule,)})
        screening = Screening(profile, Direction.INPUT, {"pii": self._detector}, self._pool)
        screened = await check(screening, texts)
        if any(run.state in (State.FAILED, State.TIMED_OUT) for run in screening.runs):
            raise Unavailable("DETECTOR_UNAVAILABLE", "the texts could not be read in time; send fewer or shorter ones")
        redacted = [mapping.apply(text, found.findings) for text, found in zip(texts, screened, strict=True)]
        return redacted, mapping.placeholders

    def _actions(self, categories: Sequence[str]) -> Mapping[str, Verdict]:
        for index, category in enumerate(categories):
            if category not in self._detector.categories:
                known = ", ".join(self._detector.categories)
                raise InvalidArgument(f"categories[{index}]", f"unknown category; choose from: {known}")
        if not categories:
            return {}
        return {c: Verdict.REDACT if c in categories else Verdict.ALLOW for c in self._detector.categories}


class _Mapping:
    """Numbers originals, category by category."""

    def __init__(self, known: Sequence[Placeholder], texts: Iterable[str]) -> None:
        check_placeholders(known)
        self.placeholders = list(known)
        self._tokens = {(p.category, p.original): p.token for p in known}
        # A text may already hold something that reads like a placeholder; its number must not be given away.
        self._taken = {p.token for p in known}.union(*(_TOKEN.findall(text) for text in texts))
        self._numbers: dict[str, itertools.count[int]] = {}

    def apply(self, text: str, findings: Sequence[Finding]) -> str:
        """Replaces findings, which are in order; those that overlap become one."""
        pieces: list[str] = []
        at = 0
        for start, end, category in _merged(findings):
            pieces += [text[at:start], self._token(category, text[start:end])]
            at = end
        return "".join([*pieces, text[at:]])

    def _token(self, category: str, original: str) -> str:
        token = self._tokens.get((category, original))
        if token is None:
            numbers = self._numbers.setdefault(category, itertools.count(1))
            token = next(t for t in (f"<{category}_{n}>" for n in numbers) if t not in self._taken)
            self._tokens[category, original] = token
            self.placeholders.append(Placeholder(token, original, category))
        return token


def _merged(findings: Iterable[Finding]) -> list[tuple[int, int, str]]:
    merged: list[tuple[int, int, str]] = []
    for finding in findings:
        if merged and finding.start < merged[-1][1]:
            start, end, category = merged[-1]
            merged[-1] = start, max(end, finding.end), category
        else:
            merged.append((finding.start, finding.end, finding.category))
    return merged


def restore(texts: Iterable[str], known: Sequence[Placeholder]) -> tuple[list[str], int]:
    """Puts originals back; what was put back is not looked at again. Returns the texts and how many were replaced.

    Raises:
        InvalidArgument: A placeholder is malformed or given twice.
    """
    check_placeholders(known)
    originals = {p.token: p.original for p in known}
    count = 0

    def original(match: re.Match[str]) -> str:
        nonlocal count
        count += match.group() in originals
        return originals.get(match.group(), match.group())

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
        if placeholder.token in seen:
            raise InvalidArgument(f"placeholders[{index}].token", "is given twice")
        seen.add(placeholder.token)
