"""`millrace trace REQUEST_ID`: the waterfall of one request, in the terminal."""

from __future__ import annotations

from typing import Any

import httpx
from rich.console import Console
from rich.table import Table
from rich.text import Text

from cli import proxies
from cli.errors import CommandError

NAME_WIDTH, SERVICE_WIDTH, MS_WIDTH = 34, 9, 8
BAR_WIDTH_MIN, BAR_WIDTH_MAX = 16, 80
TIMEOUT_S = 10.0
COLORS = {"edge": "cyan", "inference": "green", "cache": "yellow", "safety": "magenta"}


def print_trace(url: str, api_key: str, request_id: str, console: Console | None = None) -> int:
    """Prints what the edge knows of a request; raises CommandError where that is nothing."""
    headers = {"authorization": f"Bearer {api_key}"} if api_key else {}
    try:
        answer = httpx.get(
            f"{url}/v1/traces/{request_id}", headers=headers, timeout=TIMEOUT_S, trust_env=proxies.are_for(url)
        )
        body = answer.json()
    except (httpx.HTTPError, ValueError):
        raise CommandError("nothing answers: is `millrace up` running?") from None
    if answer.status_code != 200:
        raise CommandError(str(body["error"]["message"]))
    console = console or Console()
    console.print(waterfall(body, console.width))
    return 0


def waterfall(trace: dict[str, Any], width: int = 80) -> Table:
    """A row for each span, below the one that it is part of, with its place in time; bars take what a line has left."""
    rows = ordered(trace["spans"])
    start = min((span["start_ms"] for _, span in rows), default=0.0)
    end = max((span["start_ms"] + (span["duration_ms"] or 0.0) for _, span in rows), default=start)
    state = "" if trace["complete"] else ", still running"
    table = Table(box=None, pad_edge=False, title=f"trace {trace['trace_id']}{state}", title_justify="left")
    table.add_column("span", no_wrap=True, max_width=NAME_WIDTH)
    table.add_column("service", no_wrap=True, min_width=SERVICE_WIDTH)
    table.add_column("ms", no_wrap=True, min_width=MS_WIDTH, justify="right")
    bar_width = min(max(BAR_WIDTH_MIN, width - NAME_WIDTH - SERVICE_WIDTH - MS_WIDTH - 6), BAR_WIDTH_MAX)
    table.add_column("", no_wrap=True, min_width=bar_width)
    for depth, span in rows:
        name = Text("  " * depth + span["name"].rpartition(".")[2], style="red" if span["status"] == "error" else "")
        duration = "..." if span["duration_ms"] is None else f"{span['duration_ms']:.1f}"
        bar = Text(_bar(span, start, max(end - start, 0.001), bar_width), style=COLORS.get(span["service"], "white"))
        table.add_row(name, span["service"], duration, bar)
    return table


def ordered(spans: list[dict[str, Any]]) -> list[tuple[int, dict[str, Any]]]:
    """The spans by depth, each below its parent, beside its siblings by their start; orphans are on top."""
    known = {span["span_id"] for span in spans}
    below: dict[str | None, list[dict[str, Any]]] = {}
    for span in sorted(spans, key=lambda one: one["start_ms"]):
        parent = span["parent_span_id"]
        below.setdefault(parent if parent in known else None, []).append(span)
    rows: list[tuple[int, dict[str, Any]]] = []
    open_spans = [(0, span) for span in reversed(below.get(None, []))]
    while open_spans:
        depth, span = open_spans.pop()
        rows.append((depth, span))
        open_spans += [(depth + 1, child) for child in reversed(below.get(span["span_id"], []))]
    return rows


def _bar(span: dict[str, Any], start: float, length: float, bar_width: int) -> str:
    before: int = min(round((span["start_ms"] - start) / length * bar_width), bar_width - 1)
    if span["duration_ms"] is None:
        return " " * before + "▒" * (bar_width - before)
    width: int = max(1, round(span["duration_ms"] / length * bar_width))
    return " " * before + "█" * min(width, bar_width - before)
