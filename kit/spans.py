"""Spans that cost a few microseconds: what a request is traced with, in place of the SDK's own.

The SDK's span takes 20 to 50 us to begin, fill and end, and a request through four services has sixteen: with it,
tracing would cost more than serving. These hold what the suite writes (a name, attributes, a status, a parent) and
nothing else: events and links are ignored. They are made and ended on the event loop and handed on as they end.

Which of them are exported is decided per trace. A trace that is sampled at its head is exported as its spans end; of
the others each process holds its own part back until that part's first span ends, and exports it all the same where
something failed or took long.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from random import getrandbits
from time import time_ns
from typing import Any, Final

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, TraceFlags, TraceState
from opentelemetry.util import types
from opentelemetry.util._decorator import _agnosticcontextmanager

from kit import names

# Spans of one trace that one process holds back; a batch of a hundred items has about this many.
HELD_COUNT_MAX: Final = 1024

# The version of `traceparent` that has no more than four parts. https://www.w3.org/TR/trace-context/
TRACEPARENT: Final = re.compile(r"00-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})")
_ODD: Final = frozenset("13579bdf")  # the last bit of the flags says whether a trace is sampled

# Of enumerations, whose members are slow to look up.
_INTERNAL, _SERVER = SpanKind.INTERNAL, SpanKind.SERVER
_UNSET, _ERROR = StatusCode.UNSET, StatusCode.ERROR

_SAMPLED: Final = TraceFlags(TraceFlags.SAMPLED)
_UNSAMPLED: Final = TraceFlags(TraceFlags.DEFAULT)
# A trace id is random in its low 64 bits: those below the bound are sampled, as by the SDK's TraceIdRatioBased.
_RATIO_BITS: Final = 64
_RATIO_MASK: Final = (1 << _RATIO_BITS) - 1

Take = Callable[["Span"], object]


# The span that what begins is part of. Not in OpenTelemetry's context, a dictionary that is copied to be changed: that
# holds what comes and goes beside spans, baggage and the trace of callers where no spans are made.
CURRENT: Final[ContextVar[Span | None]] = ContextVar("millrace_span", default=None)


def current() -> trace.Span:
    """The current span, or who stands for a caller's where none is made here."""
    return CURRENT.get() or trace.get_current_span()


def current_trace_hex() -> str:
    """Id of the current trace; "" outside of any."""
    span = CURRENT.get()
    if span is not None:
        return span.part.trace_hex
    trace_id = trace.get_current_span().get_span_context().trace_id
    return f"{trace_id:032x}" if trace_id else ""


class Constants:
    """Attributes that many spans share, so that they are encoded once and not with each; never changed once made.

    Attributes:
        values: By name.
        encoded: As who exports spans writes them; None until it has.
    """

    __slots__ = ("encoded", "values")

    def __init__(self, values: Mapping[str, Any]) -> None:
        self.values = values
        self.encoded: bytes | None = None


class Part:
    """What the spans of one trace have in common in this process.

    Attributes:
        tracer: Makes them.
        trace_hex: Id of the trace, 128 bits.
        is_sampled: Whether the trace is.
        state: What the callers of the trace want to be passed on.
        carries: Whether more than ids goes on to the next service: state, or baggage.
        first_hex: Id of the span that began first, whose end is that of the part.
        held: Spans that wait for that end; None where none have to, or any more.
    """

    __slots__ = ("carries", "first_hex", "held", "is_sampled", "state", "trace_hex", "tracer")

    def __init__(self, tracer: SpanTracer, trace_hex: str, is_sampled: bool, state: TraceState | None) -> None:
        self.tracer, self.trace_hex, self.is_sampled, self.state = tracer, trace_hex, is_sampled, state
        self.carries = bool(state)
        self.first_hex = ""
        self.held: list[Span] | None = None if is_sampled else []


