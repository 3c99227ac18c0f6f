"""Faults of time: an upstream that says nothing, or nothing that counts."""

from __future__ import annotations

from kit.errors import Code
from tests.faults.answers import JSON, chunk, head, piece, words
from tests.faults.fault import SECOND, Fault, Wait, silence
from tests.faults.upstream import End, Pause, Step

TWO = (head(), *map(piece, words(2)))
ROLE = piece(chunk({"role": "assistant", "content": ""}))
PINGS: tuple[Step, ...] = (piece(b": ping\n\n"), Pause(0.1)) * 40


def _silence_later(name: str, says: str, *steps: Step) -> Fault:
    """Nothing more after two tokens; who reads the whole has read nothing, so that for him another may answer."""
    return Fault(
        name, says, (*TWO, *steps, End.SILENCE), Code.DEADLINE_EXCEEDED, "INTER_TOKEN_TIMEOUT", begun=True,
        tries=1, wait=Wait.INTER_TOKEN,
    )  # fmt: skip


SILENCES = (
    silence("silent", "says nothing"),
    silence("silent-in-headers", "falls silent within its headers", head()[:30]),
    silence("slow-headers", "sends a byte of its headers a second", b"H", SECOND, b"T", SECOND, b"T", SECOND, b"P"),
    silence("silent-after-headers", "falls silent after its headers", head()),
    silence("silent-after-role", "falls silent after a chunk without text", head(), ROLE),
    silence("slow-bytes", "sends a byte of its answer a second", head(), b"1", SECOND, b"f", SECOND, b"\r"),
    silence("pings", "sends comments and no token", head(), *PINGS),
    _silence_later("silent-later", "falls silent after two tokens"),
    _silence_later("pings-later", "sends comments only after two tokens", *PINGS),
    Fault(
        "error-drips", "answers 500 and never ends the body",
        (head(500, JSON, framing="Content-Length: 99"), b'{"err', End.SILENCE), reason="UPSTREAM_INTERNAL_SERVER",
        wait=Wait.ERROR,
    ),
)  # fmt: skip
