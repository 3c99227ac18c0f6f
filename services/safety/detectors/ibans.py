"""International bank account numbers: how long each country's are, and the check digits of ISO 7064.

Presidio's patterns know capitals only. In small letters an IBAN looks like words, so the length is the country's own,
and what follows must not go on with it.
"""

from __future__ import annotations

import re

# SWIFT's IBAN registry.
_LENGTHS = {
    country: int(length)
    for country, length in re.findall(
        "([A-Z]{2})([0-9]{2})",
        "AD24AE23AL28AT20AZ28BA20BE16BG22BH22BR29BY28CH21CR22CY28CZ24DE22DK18DO28EE20EG29ES24FI18FO18FR27GB22GE22GI23"
        "GL18GR27GT28HR21HU28IE22IL23IQ23IS26IT27JO30KW30KZ20LB28LC32LI21LT20LU20LV21LY25MC27MD24ME22MK19MR27MT31MU30"
        "NL18NO15PK24PL28PS29PT25QA29RO24RS22SA24SC31SE24SI19SK24SM27ST25SV28TL23TN24TR26UA29VA22VG24XK20",
    )
}
SCORE = 1.0


def iban_end(run: str) -> int | None:
    """Where the IBAN ends that a run of letters, digits, spaces and dashes begins with; None where none does."""
    length = _LENGTHS.get(run[:2].upper(), 0)
    places = [at for at, character in enumerate(run) if character.isalnum()]
    if not 0 < length <= len(places):
        return None
    end = places[length - 1] + 1
    if run[end : end + 1].isalnum() or not _has_check_digits("".join(run[at] for at in places[:length])):
        return None
    return end


def _has_check_digits(iban: str) -> bool:
    """Whether the number is 1 modulo 97, its first four signs put last and letters read as 10 to 35."""
    return int("".join(str(int(sign, 36)) for sign in iban[4:] + iban[:4])) % 97 == 1
