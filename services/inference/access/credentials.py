"""What a call shows of its caller: the metadata that says who it is, read strictly.

Whatever is ambiguous is refused in place of guessed: two credentials that differ would let one part of a system see one
caller and the next part another.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from kit.errors import InvalidArgument, Unauthenticated
from kit.identity import CLIENT_ID_KEY
from services.inference.access import secret
from services.inference.access.tokens import CHARS_MAX, looks_like_token

AUTHORIZATION_KEY = "authorization"
API_KEY_KEY = "x-api-key"
_CLIENT_ID_CHARS_MAX = 128


class Shown(msgspec.Struct, frozen=True):
    """What a call shows. `credential` is None where there is none, "" where a scheme is not known."""

    credential: str | None
    client_id: str


def read(metadata: Iterable[tuple[str, str | bytes]]) -> Shown:
    """Reads the metadata of a call.

    Raises:
        InvalidArgument: There are several credentials (CREDENTIALS_AMBIGUOUS), or the client's id is none.
        Unauthenticated: The credential is too long or no visible ASCII (CREDENTIAL_INVALID).
    """
    credential: str | None = None
    client_id = ""
    counts = {AUTHORIZATION_KEY: 0, API_KEY_KEY: 0}
    for key, value in metadata:
        if key in counts:
            text = _checked(value)
            given = _bearer(text) if key == AUTHORIZATION_KEY else text
            counts[key] += 1
            if counts[key] > 1 or (credential is not None and given != credential):
                raise InvalidArgument(key, "send one credential, once", reason="CREDENTIALS_AMBIGUOUS")
            credential = given
        elif key == CLIENT_ID_KEY:
            client_id = _client_id(value)
    return Shown(credential, client_id)


def is_ours(text: str) -> bool:
    """Whether a text means to be a credential of ours; OpenAI's SDKs send any text where they were given none."""
    return text.startswith(secret.MARK) or looks_like_token(text)


def _bearer(text: str) -> str:
    scheme, _, rest = text.partition(" ")
    return rest.strip() if scheme.lower() == "bearer" else ""


def _checked(value: str | bytes) -> str:
    text = value if isinstance(value, str) else value.decode("latin-1")
    if len(text) > CHARS_MAX or not (text.isascii() and text.isprintable()):
        raise Unauthenticated("CREDENTIAL_INVALID", f"a credential is at most {CHARS_MAX} visible ASCII characters")
    return text


def _client_id(value: str | bytes) -> str:
    if isinstance(value, str) and 1 <= len(value) <= _CLIENT_ID_CHARS_MAX and value.isascii() and value.isprintable():
        return value
    message = f"must be 1 to {_CLIENT_ID_CHARS_MAX} visible ASCII characters"
    raise InvalidArgument(CLIENT_ID_KEY, message, reason="IDENTITY_INVALID")
