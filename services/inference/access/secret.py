"""The text of a key: what a holder sends, and what is kept of it.

`mr_`, 256 random bits, and a checksum of them: scanners of leaked secrets know it when they see it, and a typo is told
from a guess without asking anybody. What is kept is an HMAC under a pepper that is not in the database, so that a
stolen database opens nothing. A slow hash would add nothing: nobody guesses 256 bits, and it would cost each call.
"""

from __future__ import annotations

import base64
import hmac
import re
import secrets
import zlib

MARK = "mr_"
PREFIX_CHARS = 11  # the mark and 48 of the 256 bits: enough to recognise a key, useless for guessing it
_CHECKSUM_CHARS = 6
_SHAPE = re.compile(r"mr_[A-Za-z0-9_-]{49}", re.ASCII)


def new_secret() -> str:
    """Returns the text of a new key."""
    body = MARK + secrets.token_urlsafe(32)
    return body + _checksum(body)


def is_secret(text: str) -> bool:
    """Whether a text was made by `new_secret`; says nothing about whether it opens anything."""
    return _SHAPE.fullmatch(text) is not None and _checksum(text[:-_CHECKSUM_CHARS]) == text[-_CHECKSUM_CHARS:]


def prefix(text: str) -> str:
    """What may be shown of a key."""
    return text[:PREFIX_CHARS]


def digest(text: str, pepper: bytes) -> str:
    """What is kept of a key, 64 characters.

    Finding it by a plain look-up tells an attacker nothing by its time: without the pepper nobody can choose digests.
    """
    return hmac.digest(pepper, text.encode(), "sha256").hex()


def _checksum(body: str) -> str:
    return base64.urlsafe_b64encode(zlib.crc32(body.encode()).to_bytes(4, "big"))[:_CHECKSUM_CHARS].decode()
