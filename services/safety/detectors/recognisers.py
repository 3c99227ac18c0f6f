"""Presidio's pattern recognisers, without its engine.

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

# Importing presidio_analyzer also imports these when they are installed, for engines that are not used here: with them
# it takes 4.6 s and 416 MB, without them 0.9 s and 104 MB.
_NOT_NEEDED = ("torch", "transformers", "stanza", "gliner")

# The regions whose national formats count as phone numbers; Presidio's own choice. Each costs about 60 us per number.
PHONE_REGIONS = ("US", "GB", "DE", "FR", "IL", "IN", "CA", "BR")


class Found(NamedTuple):
    """A hit in a slice of text."""

    start: int
    end: int
    score: float


Recogniser = Callable[[str], list[Found]]


def load_recognisers() -> dict[str, Recogniser]:
    """Builds the recognisers by entity type; "PHONE_NUMBER" takes national and "+PHONE_NUMBER" international ones."""
    # Presidio logs what it failed to validate, which is the very text that must not be logged.
    logging.getLogger("presidio-analyzer").setLevel(logging.CRITICAL + 1)
    with _without(_NOT_NEEDED):
        from presidio_analyzer import predefined_recognizers as presidio
    built = {
        "EMAIL_ADDRESS": _offline_email(presidio.EmailRecognizer),
        "IBAN_CODE": presidio.IbanRecognizer(),
        "CREDIT_CARD": presidio.CreditCardRecognizer(),
        "US_SSN": presidio.UsSsnRecognizer(),
        "IP_ADDRESS": presidio.IpRecognizer(),
        "PHONE_NUMBER": presidio.PhoneRecognizer(supported_regions=PHONE_REGIONS),
        # A number with its country code is judged the same way in every region, so one region is enough.
        "+PHONE_NUMBER": presidio.PhoneRecognizer(supported_regions=PHONE_REGIONS[:1]),
        "URL": presidio.UrlRecognizer(),
    }
    return {entity: _bare(recogniser) for entity, recogniser in built.items()}


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
            return bool(extract(pattern_text).suffix) and bool(extract(pattern_text).domain)

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
