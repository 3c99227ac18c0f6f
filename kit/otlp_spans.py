"""Spans as OTLP's protobuf bytes, written by hand: a third of what building the generated messages costs.

A test reads what this writes with the generated classes. https://opentelemetry.io/docs/specs/otlp/
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final

from opentelemetry.trace import SpanKind, StatusCode

from kit import names
from kit.otlp import Exporter
from kit.spans import Constants, Span

# Names and attributes recur: methods, routes, models, codes. What is said once is not kept.
_KEPT_COUNT_MAX: Final = 4096
_SAID_ONCE: Final = frozenset({names.REQUEST_ID, names.GEN_AI_CONVERSATION_ID, names.URL_PATH})

# Tags of opentelemetry.proto.trace.v1.Span, field number << 3 | wire type, and the sizes of what follows; hexadecimal.
_TRACE_ID, _SPAN_ID, _PARENT_ID = "0a10", "1208", "2208"
_TIMES = struct.Struct("<BQBQ")
# OTLP counts kinds from 1. By identity: members of an enumeration are slow to hash.
_KINDS = {id(kind): bytes((0x30, kind.value + 1)) for kind in SpanKind}
_DOUBLE = struct.Struct("<d")
_UNSET = StatusCode.UNSET

# Spans that are encoded in one go. Each by itself as it ends would find nothing of this code in the processor's cache
# and take six times as long; more would hold the event loop up for longer. These take 0.2 ms with what the suite
# writes, and 0.6 to 1.4 with a dozen attributes each.
_TOGETHER_COUNT: Final = 64


class SpanBuffer:
    """Takes spans as they end, on the event loop; encodes them by the dozen, and offers them to those who export.

    What waits to be sent is then bytes, which the garbage collector never looks at. The few that are left when nothing
    more comes are encoded by the thread that sends them; all by it would fight with the event loop for the interpreter.

    Args:
        encode: Encodes one.
        ways: Who exports; they `flush` this before each batch.
    """

    def __init__(self, encode: Callable[[Span], bytes], ways: Sequence[Exporter[bytes]]) -> None:
        self._encode, self._ways = encode, ways
        self._spans: deque[Span] = deque()

    def take(self, span: Span) -> None:
        """Takes a span that has ended."""
        self._spans.append(span)
        count = len(self._spans)
        if count >= _TOGETHER_COUNT:
            self.flush()
        elif count == 1:
            for way in self._ways:
                way.announce()

    def flush(self) -> None:
        """Encodes and offers what there is; on any thread."""
        encoded: list[bytes] = []
        with suppress(IndexError):  # the end: another thread may take some, too
            while True:
                span = self._spans.popleft()
                try:
                    encoded.append(self._encode(span))
                except Exception:  # whatever is odd about one span costs neither a request nor its neighbours
                    for way in self._ways:
                        way.dropped_count += 1
        if encoded:
            for way in self._ways:
                way.offer_all(encoded)


class SpanEncoder:
    """Encodes spans, and joins those of a batch into an ExportTraceServiceRequest.

    Args:
        resource: What all spans of this process share.
        scope: Name of what makes them.
    """

    def __init__(self, resource: Mapping[str, str], scope: str) -> None:
        self._head = _field(0x0A, b"".join(_field(0x0A, _attribute(key, value)) for key, value in resource.items()))
        self._scope = _field(0x0A, _text(0x0A, scope))
        self._kept: dict[tuple[str, str | int], bytes] = {}

    def span(self, span: Span) -> bytes:
        """Returns a span as a field of its scope.

        Raises:
            Exception: Of many kinds, for what OTLP knows nothing like: an attribute, its name, a time.
        """
        return _field(0x12, _span(span, self._kept))

    def request(self, spans: Sequence[bytes]) -> bytes:
        """Returns the request of encoded spans."""
        return _field(0x0A, self._head + _field(0x12, self._scope + b"".join(spans)))


def _span(span: Span, kept: dict[tuple[str, str | int], bytes]) -> bytes:
    parent = f"{_PARENT_ID}{span.parent_hex}" if span.parent_hex else ""
    parts = [
        bytes.fromhex(f"{_TRACE_ID}{span.part.trace_hex}{_SPAN_ID}{span.span_hex}{parent}"),
        _TIMES.pack(0x39, span.start_time, 0x41, span.end_time),
        kept.get(("", span.name)) or _keep(kept, "", span.name, _text(0x2A, span.name)),
        _KINDS[id(span.kind)],
    ]
    if span.constants is not None:
        parts.append(span.constants.encoded or _encode(span.constants))
    for key, value in span.attributes.items():
        # By exact type: 1, 1.0 and True would be one key.
        if (type(value) is str or type(value) is int) and key not in _SAID_ONCE:
            known = kept.get((key, value))
            parts.append(known or _keep(kept, key, value, _field(0x4A, _attribute(key, value))))
        else:
            parts.append(_field(0x4A, _attribute(key, value)))
    if span.status_code is not _UNSET:
        parts.append(_field(0x7A, _text(0x12, span.status_text) + bytes((0x18, span.status_code.value))))
    return b"".join(parts)


def _encode(constants: Constants) -> bytes:
    constants.encoded = b"".join(_field(0x4A, _attribute(key, value)) for key, value in constants.values.items())
    return constants.encoded


def _keep(kept: dict[tuple[str, str | int], bytes], key: str, value: str | int, encoded: bytes) -> bytes:
    if len(kept) >= _KEPT_COUNT_MAX:
        kept.clear()
    kept[key, value] = encoded
    return encoded


def _attribute(key: str, value: Any) -> bytes:
    """A KeyValue."""
    return _text(0x0A, key) + _field(0x12, _value(value))


def _value(value: Any) -> bytes:
    """An AnyValue."""
    if isinstance(value, str):
        return _text(0x0A, value)
    if isinstance(value, bool):
        return b"\x10" + bytes((value,))
    if isinstance(value, int):
        return b"\x18" + _varint(value & 0xFFFF_FFFF_FFFF_FFFF)
    if isinstance(value, float):
        return b"\x21" + _DOUBLE.pack(value)
    return _field(0x2A, b"".join(_field(0x0A, _value(one)) for one in value))


def _text(tag: int, text: str) -> bytes:
    return _field(tag, text.encode("utf-8", "replace"))


def _field(tag: int, data: bytes) -> bytes:
    size = len(data)
    if size < 0x80:
        return bytes((tag, size)) + data
    if size < 0x4000:
        return bytes((tag, size & 0x7F | 0x80, size >> 7)) + data
    return bytes((tag,)) + _varint(size) + data


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)
