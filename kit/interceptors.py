"""What surrounds every call that a server handles: identity, span, metrics, and errors turned into statuses.

Who calls is read from metadata and believed, unless a service hands in something that finds it out (`Identify`).

One interceptor does it all in one pass, because each layer around a stream costs its every message. It works per call
and not per message: a streaming handler's messages go from its generator straight to the transport. Servicers only
return, yield or raise; none aborts.

Health and reflection stay as they are: a Watch would be one span that lasts for days.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import time
from collections.abc import AsyncIterable, Awaitable, Callable, Iterable, Mapping
from typing import Any, TypeAlias

import grpc
from google.protobuf.message import DecodeError
from opentelemetry import baggage
from opentelemetry import context as otel_context
from opentelemetry.trace import StatusCode

from kit import identity, names, status
from kit.errors import Code, Internal, InvalidArgument, MillraceError
from kit.identity import CallContext
from kit.spans import Constants, Span
from kit.telemetry import Telemetry

Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
Behaviour = Callable[[Any, Any], Any]
# Finds out who calls: from a method such as `millrace.cache.v1.CacheService/Lookup`, the context that the metadata
# makes, and grpc's own, to the context that holds. What it raises refuses the call.
Identify = Callable[[str, CallContext, Any], Awaitable[CallContext]]

# The codes that mean the server failed; the others mean that it told the caller something true.
# https://opentelemetry.io/docs/specs/semconv/rpc/grpc/
_SERVER_FAULTS = frozenset(
    {Code.UNKNOWN, Code.DEADLINE_EXCEEDED, Code.UNIMPLEMENTED, Code.INTERNAL, Code.UNAVAILABLE, Code.DATA_LOSS}
)
# A client whose deadline is over resets the call a moment before our own clock says so.
_DEADLINE_SLACK_S = 0.05
_CONSTANTS_COUNT_MAX = 256  # of one method: callers may name any number of tenants

_log = logging.getLogger(__name__)


class CallInterceptor:
    """Wraps handlers, once each, and counts the calls in flight.

    Handlers are wrapped as they are registered: a grpc.aio interceptor would be asked again at each call.
    """

    def __init__(self, telemetry: Telemetry) -> None:
        self._telemetry = telemetry
        self._active_count = 0
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def active_count(self) -> int:
        """Calls whose handlers have not ended."""
        return self._active_count

    async def idle(self) -> None:
        """Returns once no handler runs; a server that has stopped may still have handlers that clean up."""
        await self._idle.wait()

    def wrap(self, method: str, handler: Handler, identify: Identify | None = None) -> Handler:
        """Returns a handler of the same kind whose behaviour is a coroutine, which grpc awaits and does not iterate.

        Args:
            method: Its full name.
            handler: What to wrap.
            identify: Finds out who calls; None believes the metadata.
        Raises:
            TypeError: The handler blocks: it would run on a thread, without identity and cancellation.
        """
        kind = ("stream" if handler.request_streaming else "unary") + (
            "_stream" if handler.response_streaming else "_unary"
        )
        behaviour: Behaviour = getattr(handler, kind)
        constants = _Constants(method)
        run = _pumped(behaviour) if handler.response_streaming else _awaited(behaviour)

        async def call(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
            record = _Record(self._telemetry, method, constants)
            self._enter()
            try:
                call_context = record.begin(context)
                if identify is not None:
                    record.enter(await identify(method, call_context, context))
                if isinstance(request, InvalidArgument):
                    raise request
                response = await run(request, context)
            except BaseException as error:
                failure = record.fail(error, context)
                if failure is None:
                    raise
                told = status.to_status(failure)
                # What is given here replaces what the handler has set.
                trailers = status.join_trailers(told, context.trailing_metadata() or ())
                await context.abort(told.code, told.details, trailers)
            else:
                record.succeed(context)
                return response
            finally:
                record.end()
                self._leave()

        make = getattr(grpc, f"{kind}_rpc_method_handler")
        read = _reader(handler.request_deserializer, handler.request_streaming)
        wrapped: Handler = make(call, read, handler.response_serializer)
        return wrapped

    def _enter(self) -> None:
        self._active_count += 1
        self._idle.clear()

    def _leave(self) -> None:
        self._active_count -= 1
        if not self._active_count:
            self._idle.set()


class Registrar:
    """Stands in for a server while servicers are added to it, and wraps what they add, if it has what to wrap it in."""

    def __init__(
        self, server: grpc.aio.Server, interceptor: CallInterceptor | None = None, identify: Identify | None = None
    ) -> None:
        self._server = server
        self._interceptor = interceptor
        self._identify = identify

    def add_generic_rpc_handlers(self, generic_rpc_handlers: Iterable[grpc.GenericRpcHandler]) -> None:
        """Adds the handlers of services."""
        handlers = tuple(generic_rpc_handlers)
        if self._interceptor is not None:
            handlers = tuple(_Wrapping(handler, self._interceptor, self._identify) for handler in handlers)
        self._server.add_generic_rpc_handlers(handlers)

    def add_registered_method_handlers(self, service_name: str, method_handlers: Mapping[str, Handler]) -> None:
        """Adds nothing: generated code adds the same handlers generically, too.

        For each registered method grpc.aio 1.85 keeps a future that it waits on anew at every call: 10 us a call for
        twelve methods, and a lookup by name is all that it saves.
        """


class _Wrapping(grpc.GenericRpcHandler):
    """The handlers of a service, each wrapped when it is first called."""

    def __init__(self, inner: grpc.GenericRpcHandler, interceptor: CallInterceptor, identify: Identify | None) -> None:
        self._inner = inner
        self._interceptor = interceptor
        self._identify = identify
        self._wrapped: dict[str, Handler] = {}

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Handler | None:
        """Returns the wrapped handler of a method, or None where it is not one of this service."""
        method = handler_call_details.method
        wrapped = self._wrapped.get(method)
        if wrapped is None:
            handler = self._inner.service(handler_call_details)
            if handler is None:
                return None
            name = method.removeprefix("/")
            wrapped = self._wrapped[method] = self._interceptor.wrap(name, handler, self._identify)
        return wrapped


def _reader(deserialize: Callable[[bytes], Any] | None, streaming: bool) -> Callable[[bytes], Any] | None:
    """Reads requests, and tells those that cannot be read from faults of ours, which grpc makes UNKNOWN of.

    A stream is read within the handler, where the error is raised; a single request before it, which finds the error in
    its place.
    """
    if deserialize is None:
        return None

    def read(data: bytes) -> Any:
        try:
            return deserialize(data)
        except DecodeError:
            error = InvalidArgument("request", "is not a message of this method: check its encoding, text is UTF-8")
            if streaming:
                raise error from None
            return error

    return read


class _Constants:
    """What the spans of one method have in common, by code and tenant."""

    def __init__(self, method: str) -> None:
        self._method = method
        self._made: dict[tuple[Code, str | None], Constants] = {}

    def of(self, code: Code, caller: CallContext | None) -> Constants:
        """Returns what holds for calls that end with a code, of a caller's tenant where one is known."""
        key = (code, caller.tenant if caller else None)
        found = self._made.get(key)
        if found is None:
            if len(self._made) >= _CONSTANTS_COUNT_MAX:
                self._made.clear()
            values = {
                names.RPC_SYSTEM_NAME: "grpc",
                names.RPC_METHOD: self._method,
                names.RPC_RESPONSE_STATUS_CODE: code.name,
            }
            found = self._made[key] = Constants(values | ({names.TENANT: caller.tenant} if caller else {}))
        return found


