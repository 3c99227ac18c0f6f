"""Spans: what is exported of a trace, what they say in OTLP's bytes, and what a dead collector costs."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2
from opentelemetry.trace import SpanKind, StatusCode

from kit import otlp
from kit.otlp import Destination, Exporter
from kit.otlp_spans import SpanBuffer, SpanEncoder
from kit.spans import CURRENT, Constants, Span, SpanTracer, step


class Kept(list[Span]):
    """Spans that were exported."""

    def named(self) -> list[str]:
        """Their names, in the order in which they came."""
        return [span.name for span in self]


def unsampled(kept: Kept, slow_s: float = 60.0) -> SpanTracer:
    """A tracer whose head samples nothing."""
    return SpanTracer(kept.append, ratio=0.0, slow_s=slow_s)


def test_a_failure_brings_its_part_of_an_unsampled_trace() -> None:
    """One span that failed has all of the process's part exported, whole and once."""
    kept = Kept()
    with unsampled(kept).start_as_current_span("root"):
        with step("well"):
            pass
        root = CURRENT.get()
        assert root is not None
        broken = root.child("broken")
        broken.set_status(StatusCode.ERROR)
        broken.end()
        assert kept == []
    assert kept.named() == ["well", "broken", "root"]


def test_what_was_quick_and_went_well_is_not_exported_unsampled() -> None:
    """Neither the root nor what was below it."""
    kept = Kept()
    with unsampled(kept).start_as_current_span("root"), step("well"):
        pass
    assert kept == []


@pytest.mark.parametrize(("flags", "is_sampled"), [("00", False), ("01", True), ("02", False), ("ff", True)])
def test_what_is_served_continues_the_callers_trace(flags: str, is_sampled: bool) -> None:
    """Ids are the caller's, and of its flags the last bit alone counts."""
    span = SpanTracer(id).served("a.B/C", f"00-{'ab' * 16}-{'cd' * 8}-{flags}")
    assert (span.trace_hex, span.parent_hex, span.is_sampled) == ("ab" * 16, "cd" * 8, is_sampled)
    assert span.traceparent == f"00-{'ab' * 16}-{span.span_hex}-{'01' if is_sampled else '00'}"


@pytest.mark.parametrize(
    "told",
    ["", "00", f"00-{'0' * 32}-{'cd' * 8}-01", f"00-{'ab' * 16}-{'0' * 16}-01", f"00-{'AB' * 16}-{'cd' * 8}-01",
     f"01-{'ab' * 16}-{'cd' * 8}-01", f"00-{'ab' * 16}-{'cd' * 8}-01\n", f" 00-{'ab' * 16}-{'cd' * 8}-01"],
)  # fmt: skip
def test_a_malformed_trace_context_begins_a_trace(told: str) -> None:
    """Nothing of it is believed."""
    span = SpanTracer(id).served("a.B/C", told)
    assert (span.parent_hex, span.parent, span.is_sampled) == ("", None, True)
    assert span.trace_hex not in ("ab" * 16, "0" * 32)


def test_a_slow_trace_is_exported_unsampled() -> None:
    """Slow is what lasts longer than the bound, as its own times say."""
    kept = Kept()
    root = unsampled(kept, slow_s=1.0).start_span("root", start_time=1)
    root.end(1 + 1_500_000_000)
    assert kept.named() == ["root"]


def test_a_span_that_has_ended_is_gone_without_the_collector() -> None:
    """Neither the first span of a trace nor those below it hold themselves."""
    tracer = SpanTracer(id)
    gc.disable()
    try:
        root = tracer.start_span("root")
        below = root.child("below")
        left = [weakref.ref(one) for one in (root, below)]
        below.end()
        root.end()
        del root, below
        assert [one() for one in left] == [None, None]
    finally:
        gc.enable()


def test_what_is_written_is_what_opentelemetry_reads() -> None:
    """The generated classes find every field of a span in the bytes, lists and negative numbers included."""
    kept = Kept()
    tracer = SpanTracer(kept.append)
    with tracer.start_as_current_span("above") as above:
        attributes = {"text": "ä" * 200, "count": -3, "share": 0.5, "flag": True, "list": ["a", "b"], "one": 1}
        span = tracer.start_span("below", kind=SpanKind.CLIENT, attributes=attributes)
        span.constants = Constants({"method": "a.B/C", "code": "OK"})
        span.set_status(StatusCode.ERROR, "WHY")
        span.end()
    encoder = SpanEncoder({"service.name": "echo"}, "millrace")
    data = encoder.request([encoder.span(one) for one in kept])
    (group,) = trace_service_pb2.ExportTraceServiceRequest.FromString(data).resource_spans
    below, root = group.scope_spans[0].spans
    assert group.resource.attributes[0].value.string_value == "echo"
    assert below.trace_id == root.trace_id == above.get_span_context().trace_id.to_bytes(16, "big")
    assert below.parent_span_id == root.span_id
    assert (below.name, below.kind) == ("below", below.SPAN_KIND_CLIENT)
    assert (below.status.code, below.status.message) == (below.status.STATUS_CODE_ERROR, "WHY")
    assert (below.start_time_unix_nano, below.end_time_unix_nano) == (span.start_time, span.end_time)
    found = {one.key: one.value for one in below.attributes}
    assert (found["method"].string_value, found["code"].string_value) == ("a.B/C", "OK")
    assert found["text"].string_value == "ä" * 200
    assert (found["count"].int_value, found["share"].double_value) == (-3, 0.5)
    assert found["flag"].bool_value
    assert found["one"].int_value == 1
    assert [one.string_value for one in found["list"].array_value.values] == ["a", "b"]


