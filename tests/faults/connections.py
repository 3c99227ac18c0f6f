"""Faults of connections: they are not made, not trusted, or end too early."""

from __future__ import annotations

from tests.faults.answers import chunk, end, event, good, head, piece, words
from tests.faults.fault import GAP, Fault, Wait, cut, harmless
from tests.faults.upstream import End

TWO = (head(), *map(piece, words(2)))
UMLAUT = event({"choices": [{"index": 0, "delta": {"content": "ü"}}]})
HALF_A_CHARACTER = b"%x\r\n" % len(UMLAUT) + UMLAUT[: UMLAUT.index("ü".encode()) + 1]
HALF_A_CHUNK = b"%x\r\n" % len(chunk()) + chunk()[:30]
UNTIL_CLOSED = head(framing="Connection: close").replace(b"HTTP/1.1", b"HTTP/1.0")
NEWS = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"


def _unreachable(name: str, says: str, reason: str, tries: int = 2, wait: Wait = Wait.NONE) -> Fault:
    """An upstream of a kind of its own: there is no answer that could be scripted."""
    return Fault(name, says, reason=reason, tries=tries, wait=wait, upstream=name)


CONNECTIONS = (
    _unreachable("refused", "refuses the connection", "UPSTREAM_UNREACHABLE"),
    _unreachable("dns", "has a name that does not resolve", "UPSTREAM_UNREACHABLE"),
    _unreachable("deaf", "accepts no connection", "UPSTREAM_CONNECT_TIMEOUT", wait=Wait.CONNECT),
    _unreachable("tls-silent", "is silent in the TLS handshake", "UPSTREAM_CONNECT_TIMEOUT", wait=Wait.CONNECT),
    _unreachable("tls-untrusted", "has a certificate of an unknown authority", "UPSTREAM_TLS", tries=1),
    _unreachable("tls-other-host", "has a certificate of another host", "UPSTREAM_TLS", tries=1),
    _unreachable("tls-plain", "speaks no TLS", "UPSTREAM_TLS", tries=1),
    cut("reset-at-once", "resets before its headers", End.RESET, reason="UPSTREAM_DISCONNECTED", begun=False),
    cut("closed-at-once", "closes before its headers", End.CLOSE, reason="UPSTREAM_DISCONNECTED", begun=False),
    cut(
        "half-headers", "closes within its headers", head()[:30], GAP, End.CLOSE, reason="UPSTREAM_DISCONNECTED",
        begun=False,
    ),
    cut("reset-after-headers", "resets after its headers", head(), GAP, End.RESET, begun=False),
    cut("closed-after-headers", "closes after its headers", head(), GAP, End.CLOSE, begun=False),
    cut("reset-after-tokens", "resets after two tokens", *TWO, GAP, End.RESET),
    cut("closed-after-tokens", "closes after two tokens", *TWO, GAP, End.CLOSE),
    cut("cut-character", "closes within a character", *TWO, HALF_A_CHARACTER, GAP, End.CLOSE),
    cut("cut-json", "closes within a JSON object", *TWO, HALF_A_CHUNK, GAP, End.CLOSE),
    cut(
        "cut-length", "closes before its Content-Length", head(framing="Content-Length: 9999"), *words(2), GAP,
        End.CLOSE,
    ),
    cut("cut-old-http", "closes an HTTP/1.0 body before [DONE]", UNTIL_CLOSED, *words(2), GAP, End.CLOSE),
    harmless("old-http", "closes an HTTP/1.0 body after [DONE]", UNTIL_CLOSED, *words(), *end(), End.CLOSE),
    harmless("early-news", "sends 100 and 103 before its answer", NEWS, *good()),
    harmless("stale", "had closed the connection while it lay in the pool", End.RESET, fresh_steps=tuple(good())),
)  # fmt: skip
