"""Cuts out the stretches of a text that may hold personal data, and has them judged.

Each layer reads the text from left to right for one shape of data. It knows how far such a stretch can reach, so it can
tell when one is complete although the text still goes on. A layer never looks further ahead than its reach nor further
back than `PersonalData.context`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar

from services.safety.detectors.detector import Match
from services.safety.detectors.grouped import find_grouped
from services.safety.detectors.ibans import SCORE as IBAN_SCORE
from services.safety.detectors.ibans import iban_end
from services.safety.detectors.phones import DIGITS_MAX, DIGITS_MIN
from services.safety.detectors.recognisers import Found, Recogniser

# RFC 5321: a local part has at most 64 octets, an address 254.
_LOCAL_MAX = 64
_DOMAIN_MAX = 189
EMAIL_HOLD = _LOCAL_MAX + 1 + _DOMAIN_MAX
LOCALHOST_SCORE = 0.6
_LOCAL_SIGNS = frozenset("!#$%&'*+-/=?^_`{|}~.")
_AT = re.compile(r"[\w!#$%&'*+\-/=?^_`{|}~.]@(?=\w)")
_DOMAIN = re.compile(rf"[\w.\-]{{1,{_DOMAIN_MAX}}}")

# Four characters and six groups of four, one more group, three more characters, and separators: 4 + 6*5 + 5 + 4.
_IBAN_MAX = 43
_IBAN = re.compile(rf"(?<![A-Z0-9])[A-Z]{{2}}[0-9]{{2}}(?:[ -]?[A-Z0-9]){{11,{_IBAN_MAX - 4}}}")
_IBAN_SMALL = re.compile(
    r"(?<![A-Za-z0-9])(?:[a-z]{2}|[A-Z][a-z]|[a-z][A-Z])[0-9]{2}"
    rf"(?:[ -]?[A-Za-z0-9]){{11,{_IBAN_MAX - 4}}}"
)
_IBAN_SMALL_BEGUN = re.compile(
    r"(?<![A-Za-z0-9])[A-Za-z](?:[A-Za-z](?:[0-9](?:[0-9](?:[ -]?[A-Za-z0-9]){0,10}[ -]?)?)?)?\Z"
)
_IBAN_BEGUN = re.compile(r"(?<![A-Z0-9])[A-Z](?:[A-Z](?:[0-9](?:[0-9](?:[ -]?[A-Z0-9]){0,10}[ -]?)?)?)?\Z")

# Eight groups of four with colons, an embedded IPv4 address and a prefix length fit in this.
_IPV6_MAX = 56
_IPV6 = re.compile(rf"(?<![\w:])(?:[0-9A-Fa-f]{{0,4}}:){{2}}[0-9A-Fa-f:./]{{0,{_IPV6_MAX - 10}}}")
_IPV6_BEGUN = re.compile(r"(?<![\w:])[0-9A-Fa-f]{0,4}(?::[0-9A-Fa-f]{0,4})?\Z")

# Digit groups with at most four separators between them, as libphonenumber allows.
_NUMBER_MAX = 48
_GAP_MAX = 4
_NUMBER = re.compile(rf"[+(\[]{{0,2}}[0-9](?:[-. ()\[\]/+]{{0,{_GAP_MAX}}}[0-9]){{0,{_NUMBER_MAX - 1}}}")
_NUMBER_BEGUN = re.compile(r"[+(\[]{1,2}\Z")
_GAP = re.compile(rf"[-. ()\[\]/+]{{0,{_GAP_MAX}}}")
_GROUP = re.compile(r"(?<![0-9])[0-9]+")
_DATE = re.compile(r"(?<![0-9])[12][0-9]{3}([-/.])[01]?[0-9]\1[0-3]?[0-9](?![0-9])")
# Recognisers look at most this far behind a number (":30" tells a time from a phone number).
_LOOK_AHEAD = 3
# A number that a cut through a longer run of digit groups may have split begins at most this far before the cut.
_SPLIT_MAX = 24

# A number that is no valid one of any known plan is a phone number where the words right before it say so.
CONTEXT = 40
NAMED_SCORE = 0.4
_NAMED_DIGITS_MAX = 15
_PHONE_WORD = re.compile(
    r"(?i)\b(?:(?:tele)?phone|mobile|cell|tel|fax|desk|whatsapp|sms|hotline|answering|messages|dial"
    r"|(?:call|ring|text|reach|phone)(?: (?:me|us|him|her|them|back))?)\b"
    r"[^\w,;?!]{0,3}(?:(?:number|no|nr|is|at|on|to|was)\b[^\w,;?!]{1,3}){0,3}\Z"
)

_URL_MAX = 250
_URL = re.compile(rf"(?<![^\s()<>\"'])[^\s()<>\"']{{4,{_URL_MAX}}}")
_URL_BEGUN = re.compile(rf"(?<![^\s()<>\"'])[^\s()<>\"']{{1,{_URL_MAX - 1}}}\Z")


class Layer:
    """Reads a text for one shape of data; `safe` is as in `detector.Cursor`."""

    entities: ClassVar[tuple[str, ...]] = ()

    def __init__(self, recognisers: Mapping[str, Recogniser], wanted: frozenset[str]) -> None:
        self.safe = 0
        self._recognisers = recognisers
        self._wanted = wanted

    def scan(self, text: str, offset: int, final: bool) -> list[Match]:
        """Reports the matches that have become certain; parameters as in `detector.Cursor.scan`."""
        at = self.safe - offset
        matches: list[Match] = []
        at = self._read(text, at, final, matches, offset)
        self.safe = max(self.safe, (len(text) if final else at) + offset)
        return matches

    def _read(self, text: str, at: int, final: bool, matches: list[Match], offset: int) -> int:
        raise NotImplementedError


class Emails(Layer):
    """E-mail addresses: what stands on both sides of an @."""

    def _read(self, text: str, at: int, final: bool, matches: list[Match], offset: int) -> int:
        low = at
        for sign in _AT.finditer(text, at):
            start = _local_start(text, sign.end() - 1, low)
            domain = _DOMAIN.match(text, sign.end())
            end = domain.end() if domain else sign.end()
            if end == len(text) and not final and end - sign.end() < _DOMAIN_MAX:
                return start
            low = sign.end()
            host = text[sign.end() : end].rstrip(".-")
            if host.lower() == "localhost":
                matches.append(Match(start + offset, sign.end() + len(host) + offset, "EMAIL_ADDRESS", LOCALHOST_SCORE))
                low = sign.end() + len(host)
            elif "." in host:
                for found in self._recognisers["EMAIL_ADDRESS"](text[start:end]):
                    matches.append(_match("EMAIL_ADDRESS", found, start + offset))
                    low = start + found.end
        return self._unfinished(text, low)

    def _unfinished(self, text: str, low: int) -> int:
        """Where an address may have begun that has not got its @ yet, or nothing behind it."""
        end = len(text)
        if text.endswith("@") and end - 1 >= low:
            end -= 1
        start = _local_start(text, end, low)
        return start if start < end else len(text)


def _local_start(text: str, end: int, low: int) -> int:
    start = end
    low = max(low, end - _LOCAL_MAX)
    while start > low and ((c := text[start - 1]).isalnum() or c in _LOCAL_SIGNS):
        start -= 1
    return start


class Ibans(Layer):
    """International bank account numbers."""

    def _read(self, text: str, at: int, final: bool, matches: list[Match], offset: int) -> int:
        while run := _IBAN.search(text, at):
            start, end = run.span()
            # One separator and one character more would still belong to it.
            if not final and len(text) - end < 2 and len(text) - start <= _IBAN_MAX:
                return start
            candidate = text[start : min(end, start + _IBAN_MAX) + 1]
            found = next((f for f in self._recognisers["IBAN_CODE"](candidate) if f.start == 0), None)
            if found:
                matches.append(_match("IBAN_CODE", found, start + offset))
            at = start + found.end if found else start + 1
        begun = _IBAN_BEGUN.search(text, max(at, len(text) - _IBAN_MAX))
        return begun.start() if begun else len(text)


class SmallIbans(Layer):
    """International bank account numbers in small letters."""

    def _read(self, text: str, at: int, final: bool, matches: list[Match], offset: int) -> int:
        while run := _IBAN_SMALL.search(text, at):
            start, end = run.span()
            if not final and len(text) - end < 2 and len(text) - start <= _IBAN_MAX:
                return start
            found = iban_end(text[start : start + _IBAN_MAX + 1])
            if found:
                matches.append(Match(start + offset, start + found + offset, "IBAN_CODE", IBAN_SCORE))
            at = start + (found or 1)
        begun = _IBAN_SMALL_BEGUN.search(text, max(at, len(text) - _IBAN_MAX))
        return begun.start() if begun else len(text)


class Ipv6s(Layer):
    """IPv6 addresses, with or without an embedded IPv4 address."""

    def _read(self, text: str, at: int, final: bool, matches: list[Match], offset: int) -> int:
        while run := _IPV6.search(text, at):
            start, end = run.span()
            if not final and len(text) - end < _LOOK_AHEAD:
                return start
            left = max(start - 1, 0)
            around = text[left : end + _LOOK_AHEAD]
            for found in self._recognisers["IP_ADDRESS"](around):
                if found.start + left >= start and ":" in around[found.start : found.end]:
                    matches.append(_match("IP_ADDRESS", found, left + offset))
            at = end
        begun = _IPV6_BEGUN.search(text, max(at, len(text) - 10))
        return begun.start() if begun else len(text)


class Numbers(Layer):
    """Runs of digit groups: cards, social security numbers, IPv4 addresses, phone numbers."""

    def _read(self, text: str, at: int, final: bool, matches: list[Match], offset: int) -> int:
        while run := _NUMBER.search(text, at):
            start, end = run.span()
            cut = sum(map(str.isdigit, run.group())) == _NUMBER_MAX
            if not (final or cut) and not _is_complete(text, run):
                return start
            if cut and not final and len(text) - end < _LOOK_AHEAD:
                return start
            found = self._judge(text, start, end)
            matches += [Match(m.start + offset, m.end + offset, m.category, m.score) for m in found]
            at = max([end if not cut else _last_group(text, start, end), *(m.end for m in found)])
        begun = _NUMBER_BEGUN.search(text, max(at, len(text) - 2))
        return begun.start() if begun else len(text)

    def _judge(self, text: str, start: int, end: int) -> list[Match]:
        """Has a run judged by the recognisers that could find something in so many digits."""
        run = text[start:end]
        digit_count = sum(map(str.isdigit, run))
        if digit_count < 4:
            return []
        left = max(start - 1, 0)
        around = text[left : end + _LOOK_AHEAD]
        found: list[Match] = []
        if digit_count >= 12 and "CREDIT_CARD" in self._wanted:
            found += self._cards(around, left, end)
        if run.count(".") >= 3 and "IP_ADDRESS" in self._wanted:
            found += self._named("IP_ADDRESS", around, left, end)
        if digit_count >= 9 and len(run) > 9 and "US_SSN" in self._wanted:
            found += self._named("US_SSN", around, left, end)
        if digit_count >= 9 and len(run) > 9:
            found += [replace(m, start=m.start + start, end=m.end + start) for m in find_grouped(run, self._wanted)]
        if digit_count >= DIGITS_MIN and "PHONE_NUMBER" in self._wanted and _may_be_phone(run):
            taken = any(m.start <= start + 2 and m.end >= end - 2 for m in found)
            found += [] if taken else self._phones(around, left, end)
            if (
                not found
                and digit_count <= _NAMED_DIGITS_MAX
                and _PHONE_WORD.search(text[max(0, start - CONTEXT) : start])
            ):
                found.append(Match(start, end, "PHONE_NUMBER", NAMED_SCORE))
        return found

    def _cards(self, around: str, left: int, end: int) -> list[Match]:
        """Card numbers that begin at any group: Presidio passes over one that follows a group of four digits."""
        found: list[Match] = []
        for group in _GROUP.finditer(around):
            begin = max(group.start() - 1, 0)
            taken = found and group.start() + left < found[-1].end
            # Every card begins with four digits in one piece, and none has more than 19.
            if taken or not 4 <= len(group.group()) <= 19:
                continue
            hits = self._recognisers["CREDIT_CARD"](around[begin : begin + _SPLIT_MAX + 1])
            found += [_match("CREDIT_CARD", hit, left + begin) for hit in hits if hit.start + begin == group.start()]
        return [m for m in found if m.end <= end]

    def _phones(self, around: str, left: int, end: int) -> list[Match]:
        hits = self._recognisers["PHONE_NUMBER"](around)
        # The begin of an extension (" x1") may have been taken for a part of it.
        found = [_match("PHONE_NUMBER", hit, left) for hit in hits]
        return [replace(m, end=min(m.end, end)) for m in found if m.start < end]

    def _named(self, entity: str, around: str, left: int, end: int) -> list[Match]:
        hits = self._recognisers[entity](around)
        return [m for m in (_match(entity, hit, left) for hit in hits) if m.end <= end]


def _may_be_phone(run: str) -> bool:
    """Tells dates, and digits in a piece longer than any phone number, from what is worth the time to look at."""
    return not _DATE.search(run) and min(map(len, _GROUP.findall(run))) <= DIGITS_MAX


def _is_complete(text: str, run: re.Match[str]) -> bool:
    """Whether a run of digits has ended and what a recogniser looks at behind it is there."""
    behind = len(text) - run.end()
    if behind > _GAP_MAX:
        return True
    gap = _GAP.match(text, run.end())
    ended = gap is not None and gap.end() < len(text)
    return ended and (behind >= _LOOK_AHEAD or len(run.group()) < 7)


def _last_group(text: str, start: int, end: int) -> int:
    """Where to go on reading in a run that was cut: at the first group that the cut may have split a number from."""
    groups = [g.start() for g in _GROUP.finditer(text, max(start + 1, end - _SPLIT_MAX), end)]
    return groups[0] if groups else end


class Urls(Layer):
    """Addresses of pages."""

    def _read(self, text: str, at: int, final: bool, matches: list[Match], offset: int) -> int:
        while run := _URL.search(text, at):
            start, end = run.span()
            if end == len(text) and not final and end - start < _URL_MAX:
                return start
            # What stands behind an @ belongs to an e-mail address.
            if "." in run.group() and ("@" not in run.group() or "://" in run.group()):
                matches += [_match("URL", f, start + offset) for f in self._recognisers["URL"](run.group())]
            at = end
        begun = _URL_BEGUN.search(text, max(at, len(text) - _URL_MAX))
        return begun.start() if begun else len(text)


def _match(category: str, found: Found, offset: int) -> Match:
    return Match(found.start + offset, found.end + offset, category, found.score)