def ended(names: Sequence[str], **attributes: Any) -> list[Span]:
    """Spans that have ended."""
    kept = Kept()
    for name in names:
        SpanTracer(kept.append).start_span(name, attributes=attributes).end()
    return kept


def exported(requests: Sequence[bytes]) -> list[str]:
    """Names of the spans in requests."""
    read = trace_service_pb2.ExportTraceServiceRequest.FromString
    groups = (group for request in requests for group in read(request).resource_spans)
    return [span.name for group in groups for scope in group.scope_spans for span in scope.spans]


def buffered(sent: list[bytes], delay_s: float) -> tuple[SpanBuffer, Exporter[bytes]]:
    """A buffer, and an exporter that sends from it."""
    encoder, ways = SpanEncoder({"service.name": "echo"}, "millrace"), list[Exporter[bytes]]()
    buffer = SpanBuffer(encoder.span, ways)
    ways.append(Exporter(sent.append, encoder.request, delay_s, "spans", buffer.flush))
    return buffer, ways[0]


def test_spans_are_encoded_together() -> None:
    """None waits in the exporter's queue before there are enough; what is left then goes with the next batch."""
    sent: list[bytes] = []
    buffer, exporter = buffered(sent, 600.0)
    names = [str(number) for number in range(100)]
    spans = ended(names)
    counts = []
    for span in spans:
        buffer.take(span)
        counts.append(exporter.waiting_count)
    assert counts == [0] * 63 + [64] * 37
    exporter.shutdown()
    assert exported(sent) == names


def test_a_single_span_leaves_without_others() -> None:
    """Who sends is told of the first that waits, and fetches it when its time has come."""
    arrived, sent = threading.Event(), list[bytes]()
    encoder, ways = SpanEncoder({"service.name": "echo"}, "millrace"), list[Exporter[bytes]]()
    buffer = SpanBuffer(encoder.span, ways)

    def send(request: bytes) -> None:
        sent.append(request)
        arrived.set()

    ways.append(Exporter(send, encoder.request, 0.01, "spans", buffer.flush))
    for name in ("one", "other"):
        buffer.take(*ended([name]))
        assert arrived.wait(10)
        arrived.clear()
    ways[0].shutdown()
    assert exported(sent) == ["one", "other"]


def test_two_threads_that_empty_the_buffer_lose_and_double_nothing() -> None:
    """The thread that sends fetches spans while the event loop brings them."""
    sent: list[bytes] = []
    buffer, exporter = buffered(sent, 600.0)
    names = [str(number) for number in range(3000)]
    spans, is_over = ended(names), threading.Event()

    def fetch() -> None:
        while not is_over.is_set():
            buffer.flush()

    other = threading.Thread(target=fetch)
    other.start()
    for span in spans:
        buffer.take(span)
    is_over.set()
    other.join(10)
    exporter.shutdown()
    assert sorted(exported(sent)) == sorted(names)


def test_what_cannot_be_encoded_takes_nothing_else_with_it() -> None:
    """An attribute that OTLP has no type for costs its own span, which counts as lost."""
    sent: list[bytes] = []
    buffer, exporter = buffered(sent, 600.0)
    for span in (*ended(["before"]), *ended(["odd"], odd=object()), *ended(["after"])):
        buffer.take(span)
    exporter.shutdown()
    assert (exported(sent), exporter.dropped_count) == (["before", "after"], 1)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda span: setattr(span, "start_time", 1.5e18),
        lambda span: setattr(span, "end_time", -1),
        lambda span: span.attributes.update({3: "key"}),
    ],
    ids=["a broken time", "a time before 1970", "a key that is no text"],
)
def test_an_odd_span_ends_neither_its_neighbours_nor_the_thread(spoil: Callable[[Span], object]) -> None:
    """On the event loop no other span's end fails for it, on the thread exports go on; it alone counts as lost."""
    sent: list[bytes] = []
    buffer, exporter = buffered(sent, 600.0)
    names = [str(number) for number in range(64)]
    spans = ended(names)
    spoil(spans[30])
    for span in spans:  # the last has them encoded here
        buffer.take(span)
    (odd,) = ended(["odd"])
    spoil(odd)
    buffer.take(odd)  # fetched by the thread
    exporter.shutdown()
    assert (exported(sent), exporter.dropped_count) == (names[:30] + names[31:], 2)