class Span(trace.Span):
    """One span. Ids are kept as they are told and written: in lower-case hexadecimal digits.

    Attributes:
        part: What it shares with others of its trace.
        span_hex: Its own id, 64 bits.
        parent_hex: Of the span that it is part of; "" at the root of a trace.
        name: Low in cardinality: a method, a route, an operation and a model.
        kind: Who waits for whom.
        attributes: What is known of it, beside its constants.
        constants: What is known of many like it; set before it ends.
        start_time: In nanoseconds since the epoch.
        end_time: Likewise; 0 while it is open.
        status_code: Whether it failed.
        status_text: Why, in a word.
    """

    __slots__ = (
        "attributes", "constants", "end_time", "kind", "name", "parent_hex", "part", "span_hex", "start_time",
        "status_code", "status_text",
    )  # fmt: skip

    def __init__(self, part: Part, name: str, kind: SpanKind, parent_hex: str, start_time: int | None = None) -> None:
        self.part, self.name, self.kind, self.parent_hex = part, name, kind, parent_hex
        self.span_hex = f"{getrandbits(64) or 1:016x}"
        self.attributes: dict[str, Any] = {}
        self.constants: Constants | None = None
        self.start_time = start_time or time_ns()
        self.end_time = 0
        self.status_code = _UNSET
        self.status_text = ""

    @property
    def trace_hex(self) -> str:
        """Id of its trace, 128 bits."""
        return self.part.trace_hex

    @property
    def is_sampled(self) -> bool:
        """Whether its trace is."""
        return self.part.is_sampled

    @property
    def context(self) -> SpanContext:
        """Its ids, as OpenTelemetry has them."""
        return self._ids(self.span_hex)

    @property
    def parent(self) -> SpanContext | None:
        """The span that it is part of; None at the root of a trace."""
        return self._ids(self.parent_hex) if self.parent_hex else None

    def _ids(self, span_hex: str) -> SpanContext:
        flags = _SAMPLED if self.is_sampled else _UNSAMPLED
        return SpanContext(int(self.trace_hex, 16), int(span_hex, 16), False, flags, self.part.state)

    @property
    def traceparent(self) -> str:
        """What tells the next service of it. https://www.w3.org/TR/trace-context/"""
        part = self.part
        return f"00-{part.trace_hex}-{self.span_hex}-{'01' if part.is_sampled else '00'}"

    @property
    def is_error(self) -> bool:
        """Whether it is marked as failed."""
        return self.status_code is _ERROR

    def child(self, name: str, start_time: int | None = None) -> Span:
        """Begins a span below it, now or at an instant in nanoseconds since the epoch."""
        return Span(self.part, name, _INTERNAL, self.span_hex, start_time)

    def sibling(self, name: str, start_time: int) -> Span:
        """Begins a span beside it, at an instant in nanoseconds since the epoch: for what came just before."""
        return Span(self.part, name, _INTERNAL, self.parent_hex, start_time)

    def get_span_context(self) -> SpanContext:
        """Returns its ids."""
        return self._ids(self.span_hex)

    def is_recording(self) -> bool:
        """Whether it is open."""
        return not self.end_time

    def set_attribute(self, key: str, value: types.AttributeValue) -> None:
        """Sets an attribute; without effect once it has ended."""
        if not self.end_time:
            self.attributes[key] = value

    def set_attributes(self, attributes: Mapping[str, types.AttributeValue]) -> None:
        """Sets attributes; without effect once it has ended."""
        if not self.end_time:
            self.attributes.update(attributes)

    def update_name(self, name: str) -> None:
        """Gives it another name."""
        if not self.end_time:
            self.name = name

    def set_status(self, status: Status | StatusCode, description: str | None = None) -> None:
        """Says how it went."""
        if self.end_time:
            return
        if isinstance(status, Status):
            self.status_code, self.status_text = status.status_code, status.description or ""
        else:
            self.status_code, self.status_text = status, description or ""

    def add_event(
        self, name: str, attributes: types.Attributes = None, timestamp: int | None = None, **_: object
    ) -> None:
        """Ignores the event."""

    def add_link(self, context: SpanContext, attributes: types.Attributes = None) -> None:
        """Ignores the link."""

    def record_exception(
        self,
        exception: BaseException,
        attributes: types.Attributes = None,
        timestamp: int | None = None,
        escaped: bool = False,
    ) -> None:
        """Notes the exception's type alone: its words may be anybody's."""
        self.set_attribute("exception.type", type(exception).__qualname__)

    def end(self, end_time: int | None = None) -> None:
        """Ends it, now or at an instant in nanoseconds since the epoch; once."""
        if not self.end_time:
            self.end_time = end_time or time_ns()
            part = self.part
            if part.is_sampled:
                part.tracer.take(self)
            else:
                part.tracer.ended_unsampled(self)


