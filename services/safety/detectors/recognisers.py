"""Presidio's pattern recognisers, without its engine, and ours where they find more: cards and phone numbers.

The recognisers bring the patterns, checksums and validity rules. What surrounds them is left out on purpose: the NLP
engine (spaCy models, torch), and tldextract's habit of fetching the public suffix list. Nothing here reaches for the
network.
"""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from services.safety.detectors.cards import find_cards
from services.safety.detectors.phones import SCORE, find_phones, phone_region

# Importing presidio_analyzer also imports these when they are installed, for engines that are not used here: with them
# it takes 4.6 s and 416 MB, without them 0.9 s and 104 MB.
_NOT_NEEDED = ("torch", "transformers", "stanza", "gliner")

# The regions whose national formats count as phone numbers; Presidio's own choice.
PHONE_REGIONS = ("US", "GB", "DE", "FR", "IL", "IN", "CA", "BR")


# Domains of inner networks and of examples: no list of public suffixes has them, and people have addresses there.
_INNER_DOMAINS = frozenset(
    "corp example home internal intranet invalid lan local localdomain localhost private test".split()
)


class Found(NamedTuple):
    """A hit in a slice of text."""

    start: int
    end: int
    score: float


Recogniser = Callable[[str], list[Found]]


def load_recognisers() -> dict[str, Recogniser]:
    """Builds the recognisers by entity type."""
    # Presidio logs what it failed to validate, which is the very text that must not be logged.
    logging.getLogger("presidio-analyzer").setLevel(logging.CRITICAL + 1)
    with _without(_NOT_NEEDED):
        from presidio_analyzer import predefined_recognizers as presidio
    built = {
        "EMAIL_ADDRESS": _offline_email(presidio.EmailRecognizer),
        "IBAN_CODE": presidio.IbanRecognizer(),
        "US_SSN": presidio.UsSsnRecognizer(),
        "IP_ADDRESS": presidio.IpRecognizer(),
        "URL": presidio.UrlRecognizer(),
    }
    own: dict[str, Recogniser] = {"PHONE_NUMBER": _phones(), "CREDIT_CARD": _cards}
    return {entity: _bare(recogniser) for entity, recogniser in built.items()} | own


def _cards(text: str) -> list[Found]:
    return [Found(*card) for card in find_cards(text)]


def _phones() -> Recogniser:
    regions = tuple(map(phone_region, PHONE_REGIONS))
    return lambda text: [Found(phone.start, phone.end, SCORE) for phone in find_phones(text, regions)]


def _bare(recogniser: Any) -> Recogniser:
    def find(text: str) -> list[Found]:
        return sorted(Found(r.start, r.end, r.score) for r in recogniser.analyze(text, []))

    return find


def _offline_email(base: type) -> Any:
    """Presidio's e-mail recogniser with the suffix list that tldextract ships instead of a fetched one."""
    import tldextract

    extract = tldextract.TLDExtract(cache_dir=None, suffix_list_urls=(), fallback_to_snapshot=True)

    class OfflineEmail(base):  # type: ignore[misc]  # Presidio is untyped.
        def validate_result(self, pattern_text: str) -> bool:
            is_inner = pattern_text.rpartition(".")[2].lower() in _INNER_DOMAINS
            return is_inner or (bool(extract(pattern_text).suffix) and bool(extract(pattern_text).domain))

    return OfflineEmail()


@contextlib.contextmanager
def _without(names: tuple[str, ...]) -> Iterator[None]:
    """Makes imports of packages fail that would only cost time; those already imported stay."""
    hidden = [name for name in names if name not in sys.modules]
    for name in hidden:
        sys.modules[name] = None  # type: ignore[assignment]  # The import system's own way to say "not there".
    try:
        yield
    finally:
        for name in hidden:
            del sys.modules[name]
