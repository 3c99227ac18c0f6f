"""Phone numbers: all that Presidio's recogniser finds, for a fraction of what its parser costs."""

import random
from collections.abc import Iterator

import phonenumbers
import pytest
from phonenumbers import PhoneNumberFormat, PhoneNumberType
from presidio_analyzer.predefined_recognizers import PhoneRecognizer

from services.safety.detectors.phones import DIGITS_MIN, Phone, find_phones, phone_region
from services.safety.detectors.recognisers import PHONE_REGIONS

REGIONS = [phone_region(code) for code in PHONE_REGIONS]
FORMATS = (PhoneNumberFormat.NATIONAL, PhoneNumberFormat.INTERNATIONAL, PhoneNumberFormat.E164)


def written(region: str) -> Iterator[str]:
    """Numbers of every kind that a region has, as they are written there and called from elsewhere."""
    for kind in PhoneNumberType.values():
        if number := phonenumbers.example_number_for_type(region, kind):
            yield from (phonenumbers.format_number(number, form) for form in FORMATS)
            yield from (phonenumbers.format_out_of_country_calling_number(number, home) for home in PHONE_REGIONS)


@pytest.mark.parametrize("region", [*PHONE_REGIONS, "IT", "JP", "NG"])
def test_what_presidio_finds_is_found(region: str) -> None:
    """Every number that Presidio's recogniser finds is found with the same span, alone and with others around it."""
    presidio = PhoneRecognizer(supported_regions=PHONE_REGIONS)
    for number in written(region):
        for text in (number, f"call {number}, now", f"({number})", number.replace(" ", "-"), f"{number} x1"):
            hits = {Phone(r.start, r.end) for r in presidio.analyze(text, [])}
            expected = {hit for hit in hits if sum(map(str.isdigit, text[hit.start : hit.end])) >= DIGITS_MIN}
            assert set(find_phones(text, REGIONS)) == expected, text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("020 7946 0958 (212) 555-0147", ["020 7946 0958", "(212) 555-0147"]),
        ("12345 - 212-555-0147", ["212-555-0147"]),
        ("x2125550147", []),
        ("212-555-0147%", []),
        ("1697 22", []),
        ("01/02/2024 2125550147", []),
    ],
)
def test_neighbours_decide(text: str, expected: list[str]) -> None:
    """A number is told from what stands next to it: other numbers, letters, signs and dates."""
    assert [text[phone.start : phone.end] for phone in find_phones(text, REGIONS)] == expected


def test_region_without_a_plan_is_refused() -> None:
    """A region that libphonenumber does not know is named."""
    with pytest.raises(ValueError, match="region XX"):
        phone_region("XX")


@pytest.mark.parametrize(("largest", "parsed_max"), [(10**5, 0.01), (10**6, 0.01), (10**8, 0.2), (10**10, 1.5)])
def test_few_numbers_are_parsed(monkeypatch: pytest.MonkeyPatch, largest: int, parsed_max: float) -> None:
    """Of plain numbers, only those that could be a region's phone number reach the parser: none of the short ones."""
    parsed: list[str] = []

    def count(number: str, region: str, keep_raw_input: bool) -> phonenumbers.PhoneNumber:
        parsed.append(number)
        return phonenumbers.parse(number, region, keep_raw_input=keep_raw_input)

    monkeypatch.setattr("phonenumbers.phonenumbermatcher.parse", count)
    rng = random.Random(largest)
    for _ in range(200):
        find_phones(" ".join(str(rng.randrange(largest)) for _ in range(5)), REGIONS)

    assert len(parsed) <= parsed_max * 1000
