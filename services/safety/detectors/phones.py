"""Finds phone numbers, as libphonenumber does, without having it parse what cannot be one.

libphonenumber's matcher parses every group of digits for itself, and for one region at a time: 60 us each, which makes
a list of numbers take seconds. Here one pass serves all regions, and a region's parser sees a candidate only when the
digits alone could make a number of that region. What is found is libphonenumber's own verdict, never a guess.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from phonenumbers import (
    Leniency,
    NumberFormat,
    PhoneMetadata,
    PhoneNumberMatch,
    PhoneNumberMatcher,
    region_codes_for_country_code,
)

# The score that Presidio gives a phone number.
SCORE = 0.4
# Shorter ones are subscriber numbers without their area code and service numbers, which are nobody's in particular.
DIGITS_MIN = 7
# ITU-T E.164 has 15 digits; a carrier code or trunk prefix may add some.
DIGITS_MAX = 18

_SEPARATORS = str.maketrans("", "", "-. ()[]/")
_FIRST_GROUP_ONLY = re.compile(r"\(?\\1\)?")
_KINDS = (
    "fixed_line", "mobile", "toll_free", "premium_rate", "shared_cost",
    "personal_number", "voip", "pager", "uan", "voicemail",
)  # fmt: skip


class PhoneRegion(NamedTuple):
    """A region whose national formats count, and what the digits of a number dialled from there look like."""

    code: str
    shape: re.Pattern[str]


class Phone(NamedTuple):
    """A phone number in a slice of text."""

    start: int
    end: int


def phone_region(code: str) -> PhoneRegion:
    """Puts a region's numbering plan into one expression, which every valid number matches, and few others."""
    plan = _plan(code)
    country, prefix = plan.country_code or 0, plan.national_prefix_for_parsing or ""
    # Regions that share a country code share its numbers.
    valid = "|".join(dict.fromkeys(p for sharer in region_codes_for_country_code(country) for p in _numbers(sharer)))
    forms = (
        rf"{country}(?:{prefix})?(?:{valid})",
        rf"(?:{prefix})(?:{valid})",
        rf"{_bare(plan)}(?:{valid})",
        # A prefix may hold the number itself, with a carrier's code that is taken out (Brazil).
        rf"(?:{country})?(?:{prefix})",
        rf"(?:{plan.international_prefix})[1-9]\d+",
    )
    return PhoneRegion(code, re.compile("|".join(forms)))


def find_phones(text: str, regions: Sequence[PhoneRegion]) -> list[Phone]:
    """Finds the numbers that are valid in any of the regions, or that carry a country code."""
    # A number with its country code is judged the same way in every region, so one region is enough.
    regions = regions[:1] if "+" in text else regions
    found: list[Phone] = []
    low = 0
    for match in _Matcher(text, regions):
        # A number with brackets is tried before the one that stands on its left.
        if match.start - low >= DIGITS_MIN:
            found += [Phone(low + p.start, low + p.end) for p in find_phones(text[low : match.start], regions)]
        found.append(Phone(match.start, match.end))
        low = match.end
    return found


def _plan(code: str) -> PhoneMetadata:
    plan = PhoneMetadata.metadata_for_region(code)
    if plan is None:
        raise ValueError(f"no numbering plan is known for region {code}")
    return plan


def _numbers(code: str) -> list[str]:
    kinds = [getattr(_plan(code), kind) for kind in _KINDS]
    return [kind.national_number_pattern for kind in kinds if kind and kind.national_number_pattern]


def _bare(plan: PhoneMetadata) -> str:
    """A look-ahead at what may be written without the national prefix: most numbers in the US, few in Germany."""
    free = "|".join(_form(form) for form in plan.number_format if not _needs_prefix(form))
    known = "|".join(map(_form, plan.number_format))
    return rf"(?:(?=(?:{free})$)|(?!(?:{known})$))" if free else rf"(?!(?:{known})$)"


def _form(form: NumberFormat) -> str:
    # Of several expressions for the leading digits, the last is the whole truth.
    leading = form.leading_digits_pattern[-1] if form.leading_digits_pattern else ""
    return rf"(?={leading}){form.pattern}"


def _needs_prefix(form: NumberFormat) -> bool:
    rule = form.national_prefix_formatting_rule or ""
    return bool(rule) and not form.national_prefix_optional_when_formatting and not _FIRST_GROUP_ONLY.fullmatch(rule)


class _Matcher(PhoneNumberMatcher):
    """libphonenumber's matcher, for several regions in one pass, with cheap tests before its parser."""

    def __init__(self, text: str, regions: Sequence[PhoneRegion]) -> None:
        super().__init__(text, regions[0].code, leniency=Leniency.VALID)
        self._regions = regions

    def _parse_and_verify(self, candidate: str, offset: int) -> PhoneNumberMatch | None:
        digits = candidate.translate(_SEPARATORS)
        # Anything else is a plus or an extension, too rare to be worth a test.
        plain = digits.isascii() and digits.isdigit()
        if len(digits) < DIGITS_MIN or (plain and len(digits) > DIGITS_MAX):
            return None
        for region in self._regions:
            if not plain or region.shape.fullmatch(digits):
                self.preferred_region = region.code
                if match := super()._parse_and_verify(candidate, offset):
                    return match
        return None