class SpanTracer(trace.Tracer):
    """Makes spans and hands those that are to be kept to whoever exports them.

    Args:
        take: Takes every span that is kept, at once and without waiting.
        ratio: Part of the traces that begin here which is sampled.
        slow_s: Of the other traces, those are kept whose part in this process lasts longer.
    """

    def __init__(self, take: Take, ratio: float = 1.0, slow_s: float = float("inf")) -> None:
        self.take = take
        self._sampled_below = round(ratio * (1 << _RATIO_BITS))
        self._slow_ns = slow_s * 1e9

    def start_span(
        self,
        name: str,
        context: Context | None = None,
        kind: SpanKind = SpanKind.INTERNAL,
        attributes: types.Attributes = None,
        links: Sequence[Link] | None = None,
        start_time: int | None = None,
        record_exception: bool = True,
        set_status_on_exception: bool = True,
    ) -> Span:
        """Begins a span under the current one, or under that of a context."""
        above = CURRENT.get() if context is None else None
        if above is None:
            span = self._first(name, kind, trace.get_current_span(context).get_span_context(), start_time)
        else:
            span = Span(above.part, name, kind, above.span_hex, start_time)
        if attributes:
            span.attributes.update(attributes)
        return span

    def served(self, name: str, traceparent: str) -> Span:
        """Begins the span of what this process serves, under its caller's; where that names none, a trace begins."""
        told = TRACEPARENT.fullmatch(traceparent)
        if told is None:
            return self._root(name, _SERVER, None)
        trace_hex, parent_hex, flags = told.groups()
        part = Part(self, trace_hex, flags[1] in _ODD, None)
        span = Span(part, name, _SERVER, parent_hex)
        part.first_hex = span.span_hex
        return span

    def _first(self, name: str, kind: SpanKind, parent: SpanContext, start_time: int | None) -> Span:
        """Begins this process's part of a trace."""
        if not parent.trace_id:
            return self._root(name, kind, start_time)
        is_sampled = bool(parent.trace_flags & TraceFlags.SAMPLED)
        part = Part(self, f"{parent.trace_id:032x}", is_sampled, parent.trace_state)
        span = Span(part, name, kind, f"{parent.span_id:016x}", start_time)
        part.first_hex = span.span_hex
        return span

    def _root(self, name: str, kind: SpanKind, start_time: int | None) -> Span:
        """Begins a trace."""
        trace_id = getrandbits(128) or 1
        part = Part(self, f"{trace_id:032x}", trace_id & _RATIO_MASK < self._sampled_below, None)
        span = Span(part, name, kind, "", start_time)
        part.first_hex = span.span_hex
        return span

    @_agnosticcontextmanager
    def start_as_current_span(
        self,
        name: str,
        context: Context | None = None,
        kind: SpanKind = SpanKind.INTERNAL,
        attributes: types.Attributes = None,
        links: Sequence[Link] | None = None,
        start_time: int | None = None,
        record_exception: bool = True,
        set_status_on_exception: bool = True,
        end_on_exit: bool = True,
    ) -> Iterator[trace.Span]:
        """Begins a span and makes it the current one for a block, whose failure marks it."""
        span = self.start_span(name, context, kind, attributes, start_time=start_time)
        try:
            with use(span):
                yield span
        except Exception as error:
            if record_exception:
                span.record_exception(error)
            if set_status_on_exception:
                span.set_status(_ERROR)
            raise
        finally:
            if end_on_exit:
                span.end()

    def ended_unsampled(self, span: Span) -> None:
        """Exports a span of a trace that is not sampled, holds it back or forgets it."""
        part = span.part
        held = part.held
        if held is None:  # it outlived its part of the trace
            if span.is_error:
                self.take(span)
        elif span.span_hex == part.first_hex:
            part.held = None
            held.append(span)
            if span.end_time - span.start_time > self._slow_ns or any(one.is_error for one in held):
                for one in held:
                    self.take(one)
        elif len(held) < HELD_COUNT_MAX:
            held.append(span)


class use:
    """A block in which a span is the current one, and so the parent of what begins."""

    __slots__ = ("_span", "_token")

    def __init__(self, span: Span) -> None:
        self._span = span

    def __enter__(self) -> Span:
        self._token = CURRENT.set(self._span)
        return self._span

    def __exit__(self, *_: object) -> None:
        CURRENT.reset(self._token)


class step:
    """A span around a block within the current one; nothing where that is not recorded. It is no block's parent."""

    __slots__ = ("_name", "_span")

    def __init__(self, name: str) -> None:
        self._name = name
        self._span: Span | None = None

    def __enter__(self) -> None:
        above = CURRENT.get()
        if above is not None:
            self._span = Span(above.part, self._name, _INTERNAL, above.span_hex)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        if self._span is not None:
            if kind is not None:
                self._span.set_attribute(names.ERROR_TYPE, getattr(error, "reason", kind.__name__))
            self._span.end()