class _Record:
    """What is known of one call, and recorded when it ends."""

    __slots__ = ("_caller", "_code", "_constants", "_method", "_span", "_started", "_telemetry")

    def __init__(self, telemetry: Telemetry, method: str, constants: _Constants) -> None:
        self._telemetry = telemetry
        self._method = method
        self._constants = constants
        self._caller: CallContext | None = None
        self._started = time.perf_counter()
        self._span: Span | None = None
        # What holds where a call ends before anything else is known.
        self._code = Code.CANCELLED

    def begin(self, context: Any) -> CallContext:
        """Enters the identity and the trace. The task is the call's own: what is entered dies with it."""
        if self._telemetry.calls is not None:
            self._telemetry.calls.active_count += 1
        metadata = dict(context.invocation_metadata())
        self._span = self._telemetry.served(self._method, metadata)
        call = identity.from_metadata(metadata.items(), context.time_remaining())
        self.enter(call)
        return call

    def enter(self, call: CallContext) -> None:
        """Makes an identity that of the call."""
        identity.enter(call)
        self._caller = call
        if call.tenant != identity.DEFAULT_TENANT:
            otel_context.attach(baggage.set_baggage(names.TENANT, call.tenant))
            if self._span is not None:
                self._span.part.carries = True

    def succeed(self, context: Any) -> None:
        """Notes the code that the handler left; one that swallowed its cancellation did not succeed."""
        task = asyncio.current_task()
        self._code = Code.CANCELLED if task is not None and task.cancelling() else _set_code(context)

    def fail(self, error: BaseException, context: Any) -> MillraceError | None:
        """Notes why the call failed and returns what to tell the caller; None where nobody is left to be told."""
        error = _only(error)
        if isinstance(error, MillraceError):
            self._code = error.code
            self._note(names.ERROR_REASON, error.reason)
            return error
        if isinstance(error, grpc.aio.AbortError):
            self._code = _set_code(context)
            return None
        if _is_gone(error):
            self._code = _why_gone(context)
            return None
        self._code = Code.INTERNAL
        self._note(names.EXCEPTION_TYPE, type(error).__qualname__)
        _log.error("%s failed", self._method, exc_info=error)
        request_id = identity.current().request_id
        return Internal("INTERNAL", f"internal error; the log of the server has it under request {request_id}")

    def _note(self, key: str, value: str) -> None:
        if self._span is not None:
            self._span.set_attribute(key, value)

    def end(self) -> None:
        """Records the call."""
        span = self._span
        if span is not None:
            if self._caller is not None:
                span.attributes[names.REQUEST_ID] = self._caller.request_id
            span.constants = self._constants.of(self._code, self._caller)
            if self._code in _SERVER_FAULTS:
                span.set_attribute(names.ERROR_TYPE, self._code.name)
                span.set_status(StatusCode.ERROR)
            span.end()
        if (calls := self._telemetry.calls) is not None:
            calls.active_count -= 1
            calls.served(self._method, self._code.name, time.perf_counter() - self._started)


