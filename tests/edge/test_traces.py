"""The edge's own traces: whose they are, what belongs to a request, and how much is kept."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2
from opentelemetry.proto.trace.v1 import trace_pb2

from services.edge.exchange import Exchange
from services.edge.fault import Fault
from services.edge.traces import store as store_module
from services.edge.traces.endpoints import TraceEndpoints
from services.edge.traces.owners import Owners
from services.edge.traces.store import Request, Root, TraceStore
from tests.edge.conftest import RunningEdge

TRACE, ROOT = b"t" * 16, b"r" * 8


@dataclass
class Callers:
    """Says who asks."""

    role: str

    async def caller(self, exchange: Exchange) -> Any:
        """The asker, with the role that the test gives."""
        return self


def exchange(key: str = "", request_id: str = "req") -> Exchange:
    """A request for a trace."""
    headers = [(b"authorization", f"Bearer {key}".encode())] if key else []
    scope = {"method": "GET", "path": "/", "scheme": "http", "query_string": b"", "headers": headers}

    async def nothing(*_: object) -> Any:
        raise AssertionError("not to be used")

    made = Exchange(scope, nothing, nothing)
    made.params = {"request_id": request_id}
    return made


def export(*spans: tuple[bytes, bytes], trace_id: bytes = TRACE, request_id: str = "") -> bytes:
    """What a service sends: spans by id and parent."""
    request = trace_service_pb2.ExportTraceServiceRequest()
    group = request.resource_spans.add()
    group.resource.attributes.add(key="service.name").value.string_value = "millrace-inference"
    scope = group.scope_spans.add()
    for span_id, parent_id in spans:
        span = trace_pb2.Span(trace_id=trace_id, span_id=span_id, parent_span_id=parent_id, name="n")
        if request_id:
            span.attributes.add(key="millrace.request_id").value.string_value = request_id
        scope.spans.append(span)
    return request.SerializeToString()


def noted(owners: Owners, key: str, is_joined: bool = False) -> TraceStore:
    """A store that knows of one request, made with a key."""
    made = TraceStore()
    made.begin("req", Request(TRACE, owners.of(exchange(key)), Root(ROOT, "POST /x", 1, is_joined)))
    return made


@pytest.mark.parametrize(
    ("asker", "role", "sees"),
    [("mine", "user", True), ("other", "user", False), ("other", "admin", True), ("", "anonymous", True)],
)
async def test_a_trace_is_its_makers_and_the_admins(asker: str, role: str, sees: bool) -> None:
    """The same credential sees it, an administrator too, and anybody where none is needed; others learn nothing."""
    owners = Owners()
    ends = TraceEndpoints(noted(owners, "mine"), owners, Callers(role), 15.0)  # type: ignore[arg-type]
    if sees:
        assert (await ends.trace(exchange(asker), None)).trace_id == TRACE.hex()
        return
    with pytest.raises(Fault) as refused:
        await ends.trace(exchange(asker), None)
    with pytest.raises(Fault) as unknown:
        await ends.trace(exchange(asker, "nobody"), None)
    assert (refused.value.status, json.loads(refused.value.body())) == (404, json.loads(unknown.value.body()))


async def test_an_edge_that_keeps_no_spans_says_so_without_an_error(edge: RunningEdge) -> None:
    """The events of any request are 204: a page asks for them beside every answer, and browsers log what failed."""
    answer = await edge.get("/v1/traces/any/events")
    assert (answer.status_code, answer.content) == (204, b"")


def test_owners_are_kept_as_hashes_of_this_process() -> None:
    """The same key is the same owner in either header, under another process another, and never the key itself."""
    owners = Owners()
    assert owners.of(exchange("secret")) == owners.of(exchange("secret")) != owners.of(exchange("other"))
    assert owners.of(exchange("secret")) != Owners().of(exchange("secret"))
    assert b"secret" not in owners.of(exchange("secret"))
    assert owners.of(exchange()) == b""


def test_of_a_trace_that_came_in_only_the_requests_own_part_is_told() -> None:
    """Whoever names another's trace as its parent sees what lies below its own request, and nothing beside it."""
    store = noted(Owners(), "mine", is_joined=True)
    store.take(export((ROOT, b"c" * 8), (b"a" * 8, ROOT), (b"b" * 8, b"a" * 8), (b"x" * 8, b"c" * 8)))
    request = store.find("req")
    assert request is not None
    assert {one.span.span_id for one in store.own(store.trace(request))} == {ROOT, b"a" * 8, b"b" * 8}


@pytest.mark.parametrize("parent", [ROOT, b"c" * 8])
def test_who_joins_a_trace_is_not_told_of_to_whoever_began_it(parent: bytes) -> None:
    """Another request in the same trace, below the first one's own span or beside it, stays its own."""
    store = noted(Owners(), "mine")
    other = Request(TRACE, b"other", Root(b"o" * 8, "POST /chat", 0, True))
    store.begin("other", other)
    store.take(export((ROOT, b""), (b"a" * 8, ROOT), (b"o" * 8, parent), (b"p" * 8, b"o" * 8)))
    mine = store.find("req")
    assert mine is not None
    assert {one.span.span_id for one in store.own(store.trace(mine))} == {ROOT, b"a" * 8}
    assert {one.span.span_id for one in store.own(store.trace(other))} == {b"o" * 8, b"p" * 8}


@pytest.mark.parametrize(("others", "complete_s"), [(0, 0.5), (40, 2.5)])
def test_a_trace_is_complete_when_no_service_can_have_more_of_it(others: int, complete_s: float) -> None:
    """Once it is quiet for as long as services gather: those that have much to export for longer than the others."""
    now = [100.0]
    store = TraceStore(lambda: now[0])
    request = Request(TRACE, b"", Root(ROOT, "POST /x", 1, False))
    store.take(
        export(*((bytes([number]) * 8, b"") for number in range(others)), trace_id=b"o" * 16, request_id="r" * 64)
    )
    store.take(export((ROOT, b""), (b"a" * 8, ROOT)))
    for since_s, wanted in ((complete_s - 0.01, False), (complete_s, True)):
        now[0] = 100.0 + since_s
        assert store.is_complete(store.trace(request)) is wanted


def test_a_request_that_came_by_grpc_is_found_by_its_spans() -> None:
    """Its id is in the span of the server that took it."""
    store = TraceStore()
    store.take(export((b"a" * 8, b""), request_id="direct"))
    found = store.find("direct")
    assert found is not None
    assert (found.trace_id, found.owner) == (TRACE, b"")
    assert store.find("direc") is None


def test_what_is_no_export_has_no_spans() -> None:
    """Bytes that hold the ids and are nothing else of a trace do not keep the spans beside them from being found."""
    store = TraceStore()
    store.take(export((ROOT, b""), request_id="req"))
    store.take(b"\xff" + TRACE + b"req")
    request = store.find("req")
    assert request is not None
    assert list(store.trace(request).spans) == [ROOT]


def test_the_store_is_bounded_in_bytes_and_in_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    """The eldest exports and requests go first."""
    monkeypatch.setattr(store_module, "BYTES_MAX", 10_000)
    monkeypatch.setattr(store_module, "REQUEST_COUNT_MAX", 10)
    store = TraceStore()
    for number in range(1_000):
        trace_id = number.to_bytes(16, "big")
        store.begin(f"req-{number}", Request(trace_id, b"", None))
        store.take(export((b"a" * 8, b""), trace_id=trace_id))
    assert store.find("req-989") is None
    newest, size = store.find("req-999"), sum(len(data) for _, data in store._exports)
    assert newest is not None
    assert len(store.trace(newest).spans) == 1
    assert size <= 10_000
