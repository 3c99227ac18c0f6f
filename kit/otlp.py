"""Telemetry on its way out, by OTLP over gRPC: a bounded queue and a thread of its own for each destination.

Whoever records never waits: what a slow or dead collector does not take is dropped, oldest first, and counted. Batches
are cut by count and time. The thread puts them together and sends them, off the event loop.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Sequence
from typing import Any, Final, Generic, TypeVar
from urllib.parse import urlsplit

import grpc

T = TypeVar("T")

# What a minute of about a hundred requests a second leaves, and at most some 10 MB.
QUEUE_COUNT_MAX: Final = 16_384
# Who takes a batch reads it in one go: the edge's span store, on its event loop, at 1.2 us a span.
BATCH_COUNT_MAX: Final = 2048
# How long a batch is tried, and so how long a collector that is down can delay the end of a process.
TIMEOUT_S: Final = 3.0
_PAUSE_S, _PAUSE_S_MAX = 1.0, 30.0
# One export costs 2 to 4 ms CPU on both sides together, however little it holds: who has more than this to send gathers
# for longer, or until a batch is full.
_BUSY_COUNT: Final = 16
_BUSY_DELAY_S: Final = 2.0
_MESSAGE_BYTES_MAX: Final = 4 * 1024 * 1024  # what servers take that were not told otherwise

TRACES: Final = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
METRICS: Final = "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export"
LOGS: Final = "/opentelemetry.proto.collector.logs.v1.LogsService/Export"

_log = logging.getLogger(__name__)


class Destination:
    """A collector: where it is and what it is shown.

    Args:
        endpoint: As http://host:4317, or https:// for TLS by the system's authorities.
        headers: Metadata of each call, such as a key for a hosted collector.
    """

    def __init__(self, endpoint: str, headers: Sequence[tuple[str, str]] = ()) -> None:
        self.endpoint, self._headers = endpoint, tuple(headers)
        parts = urlsplit(endpoint)
        options = (("grpc.enable_retries", 0), ("grpc.max_send_message_length", _MESSAGE_BYTES_MAX))
        self._channel = (
            grpc.secure_channel(parts.netloc, grpc.ssl_channel_credentials(), options)
            if parts.scheme == "https"
            # A collector that is spoken to in the clear is near, not behind the proxy that the environment may name.
            else grpc.insecure_channel(parts.netloc, (*options, ("grpc.enable_http_proxy", 0)))
        )

    def sender(self, method: str) -> Callable[[bytes], object]:
        """Returns what sends one encoded request of a method; it raises grpc.RpcError."""
        call: Any = self._channel.unary_unary(method)
        return lambda request: call(request, timeout=TIMEOUT_S, metadata=self._headers)

    def close(self) -> None:
        """Hangs up."""
        self._channel.close()


class Exporter(Generic[T]):
    """Sends records in batches.

    Args:
        send: Sends one encoded batch.
        encode: Turns records into a request.
        delay_s: How long records gather; two seconds at least, or until a batch is full, while there are many.
        what: What is lost where it cannot be sent, for the log.
        gather: Offers what is no record yet; called on the thread before each batch.

    Attributes:
        dropped_count: Records that were lost.
    """

    def __init__(
        self,
        send: Callable[[bytes], object],
        encode: Callable[[Sequence[T]], bytes],
        delay_s: float,
        what: str,
        gather: Callable[[], object] = lambda: None,
    ) -> None:
        self._send, self._encode, self._delay_s, self._what, self._gather = send, encode, delay_s, what, gather
        self._queue: deque[T] = deque(maxlen=QUEUE_COUNT_MAX)
        self._offered = threading.Event()
        self._due = threading.Event()  # before its time: a batch is full, or the process ends
        self._stopping = threading.Event()
        self._is_failing = False
        self.dropped_count = 0
        self._thread = threading.Thread(target=self._run, name=f"export {what}", daemon=True)
        self._thread.start()

    @property
    def waiting_count(self) -> int:
        """Records in the queue."""
        return len(self._queue)

    def offer(self, record: T) -> None:
        """Takes a record; never waits."""
        self.offer_all((record,))

    def offer_all(self, records: Collection[T]) -> None:
        """Takes records; never waits."""
        count = len(self._queue) + len(records)
        if count > QUEUE_COUNT_MAX:
            self.dropped_count += count - QUEUE_COUNT_MAX
        self._queue.extend(records)
        self.announce()
        if count > BATCH_COUNT_MAX and not self._due.is_set():
            self._due.set()

    def announce(self) -> None:
        """Says that there is, or will be when `gather` is called, something to send."""
        if not self._offered.is_set():
            self._offered.set()

    def shutdown(self) -> None:
        """Sends what is left, within the time of one batch, and ends."""
        self._stopping.set()
        self._offered.set()
        self._due.set()
        self._thread.join(2 * TIMEOUT_S)

    def _run(self) -> None:
        pause_s, next_at = _PAUSE_S, 0.0
        while not self._stopping.is_set():
            self._offered.wait()
            self._due.wait(max(self._delay_s, next_at - time.monotonic()))
            self._offered.clear()
            self._due.clear()
            self._fetch()
            # Counted from here: who was busy and has rested since does not wait, and the span store relies on that.
            next_at = time.monotonic() + _BUSY_DELAY_S if len(self._queue) > _BUSY_COUNT else 0.0
            while self._queue and not self._stopping.is_set():
                if self._send_batch():
                    pause_s = _PAUSE_S
                    continue
                self._stopping.wait(pause_s)
                pause_s = min(2 * pause_s, _PAUSE_S_MAX)
        self._fetch()
        until = time.monotonic() + TIMEOUT_S
        while self._queue and time.monotonic() < until and self._send_batch():
            pass

    def _fetch(self) -> None:
        """Gathers. The thread outlives what fails there, as it does what fails while it sends."""
        try:
            self._gather()
        except Exception as error:
            self._complain(error)

    def _send_batch(self) -> bool:
        """Sends the eldest records; what could not be sent is gone: to keep it would push out what is newer."""
        batch = [self._queue.popleft() for _ in range(min(len(self._queue), BATCH_COUNT_MAX))]
        try:
            self._send_whole(batch)
        except Exception as error:  # the last resort of a thread: telemetry must never take anything else with it
            self.dropped_count += len(batch)
            self._complain(error)
            return False
        self._is_failing = False
        return True

    def _complain(self, error: Exception) -> None:
        """Tells of a failure, unless the one before was told."""
        if not self._is_failing:
            reason = error.code().name if isinstance(error, grpc.Call) else repr(error)
            _log.warning("%s cannot be exported", self._what, extra={"reason": reason})
        self._is_failing = True

    def _send_whole(self, batch: list[T]) -> None:
        """Sends a batch, in as many parts as keep each small enough: two thousand tracebacks are more than one is."""
        request = self._encode(batch)
        if len(request) <= _MESSAGE_BYTES_MAX or len(batch) == 1:
            self._send(request)
            return
        half = len(batch) // 2
        self._send_whole(batch[:half])
        self._send_whole(batch[half:])