def _awaited(behaviour: Behaviour) -> Behaviour:
    if not inspect.iscoroutinefunction(behaviour):
        raise TypeError(f"{behaviour!r} must be a coroutine function: a thread has no identity and no cancellation")
    return behaviour


def _pumped(behaviour: Behaviour) -> Behaviour:
    """Returns a coroutine function that sends what a handler yields; one that writes by itself is one already."""
    if inspect.iscoroutinefunction(behaviour):
        return behaviour

    async def pump(request: Any, context: Any) -> None:
        messages: AsyncIterable[Any] = behaviour(request, context)
        write = context.write
        try:
            async for message in messages:
                await write(message)
        finally:
            # A call that ends while a message is being sent leaves the handler suspended: its own cleaning up must
            # happen now, not when the garbage collector finds it.
            if (aclose := getattr(messages, "aclose", None)) is not None:
                await aclose()

    return pump


def _only(error: BaseException) -> BaseException:
    """Returns the one error that a task group wrapped, or the group where there are more."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


def _is_gone(error: BaseException) -> bool:
    """Tells whether the call ended under the handler: cancelled, or nothing can be sent any more."""
    if not isinstance(error, Exception):
        return True
    # Of grpc's own errors only UsageError is a bug of the handler.
    return isinstance(error, grpc.aio.BaseError) and not isinstance(error, grpc.aio.UsageError)


def _why_gone(context: Any) -> Code:
    left_s = context.time_remaining()
    return Code.CANCELLED if left_s is None or left_s > _DEADLINE_SLACK_S else Code.DEADLINE_EXCEEDED


def _set_code(context: Any) -> Code:
    """Returns the code that a handler set by itself; OK where it set none."""
    code = context.code()
    return Code.OK if code is None else status.code_of(code) if isinstance(code, grpc.StatusCode) else Code(code)
