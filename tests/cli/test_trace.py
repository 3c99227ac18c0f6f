"""What `millrace trace` and `millrace top` show."""

from __future__ import annotations

import io
from typing import Any

from rich.console import Console

from cli.top import screen
from cli.trace import ordered, waterfall


def span(span_id: str, parent: str | None, start: float, duration: float | None, **more: Any) -> dict[str, Any]:
    """A span as the edge tells it."""
    made = {"span_id": span_id, "parent_span_id": parent, "name": f"a.B/{span_id}", "service": "edge"}
    return {**made, "start_ms": start, "duration_ms": duration, "status": "unset", "attributes": {}, **more}


def shown(what: Any) -> str:
    """What a terminal of 120 columns shows."""
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(what)
    return console.export_text()


def test_spans_stand_below_their_parents_in_the_order_of_their_starts() -> None:
    """In whatever order they came; one whose parent is not there stands on top."""
    spans = [span("c", "a", 30, 1), span("b", "a", 10, 5), span("d", "b", 11, 1), span("a", None, 0, 50)]
    lost = span("x", "gone", 5, 1)
    rows = [(depth, one["span_id"]) for depth, one in ordered([*spans, lost])]
    assert rows == [(0, "a"), (1, "b"), (2, "d"), (1, "c"), (0, "x")]


def test_a_waterfall_shows_times_and_what_still_runs() -> None:
    """Each span has its duration and a bar at its place; one without an end has dots."""
    trace = {"trace_id": "ab", "complete": False, "spans": [span("a", None, 0, None), span("b", "a", 50, 50)]}
    text = shown(waterfall(trace, width=97))
    assert "still running" in text
    assert "..." in text
    (line,) = [one for one in text.splitlines() if "B/b" in one]
    assert "50.0" in line
    assert line.count("█") == 20


def test_top_shows_every_model_and_target() -> None:
    """Figures that are not known are dashes, never zeros."""
    none = {"p50": None, "p95": None, "p99": None}
    target = {"target": "local:m", "breaker": "open", "waiting": 3, "running": 2, "kv_use": 0.5}
    now = {
        "at_ms": 0, "replica": "host:1", "requests_per_s": 1.5, "errors_per_s": 0, "latency_ms": none,
        "first_token_ms": {"p50": 10, "p95": 20, "p99": 30}, "tokens_per_s": 7, "in_flight": 4,
        "cache": {"hits_per_s": 0, "hit_rate": None, "saved_usd": None}, "safety": {"flag": 1, "redact": 2, "block": 3},
        "models": [{"model": "m", "requests_per_s": 1, "p95_ms": None, "targets": [target]},
                   {"model": "bare", "requests_per_s": 0, "p95_ms": None, "targets": []}],
        "services": [{"service": "cache", "status": "down"}],
    }  # fmt: skip
    text = shown(screen(now))
    for words in ("host:1", "10 / 20 / 30 ms", "- / - / - ms", "cache hits -", "cache down", "local:m", "50%", "bare"):
        assert words in text
