"""The server-sent events of an OpenAI-compatible upstream: bytes in, the data of whole events out.

It knows how upstreams frame what they send, never what it means.
"""

from __future__ import annotations

from services.inference.engines.openai_errors import malformed

EVENT_BYTES_MAX = 8 * 1024 * 1024  # far above any event of a sane upstream: an image of 6 MB in base64 still fits
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
ERROR_EVENT = b"event: error"


class EventSplitter:
    """Splits a byte stream of server-sent events into the payloads of their `data` lines.

    Every byte is looked at a fixed number of times, however the stream is cut into segments.
    """

    def __init__(self) -> None:
        self._rest: list[bytes] = []  # the pieces of an event that is not complete
        self._rest_bytes = 0
        self._after_cr = False

    def feed(self, data: bytes) -> list[bytes]:
        """Takes what has arrived and returns the payloads that are complete.

        Raises:
            Unavailable: An event is larger than EVENT_BYTES_MAX.
        """
        if self._after_cr and data.startswith(b"\n"):  # the second half of a line end that was cut in two
            data = data[1:]
        self._after_cr = data.endswith(b"\r")
        if b"\r" in data:
            data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        if self._rest:
            ends_here = self._rest[-1].endswith(b"\n") and data.startswith(b"\n")
            if not ends_here and b"\n\n" not in data:
                self._keep(data)
                return []
            data = b"".join((*self._rest, data))
            self._rest, self._rest_bytes = [], 0
        *events, rest = data.split(b"\n\n")
        self._keep(rest)
        return [payload for event in events if (payload := _payload(event))]

    def _keep(self, data: bytes) -> None:
        if data:
            self._rest.append(data)
            self._rest_bytes += len(data)
        if self._rest_bytes > EVENT_BYTES_MAX:
            raise malformed("an event is too large")


def _payload(event: bytes) -> bytes | None:
    """The data of an event; a comment, a keep-alive or another field has none."""
    if event.startswith(b"data: ") and b"\n" not in event:
        return event[6:]
    lines = event.removeprefix(BYTE_ORDER_MARK).split(b"\n")
    data = [line[5:].removeprefix(b" ") for line in lines if line.startswith(b"data:")]
    if data:
        payload = b"\n".join(data)
        return _as_error(payload) if ERROR_EVENT in lines else payload
    errors = [line[6:] for line in lines if line.startswith(b"error:")]  # llama.cpp until late in 2025
    return b'{"error":%b}' % errors[0] if errors else None


def _as_error(payload: bytes) -> bytes:
    """What an `error` event says, in the envelope that errors come in elsewhere."""
    return payload if b'"error"' in payload else b'{"error":%b}' % payload
