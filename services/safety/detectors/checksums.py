"""Check digits of identifiers: what tells a number that somebody has from one that merely looks like it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

_BASE58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
_BECH32 = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
_BECH32_GENERATORS = (0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)
_BECH32_SUMS = (1, 0x2BC830A3)  # BIP 173 and, for newer addresses, BIP 350

_NIF_LETTERS = "TRWAGMYFPDXBNJZSQVHLCKE"
_NRIC_LETTERS = {"S": "JZIHGFEDCBA", "T": "GFEDCBAJZIH", "F": "XWUTRQPNMLK", "G": "RQPNMLKXWUT", "M": "KLJNPQRTUWX"}
_CF_ODD = dict(
    zip("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ", (
        1, 0, 5, 7, 9, 13, 15, 17, 19, 21, 1, 0, 5, 7, 9, 13, 15, 17, 19, 21, 2, 4, 18, 20, 11, 3, 6, 8, 12, 14, 16,
        10, 22, 25, 24, 23), strict=True)
)  # fmt: skip

# Verhoeff's tables: multiplication in the dihedral group of ten elements, and its permutation.
_DIHEDRAL = (
    "0123456789", "1234067895", "2340178956", "3401289567", "4012395678",
    "5987604321", "6598710432", "7659821043", "8765932104", "9876543210",
)  # fmt: skip
_PERMUTATIONS = (
    "0123456789", "1576283094", "5803796142", "8916043527", "9453126870", "4286573901", "2793806415", "7046913258",
)  # fmt: skip


def base58check(text: str) -> bool:
    """Whether a Bitcoin address of the older kinds carries its own digest."""
    number = 0
    for character in text:
        value = _BASE58.find(character)
        if value < 0:
            return False
        number = number * 58 + value
    if number.bit_length() > 200:
        return False
    raw = number.to_bytes(25, "big")
    return hashlib.sha256(hashlib.sha256(raw[:-4]).digest()).digest()[:4] == raw[-4:]


def bech32(text: str) -> bool:
    """Whether a Bitcoin address of the newer kinds ("bc1...") has a right checksum."""
    body = text.lower()
    if body != text and text.upper() != text:
        return False
    prefix, _, data = body.rpartition("1")
    values = [_BECH32.find(character) for character in data]
    if -1 in values:
        return False
    expanded = [ord(c) >> 5 for c in prefix] + [0] + [ord(c) & 31 for c in prefix] + values
    checksum = 1
    for value in expanded:
        top = checksum >> 25
        checksum = (checksum & 0x1FFFFFF) << 5 ^ value
        for bit, generator in enumerate(_BECH32_GENERATORS):
            checksum ^= generator if top >> bit & 1 else 0
    return checksum in _BECH32_SUMS


def nif(text: str) -> bool:
    """Spain: eight digits, or X, Y, Z and seven, and a letter modulo 23."""
    digits = text[:-1].translate(str.maketrans("XYZ", "012"))
    return _NIF_LETTERS[int(digits) % 23] == text[-1]


def nric(text: str) -> bool:
    """Singapore: seven weighted digits and a letter by the first one's series."""
    weighted = _weighted(text[1:-1], (2, 7, 6, 5, 4, 3, 2)) + {"T": 4, "G": 4, "M": 3}.get(text[0], 0)
    return _NRIC_LETTERS[text[0]][weighted % 11] == text[-1]


def fiscal_code(text: str) -> bool:
    """Italy: characters at odd and even places count differently, the last is their sum modulo 26."""
    total = sum(_CF_ODD[c] for c in text[:-1:2])
    total += sum(int(c) if c.isdigit() else ord(c) - 65 for c in text[1:-1:2])
    return chr(65 + total % 26) == text[-1]


def verhoeff(digits: str) -> bool:
    """India's Aadhaar, and whatever else uses Verhoeff's check digit."""
    check = 0
    for place, digit in enumerate(reversed(digits)):
        check = int(_DIHEDRAL[check][int(_PERMUTATIONS[place % 8][int(digit)])])
    return check == 0


def cpf(digits: str) -> bool:
    """Brazil: two check digits modulo 11; eleven equal digits are nobody's."""

    def check(known: str) -> str:
        rest = _weighted(known, range(len(known) + 1, 1, -1)) * 10 % 11
        return str(rest % 10)

    return len(set(digits)) > 1 and digits[9] == check(digits[:9]) and digits[10] == check(digits[:10])


def pesel(digits: str) -> bool:
    """Poland: ten weighted digits and their complement."""
    return (10 - _weighted(digits[:-1], (1, 3, 7, 9, 1, 3, 7, 9, 1, 3)) % 10) % 10 == int(digits[-1])


def _weighted(digits: str, weights: Sequence[int]) -> int:
    return sum(int(digit) * weight for digit, weight in zip(digits, weights, strict=True))