def test_the_thread_outlives_what_fails_as_it_gathers(caplog: pytest.LogCaptureFixture) -> None:
    """Whatever gathering raises is told, and what was offered is sent all the same."""
    arrived, failed = threading.Event(), threading.Event()

    def gather() -> None:
        failed.set()
        raise RuntimeError("nothing to be had")

    exporter: Exporter[bytes] = Exporter(lambda batch: arrived.set(), b"".join, 0.001, "spans", gather)
    exporter.announce()
    assert failed.wait(10)
    exporter.offer(b"x")
    assert arrived.wait(10)
    exporter.shutdown()
    assert {getattr(one, "reason", "") for one in caplog.records} == {"RuntimeError('nothing to be had')"}


def test_a_dead_collector_costs_nothing_but_what_it_was_to_get() -> None:
    """Offers never wait, the queue stays bounded, what is lost is counted, and the end is not held up."""
    destination = Destination("http://127.0.0.1:1")
    exporter: Exporter[int] = Exporter(destination.sender(otlp.TRACES), lambda batch: b"", 0.01, "spans")
    for number in range(3 * otlp.QUEUE_COUNT_MAX):
        exporter.offer(number)
    assert exporter.waiting_count <= otlp.QUEUE_COUNT_MAX
    exporter.shutdown()
    assert exporter.dropped_count >= 2 * otlp.QUEUE_COUNT_MAX
    # One may count as lost whose place became free as it came.
    assert exporter.dropped_count + exporter.waiting_count >= 3 * otlp.QUEUE_COUNT_MAX
    destination.close()


def test_a_slow_collector_holds_nobody_up() -> None:
    """While an export hangs, offers go into the queue; they are sent when it has ended."""
    entered, release, sent = threading.Event(), threading.Event(), list[int]()

    def send(batch: bytes) -> None:
        entered.set()
        assert release.wait(10)
        sent.append(len(batch))

    exporter: Exporter[int] = Exporter(send, lambda batch: bytes(len(batch)), 0.001, "spans")
    exporter.offer(1)
    assert entered.wait(10)
    for number in range(100):
        exporter.offer(number)
    assert exporter.waiting_count == 100
    release.set()
    exporter.shutdown()
    assert sum(sent) == 101


def test_a_full_batch_does_not_wait_for_its_time() -> None:
    """However long records are to gather: as many as one export takes leave at once, and none is lost."""
    sent, arrived = list[int](), threading.Event()

    def send(batch: bytes) -> None:
        sent.append(len(batch))
        if sum(sent) > otlp.BATCH_COUNT_MAX:
            arrived.set()

    exporter: Exporter[int] = Exporter(send, lambda batch: bytes(len(batch)), 600.0, "spans")
    for number in range(otlp.BATCH_COUNT_MAX + 1):
        exporter.offer(number)
    assert arrived.wait(10)
    exporter.shutdown()
    assert (sum(sent), exporter.dropped_count) == (otlp.BATCH_COUNT_MAX + 1, 0)


def test_who_has_rested_exports_soon_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """The long wait of who was busy is counted from when that was, not from the next record."""
    now, sent, arrived = [0.0], list[int](), threading.Semaphore(0)
    monkeypatch.setattr(otlp, "_BUSY_DELAY_S", 600.0)
    monkeypatch.setattr(otlp, "time", SimpleNamespace(monotonic=lambda: now[0]))

    def send(batch: bytes) -> None:
        sent.append(len(batch))
        arrived.release()

    exporter: Exporter[int] = Exporter(send, lambda batch: bytes(len(batch)), 0.2, "spans")
    for number in range(100):
        exporter.offer(number)
    while sum(sent) < 100:
        assert arrived.acquire(timeout=10)
    now[0] = 700.0
    exporter.offer(100)
    assert arrived.acquire(timeout=10)
    exporter.shutdown()
    assert sum(sent) == 101


def test_what_is_too_much_for_one_message_is_sent_in_several() -> None:
    """Records that are large together arrive all the same, in their order; one alone is sent as it is."""
    sent: list[bytes] = []
    exporter: Exporter[bytes] = Exporter(sent.append, b"".join, 60.0, "logs")
    for letter in b"abcde":
        exporter.offer(bytes([letter]) * 1_500_000)
    exporter.offer(b"f" * 5_000_000)
    exporter.shutdown()

    assert [bytes(sorted(set(one))) for one in sent] == [b"a", b"bc", b"d", b"e", b"f"]
    assert exporter.dropped_count == 0
