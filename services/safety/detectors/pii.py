"""Finds structured personal data: addresses, numbers and codes that are somebody's, secrets, names in introductions.

Presidio's recognisers are exact but slow (7-8 ms per 100 words) and judge a text as a whole. Here cheap expressions
first cut out islands: short stretches whose borders do not depend on anything far away. Recognisers judge only those.
That is what makes the detector fast where there is nothing to find, and its matches independent of how a stream was
cut: an island is judged once it can no longer grow.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Literal, get_args

from services.safety.detectors.codes import CODE_CATEGORIES, Codes
from services.safety.detectors.detector import Match
from services.safety.detectors.grouped import GROUPED_CATEGORIES
from services.safety.detectors.introductions import Introductions
from services.safety.detectors.islands import (
    CONTEXT,
    EMAIL_HOLD,
    Emails,
    Ibans,
    Ipv6s,
    Layer,
    Numbers,
    SmallIbans,
    Urls,
)
from services.safety.detectors.recognisers import Recogniser
from services.safety.detectors.secrets import Secrets
from services.safety.detectors.spread_cards import SpreadCards

PiiCategory = Literal[
    "BR_CPF", "CREDIT_CARD", "CRYPTO", "EMAIL_ADDRESS", "ES_NIE", "ES_NIF", "IBAN_CODE", "IN_AADHAAR", "IN_PAN",
    "IP_ADDRESS", "IT_FISCAL_CODE", "PASSPORT", "PERSON", "PHONE_NUMBER", "PL_PESEL", "SECRET", "SG_NRIC_FIN",
    "UK_NINO", "URL", "US_ITIN", "US_SSN",
]  # fmt: skip

_LAYERS: tuple[tuple[type[Layer], frozenset[str]], ...] = (
    (Emails, frozenset({"EMAIL_ADDRESS"})),
    (Ibans, frozenset({"IBAN_CODE"})),
    (SmallIbans, frozenset({"IBAN_CODE"})),
    (Ipv6s, frozenset({"IP_ADDRESS"})),
    (Numbers, frozenset({"CREDIT_CARD", "US_SSN", "IP_ADDRESS", "PHONE_NUMBER", *GROUPED_CATEGORIES})),
    (SpreadCards, frozenset(SpreadCards.entities)),
    (Codes, CODE_CATEGORIES),
    (Secrets, frozenset(Secrets.entities)),
    (Introductions, frozenset(Introductions.entities)),
    (Urls, frozenset({"URL"})),
)

# Full-width and other forms of ASCII, spaces that do not break, hyphens that do not: each is read as the sign that it
# looks like, one for one, so that places stay what they are.
_PLAIN = str.maketrans(
    {point: chr(point - 0xFEE0) for point in range(0xFF01, 0xFF5F)}
    | dict.fromkeys((0xA0, 0x1680, *range(0x2000, 0x200B), 0x202F, 0x205F, 0x3000), " ")
    | {0xFE6B: "@", 0x2010: "-", 0x2011: "-"}
)


class PersonalData:
    """The detector of structured personal data."""

    name = "pii"
    categories: tuple[str, ...] = get_args(PiiCategory)
    # Addresses of pages are rarely anyone's secret.
    optional_categories = frozenset({"URL"})
    context = CONTEXT
    hold = EMAIL_HOLD
    # Measured: 0.6 us per code point, and 0.1 ms per phone number.
    inline_code_points = 500

    def __init__(self, recognisers: Mapping[str, Recogniser]) -> None:
        self._recognisers = recognisers

    def cursor(self, categories: Collection[str]) -> PersonalDataCursor:
        """Begins to read a text."""
        return PersonalDataCursor(self._recognisers, frozenset(categories))


class PersonalDataCursor:
    """One reading of one text."""

    def __init__(self, recognisers: Mapping[str, Recogniser], categories: frozenset[str]) -> None:
        self.safe = 0
        self._layers = [
            layer(recognisers, categories & entities) for layer, entities in _LAYERS if categories & entities
        ]
        self._pending: list[Match] = []
        self._covered = 0

    def scan(self, text: str, offset: int, final: bool) -> list[Match]:
        """See `detector.Cursor.scan`."""
        if not text.isascii():
            text = text.translate(_PLAIN)
        for layer in self._layers:
            self._pending += layer.scan(text, offset, final)
        arrived = offset + len(text)
        self.safe = max(self.safe, min((layer.safe for layer in self._layers), default=arrived))
        if not self._pending:
            return []
        self._pending.sort(key=_order)
        known = [match for match in self._pending if match.start < self.safe or final]
        del self._pending[: len(known)]
        return [match for match in known if self._counts(match)]

    def _counts(self, match: Match) -> bool:
        """Drops what is only a piece of something else: digits in a card, the IPv4 tail of an IPv6 address."""
        within = match.end <= self._covered
        self._covered = max(self._covered, match.end)
        return not (within and match.category in ("PHONE_NUMBER", "IP_ADDRESS"))


def _order(match: Match) -> tuple[int, int, bool, str, float]:
    """Also tells apart what two layers say of one place, so that nothing goes by which of them said so first."""
    return match.start, -match.end, match.category == "PHONE_NUMBER", match.category, -match.score
