"""What surrounds every call that a client makes: deadline, identity, trace context, span and metrics.

The channel is wrapped instead of given grpc.aio interceptors: those put a task and a queue between the caller and each
message, and their cancellation is not exact. Here the caller gets grpc's own call object; only the arguments are
completed on the way in, and a callback reads the final status.

Whoever starts a stream cancels it in a `finally`: grpc.aio 1.85 keeps a call that was dropped unread alive and running.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, TypeVar

import grpc
from opentelemetry.trace import SpanKind, StatusCode

from kit import identity, names, telemetry
from kit.errors import Code
from kit.spans import Constants, Span, SpanTracer
from kit.status import code_of
from kit.telemetry import Telemetry

T = TypeVar("T")
Renew = Callable[[], grpc.aio.Channel | None]

# Far below what certificates overlap by, and rare enough to cost nothing.
RENEWAL_INTERVAL_S = 1.0
_CLIENT, _OK = SpanKind.CLIENT, Code.OK  # members of an enumeration are slow to look up
# What grpc.aio gives as the details of a call that this side ended.
_LOCAL_DETAILS = "Locally cancelled by application!"


class Channel(grpc.aio.Channel):
    """A channel whose calls carry the identity, the deadline and the trace of the call being served.

    Args:
        inner: grpc's own channel.
        target: What it leads to, for spans.
        telemetry: Records the calls.
        deadline_s: Of a call that has neither its own nor a caller's.
        renew: Returns another channel to the same target once the certificates have changed, else None. Calls move to
            it when it is connected, or at once where the present one is not; those in flight end where they began.
    """

    def __init__(
        self,
        inner: grpc.aio.Channel,
        target: str,
        telemetry: Telemetry,
        deadline_s: float,
        renew: Renew | None = None,
    ) -> None:
        self._line = _Line(inner)
        self._attributes = _address(target)
        self._telemetry = telemetry
        self._deadline_s = deadline_s
        self._renew = renew
        self._renewal: grpc.aio.Channel | None = None
        self._look_at = 0.0
        self._left: set[_Line] = set()

    def unary_unary(self, method: str, *args: Any, **kwargs: Any) -> Any:
        """Returns the callable of a unary method."""
        return self._calls(method, lambda inner: inner.unary_unary(method, *args, **kwargs))

    def unary_stream(self, method: str, *args: Any, **kwargs: Any) -> Any:
        """Returns the callable of a method whose answers are streamed."""
        return self._calls(method, lambda inner: inner.unary_stream(method, *args, **kwargs))

    def stream_unary(self, method: str, *args: Any, **kwargs: Any) -> Any:
        """Returns the callable of a method whose requests are streamed."""
        return self._calls(method, lambda inner: inner.stream_unary(method, *args, **kwargs))

    def stream_stream(self, method: str, *args: Any, **kwargs: Any) -> Any:
        """Returns the callable of a method that streams both ways."""
        return self._calls(method, lambda inner: inner.stream_stream(method, *args, **kwargs))

    def _calls(self, method: str, bind: Callable[[grpc.aio.Channel], Callable[..., Any]]) -> _Calls:
        current = self._current if self._renew is not None else None
        calls = _Calls(method.removeprefix("/"), self._attributes, self._telemetry, self._deadline_s, bind, current)
        calls.follow(self._line)
        return calls

    def _current(self) -> _Line:
        """The line of the next call; looks for renewed certificates once a second, and only when called."""
        assert self._renew is not None
        now = time.monotonic()
        if now >= self._look_at:
            self._look_at = now + RENEWAL_INTERVAL_S
            self._renewal = self._renew() or self._renewal
        if self._renewal is not None and self._is_better(self._renewal):
            left, self._line, self._renewal = self._line, _Line(self._renewal), None
            if left.call_count:
                # Kept until its last call has ended: grpc closes a channel that nobody holds.
                self._left.add(left)
                left.on_idle = lambda: self._left.discard(left)
        return self._line

    def _is_better(self, renewal: grpc.aio.Channel) -> bool:
        ready = grpc.ChannelConnectivity.READY
        return renewal.get_state(try_to_connect=True) is ready or self._line.inner.get_state() is not ready

    async def close(self, grace: float | None = None) -> None:
        """Closes the connection; calls in flight get `grace` seconds."""
        inners = [self._line.inner, *(line.inner for line in self._left), *([self._renewal] if self._renewal else [])]
        await asyncio.gather(*(inner.close(grace) for inner in inners))

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:
        """Returns the state of the connection."""
        return self._line.inner.get_state(try_to_connect)

    async def wait_for_state_change(self, last_observed_state: grpc.ChannelConnectivity) -> None:
        """Returns once the state is another."""
        await self._line.inner.wait_for_state_change(last_observed_state)

    async def channel_ready(self) -> None:
        """Returns once a healthy server is connected."""
        await self._line.inner.channel_ready()

    async def __aenter__(self) -> Channel:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


class _Line:
    """One of grpc's channels, and how many calls are on it."""

    __slots__ = ("call_count", "inner", "on_idle")

    def __init__(self, inner: grpc.aio.Channel) -> None:
        self.inner = inner
        self.call_count = 0
        self.on_idle: Callable[[], None] | None = None

    def begin(self, call: Any) -> None:
        """Counts a call until it ends."""
        self.call_count += 1
        call.add_done_callback(self._end)

    def _end(self, _: Any) -> None:
        self.call_count -= 1
        if not self.call_count and self.on_idle is not None:
            self.on_idle()


