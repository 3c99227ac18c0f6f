"""Finds secrets: API keys and tokens of the usual vendors, signed tokens and private keys.

Vendors mark their keys, so a key is known by how it begins. How long it is, nobody promises, and a private key has
thousands of characters: what follows a beginning is therefore reported in stretches, each where the last one ends, so
that a stream holds no more than one of them. Who redacts makes one placeholder of stretches that touch.
"""

from __future__ import annotations

import re
from typing import ClassVar, NamedTuple

from services.safety.detectors.detector import Match
from services.safety.detectors.islands import Layer

CATEGORY = "SECRET"
SCORE = 0.9
# What must have arrived before a key is known, and how far one stretch of the rest reaches.
_HEAD_MAX = 160
_STRETCH = 64
_WORD = r"[A-Za-z0-9_\-]"
_PEM = "-----BEGIN "
# A private key in PEM, as it is or in a string of JSON.
_LINE_END = r"(?:\s|\\[nr]){1,4}"
_END = r"-----END [A-Z ]{0,20}PRIVATE KEY-----"


class _Kind(NamedTuple):
    mark: str
    """How every key begins, letter by letter."""
    head: str
    """The expression for what follows the mark, as much as makes it certain."""
    rest: str
    """What a longer one goes on with, for one stretch."""
    look_ahead: int = 1
    """How much must have arrived to tell whether it goes on."""


class _Rest(NamedTuple):
    """What goes on with a key that was found, and how much of it must have arrived to tell."""

    stretch: re.Pattern[str]
    look_ahead: int


def _kind(mark: str, head: str, rest: str = _WORD) -> _Kind:
    return _Kind(mark, head, rf"{rest}{{1,{_STRETCH}}}")


# From the vendors' documentation of their formats, and what their own scanners look for.
_KINDS = (
    _kind("AKIA", r"[A-Z2-7]{16}(?![A-Za-z0-9])", r"(?!)"),  # AWS: key id, and the temporary one
    _kind("ASIA", r"[A-Z2-7]{16}(?![A-Za-z0-9])", r"(?!)"),
    _kind("AIza", rf"{_WORD}{{35}}"),  # Google
    _kind("GOCSPX-", rf"{_WORD}{{28}}"),
    _kind("ya29.", rf"{_WORD}{{20}}"),
    _kind("ghp_", r"[A-Za-z0-9]{36}"),  # GitHub
    _kind("gho_", r"[A-Za-z0-9]{36}"),
    _kind("ghu_", r"[A-Za-z0-9]{36}"),
    _kind("ghs_", r"[A-Za-z0-9]{36}"),
    _kind("ghr_", r"[A-Za-z0-9]{36}"),
    _kind("github_pat_", r"[A-Za-z0-9]{22}_[A-Za-z0-9]{20}"),
    _kind("glpat-", rf"{_WORD}{{20}}"),  # GitLab
    _kind("xoxb-", r"[0-9A-Za-z\-]{20}"),  # Slack
    _kind("xoxp-", r"[0-9A-Za-z\-]{20}"),
    _kind("xoxa-", r"[0-9A-Za-z\-]{20}"),
    _kind("xoxs-", r"[0-9A-Za-z\-]{20}"),
    _kind("xapp-", r"[0-9A-Za-z\-]{20}"),
    _kind("sk_live_", r"[0-9A-Za-z]{16}"),  # Stripe
    _kind("sk_test_", r"[0-9A-Za-z]{16}"),
    _kind("rk_live_", r"[0-9A-Za-z]{16}"),
    _kind("rk_test_", r"[0-9A-Za-z]{16}"),
    _kind("whsec_", r"[0-9A-Za-z]{24}"),
    _kind("sk-", rf"(?=[A-Za-z\-_]{{0,40}}[0-9]){_WORD}{{32}}"),  # OpenAI, Anthropic and those who write alike
    _kind("hf_", r"[A-Za-z]{30}"),  # Hugging Face
    _kind("gsk_", r"[0-9A-Za-z]{40}"),  # Groq
    _kind("npm_", r"[A-Za-z0-9]{36}"),
    _kind("pypi-", rf"{_WORD}{{50}}"),
    _kind("dop_v1_", r"[0-9a-f]{64}"),  # DigitalOcean
    _kind("SG.", rf"{_WORD}{{22}}\.{_WORD}{{20}}"),  # SendGrid
    _kind("shpat_", r"[0-9a-fA-F]{32}"),  # Shopify
    _kind("dckr_pat_", rf"{_WORD}{{20}}"),
    _kind("AGE-SECRET-KEY-", r"[0-9A-Z]{40}"),
    _kind("eyJ", rf"{_WORD}{{8,120}}\.eyJ{_WORD}{{8}}", r"[A-Za-z0-9_\-.]"),  # JSON Web Token
    # A private key: its header, and from there on line by line.
    _Kind(
        _PEM,
        r"(?:[A-Z]{1,12} ){0,3}PRIVATE KEY-----" + _LINE_END + r"[A-Za-z0-9+/=]{16}",
        rf"(?:[A-Za-z0-9+/=]{{1,{_STRETCH}}}"
        rf"|{_LINE_END}(?:[A-Za-z0-9+/=]{{16}}|[A-Za-z0-9+/=]{{0,16}}(?:{_LINE_END})?{_END}))",
        _STRETCH,
    ),
)

