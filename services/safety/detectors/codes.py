"""Finds identifiers that are one run of letters and digits: wallets, and passports and identity numbers by country.

Where a country gives check digits, they decide. Where it gives none, a word right before must say what the number is:
nine digits are a passport only where somebody says "passport".
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import ClassVar, NamedTuple

from services.safety.detectors import checksums
from services.safety.detectors.detector import Match
from services.safety.detectors.islands import CONTEXT, Layer

_RUN_MAX = 90  # BIP 173: no bech32 address is longer
_RUN = re.compile(r"(?<![^\W_])(?=[A-Za-z]{0,16}[0-9])[A-Za-z0-9]{8,}")
_BEGUN = re.compile(rf"(?<![^\W_])[A-Za-z0-9]{{1,{_RUN_MAX}}}\Z")

_CHECKED = 0.9
_NAMED = 0.7
_SHAPED = 0.5


class Code(NamedTuple):
    """One kind of identifier: its shape, its check digits, and the words that must name it where it has none."""

    category: str
    score: float
    shape: re.Pattern[str]
    check: Callable[[str], bool] | None = None
    words: re.Pattern[str] | None = None


def _code(category: str, score: float, shape: str, check: Callable[[str], bool] | None = None, words: str = "") -> Code:
    named = re.compile(rf"(?i)\b(?:{words})\b") if words else None
    return Code(category, score, re.compile(shape), check, named)


_CODES = (
    _code("CRYPTO", _CHECKED, r"[13][1-9A-HJ-NP-Za-km-z]{25,34}", checksums.base58check),
    _code("CRYPTO", _CHECKED, r"(?i)bc1[a-z0-9]{11,87}", checksums.bech32),
    _code("CRYPTO", _CHECKED, r"0x[0-9A-Fa-f]{40}"),
    _code("ES_NIF", _CHECKED, r"[0-9]{8}[A-Z]", checksums.nif),
    _code("ES_NIE", _CHECKED, r"[XYZ][0-9]{7}[A-Z]", checksums.nif),
    _code("SG_NRIC_FIN", _CHECKED, r"[STFGM][0-9]{7}[A-Z]", checksums.nric),
    _code("IT_FISCAL_CODE", _CHECKED, r"[A-Z]{6}[0-9]{2}[A-EHLMPRST][0-9]{2}[A-Z][0-9]{3}[A-Z]", checksums.fiscal_code),
    _code("IN_PAN", _SHAPED, r"[A-Z]{3}[ABCFGHJLPT][A-Z][0-9]{4}[A-Z]"),
    _code("UK_NINO", _SHAPED, r"(?!BG|GB|KN|NK|NT|TN|ZZ)[A-CEGHJ-PR-TW-Z][A-CEGHJ-NPR-TW-Z][0-9]{6}[A-D]"),
    _code("IN_AADHAAR", _CHECKED, r"[2-9][0-9]{11}", checksums.verhoeff, r"aadhaar|aadhar|uidai|uid"),
    _code("BR_CPF", _CHECKED, r"[0-9]{11}", checksums.cpf, r"cpf"),
    _code("PL_PESEL", _CHECKED, r"[0-9]{11}", checksums.pesel, r"pesel"),
    # Areas 000, 666 and 900 to 999 were never given, nor groups and serials of zeros.
    _code("US_SSN", _NAMED, r"(?!000|666|9)[0-9]{3}(?!00)[0-9]{2}(?!0000)[0-9]{4}", None,
          r"ssns?|social[ -]security"),
    _code("PASSPORT", _NAMED, r"[A-Z]{0,2}[0-9]{6,9}[A-Z]?|[A-Z][0-9A-Z]{8}", None,
          r"passport|passports|passeport|reisepass|pasaporte|passaporto"),
)  # fmt: skip

CODE_CATEGORIES = frozenset(code.category for code in _CODES)


class Codes(Layer):
    """Runs of letters and digits that identify somebody, or somebody's money."""

    entities: ClassVar[tuple[str, ...]] = tuple(sorted(CODE_CATEGORIES))

    def _read(self, text: str, at: int, final: bool, matches: list[Match], offset: int) -> int:
        for run in _RUN.finditer(text, at):
            start, end = run.span()
            if end == len(text) and not final and end - start <= _RUN_MAX:
                return start
            code = self._judge(run.group(), text[max(0, start - CONTEXT) : start])
            if code:
                matches.append(Match(start + offset, end + offset, code.category, code.score))
        if final:
            return len(text)
        begun = _BEGUN.search(text, max(at, len(text) - _RUN_MAX))
        return begun.start() if begun else len(text)

    def _judge(self, run: str, before: str) -> Code | None:
        if len(run) > _RUN_MAX:
            return None
        for code in _CODES:
            if code.category not in self._wanted or not code.shape.fullmatch(run):
                continue
            if (code.check is None or code.check(run)) and (code.words is None or code.words.search(before)):
                return code
        return None