class _Calls:
    """Starts the calls of one method, on the line that its channel has now."""

    __slots__ = (
        "_bind", "_constants", "_current", "_deadline_s", "_line", "_method", "_start", "_telemetry", "_tracer",
    )  # fmt: skip

    def __init__(
        self,
        method: str,
        attributes: dict[str, str | int],
        telemetry: Telemetry,
        deadline_s: float,
        bind: Callable[[grpc.aio.Channel], Callable[..., Any]],
        current: Callable[[], _Line] | None,
    ) -> None:
        self._method = method
        attributes = {names.RPC_SYSTEM_NAME: "grpc", names.RPC_METHOD: method, **attributes}
        self._constants = {code: Constants({**attributes, names.RPC_RESPONSE_STATUS_CODE: code.name}) for code in Code}
        self._telemetry = telemetry
        self._tracer = telemetry.tracer if isinstance(telemetry.tracer, SpanTracer) else None
        self._deadline_s = deadline_s
        self._bind = bind
        self._current = current

    def follow(self, line: _Line) -> None:
        """Puts the next calls on this line."""
        self._line, self._start = line, self._bind(line.inner)

    def __call__(self, *args: Any, timeout: float | None = None, metadata: Any = None, **options: Any) -> Any:
        """Starts a call; `timeout` can only shorten the deadline of the call being served, math.inf asks for none."""
        caller = identity.active()
        span = self._tracer.start_span(self._method, None, _CLIENT) if self._tracer is not None else None
        known = identity.to_metadata(caller or identity.current())
        headers = grpc.aio.Metadata(*(metadata or ()), *known, *telemetry.inject(span=span))
        if self._current is not None and (line := self._current()) is not self._line:
            self.follow(line)
        call = self._start(*args, timeout=self._timeout(caller, timeout), metadata=headers, **options)
        if self._current is not None:
            self._line.begin(call)
        if span is not None or self._telemetry.calls is not None:
            call.add_done_callback(_Ending(self._telemetry, self._method, span, self._constants))
        return call

    def _timeout(self, caller: identity.CallContext | None, timeout: float | None) -> float | None:
        left_s = math.inf if caller is None else caller.remaining_s(math.inf)
        if timeout is None:
            timeout = self._deadline_s if left_s == math.inf else left_s
        seconds = min(timeout, left_s)
        return None if seconds == math.inf else seconds


class _Ending:
    """Records a call when its final status is there."""

    __slots__ = ("_constants", "_method", "_span", "_started", "_telemetry")

    def __init__(
        self, telemetry: Telemetry, method: str, span: Span | None, constants: Mapping[Code, Constants]
    ) -> None:
        self._telemetry = telemetry
        self._method = method
        self._span = span
        self._constants = constants
        self._started = time.perf_counter()

    def __call__(self, call: Any) -> None:
        code = code_of(_now(call.code()))
        span = self._span
        if span is not None:
            span.constants = self._constants[code]
            if code is not _OK:
                if code is Code.CANCELLED:
                    by = "caller" if _now(call.details()) == _LOCAL_DETAILS else "peer"
                    span.set_attribute(names.CANCELLED_BY, by)
                span.set_attribute(names.ERROR_TYPE, code.name)
                span.set_status(StatusCode.ERROR)
            span.end()
        if self._telemetry.calls is not None:
            self._telemetry.calls.called(self._method, code.name, time.perf_counter() - self._started)


def _now(coroutine: Coroutine[Any, Any, T]) -> T:
    """Returns the result of a coroutine that has nothing to wait for, as those of a finished call."""
    try:
        coroutine.send(None)
    except StopIteration as finished:
        result: T = finished.value
        return result
    coroutine.close()
    raise RuntimeError("the call has no final status yet")


def _address(target: str) -> dict[str, str | int]:
    """Returns the span attributes of a target such as `dns:///cache:50052` or `127.0.0.1:50052`."""
    host, _, port = target.rpartition("/")[2].rpartition(":")
    if not (host and port.isdigit()):
        return {names.SERVER_ADDRESS: target}
    return {names.SERVER_ADDRESS: host.strip("[]"), names.SERVER_PORT: int(port)}