_MARK = re.compile("(?<![A-Za-z0-9])(?:" + "|".join(re.escape(kind.mark) for kind in _KINDS) + ")")
_BY_MARK = {kind.mark: (re.compile(kind.head), _Rest(re.compile(kind.rest), kind.look_ahead)) for kind in _KINDS}
_NO_KEY = re.compile(r"[^A-Za-z0-9_\-.]")


def _begun() -> re.Pattern[str]:
    """An expression for a mark that has not arrived whole."""
    beginnings = sorted({kind.mark[:end] for kind in _KINDS for end in range(1, len(kind.mark))})
    return re.compile("(?<![A-Za-z0-9])(?:" + "|".join(map(re.escape, beginnings)) + r")\Z")


_BEGUN = _begun()
_MARK_MAX = max(len(kind.mark) for kind in _KINDS)


class Secrets(Layer):
    """Keys and tokens."""

    entities: ClassVar[tuple[str, ...]] = (CATEGORY,)
    _rest: _Rest | None = None
    """What goes on with the key that is being read."""

    def _read(self, text: str, at: int, final: bool, matches: list[Match], offset: int) -> int:
        while True:
            if self._rest is not None:
                at, waits = self._go_on(self._rest, text, at, final, matches, offset)
                if waits:
                    return at
            mark = _MARK.search(text, at)
            if mark is None:
                break
            head, rest = _BY_MARK[mark.group()]
            found = head.match(text, mark.end())
            if not final and _may_become(text, mark, found):
                return mark.start()
            if found:
                matches.append(Match(mark.start() + offset, found.end() + offset, CATEGORY, SCORE))
                self._rest = rest
            at = found.end() if found else mark.end()
        begun = None if final else _BEGUN.search(text, max(at, len(text) - _MARK_MAX))
        return begun.start() if begun else len(text)

    def _go_on(
        self, rest: _Rest, text: str, at: int, final: bool, matches: list[Match], offset: int
    ) -> tuple[int, bool]:
        """Reads the rest of a key, stretch by stretch; returns how far, and whether more must arrive."""
        while True:
            found = rest.stretch.match(text, at)
            end = found.end() if found else at
            if not final and len(text) - end < rest.look_ahead and end - at < _STRETCH:
                return at, True
            if found is None:
                self._rest = None
                return at, False
            matches.append(Match(at + offset, end + offset, CATEGORY, SCORE))
            at = end


def _may_become(text: str, mark: re.Match[str], found: re.Match[str] | None) -> bool:
    """Whether what has arrived behind a mark leaves open whether it is a key."""
    if len(text) - mark.end() >= _HEAD_MAX:
        return False
    if found:
        return found.end() == len(text)
    return mark.group() == _PEM or not _NO_KEY.search(text, mark.end())
