"""Writes Grafana's dashboards: what an operator looks at first, as code, so that a metric is named in one place.

    python -m tools.dashboards [--check]

The JSON in deploy/grafana/dashboards is what this prints; `--check` fails where it is not.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kit import names

FOLDER = Path(__file__).resolve().parent.parent / "deploy" / "grafana" / "dashboards"
SOURCE = {"type": "prometheus", "uid": "prometheus"}
WIDTH, HEIGHT = 8, 7  # three panels to a row of Grafana's 24 columns
Query = tuple[str, str]  # an expression and its legend

Panel = tuple[str, str, Sequence[Query]]  # title, unit, queries


def rate(name: str, by: str = "", where: str = "") -> str:
    """The rate of a counter, summed up."""
    return f"sum{_by(by)}(rate({name}{{{where}}}[$__rate_interval]))"


def quantile(share: float, name: str, by: str = "") -> str:
    """A quantile of a histogram."""
    grouping = ", ".join(("le", by)) if by else "le"
    return f"histogram_quantile({share}, sum by ({grouping}) (rate({name}_bucket[$__rate_interval])))"


def quantiles(name: str) -> list[Query]:
    """The three quantiles that matter."""
    return [(quantile(share, name), f"p{share * 100:.0f}") for share in (0.5, 0.95, 0.99)]


def _by(labels: str) -> str:
    return f" by ({labels}) " if labels else ""


SERVING: Sequence[Panel] = (
    ("Requests by outcome", "reqps", [(rate(names.REQUESTS, "outcome"), "{{outcome}}")]),
    ("Duration", "s", quantiles(names.GEN_AI_SERVER_REQUEST_DURATION)),
    ("Time to the first token", "s", quantiles(names.GEN_AI_SERVER_TTFT)),
    ("Time per output token", "s", quantiles(names.GEN_AI_SERVER_TIME_PER_OUTPUT_TOKEN)),
    (
        "Tokens per second",
        "short",
        [(rate(f"{names.GEN_AI_CLIENT_TOKEN_USAGE}_sum", names.LABEL_TOKEN_TYPE), "{{gen_ai_token_type}}")],
    ),
    ("Millrace's own time to the first token", "s", quantiles(names.OVERHEAD)),
    ("Refused by limits", "reqps", [(rate(names.REFUSALS, "reason"), "{{reason}}")]),
    ("Spent per hour", "currencyUSD", [(f"3600 * {rate(names.COST_USD, 'model')}", "{{model}}")]),
    ("Requests by model", "reqps", [(rate(names.REQUESTS, "model"), "{{model}}")]),
)
PARTS: Sequence[Panel] = (
    ("Breakers (1 open, 0.5 half open)", "short", [(f"max by (target, model) ({names.BREAKER_OPEN})", "{{target}}")]),
    (
        "Calls at targets",
        "short",
        [
            (f"sum by (target) ({names.TARGET_RUNNING})", "{{target}} running"),
            (f"sum by (target) ({names.TARGET_WAITING})", "{{target}} waiting"),
        ],
    ),
    ("Attempts by outcome", "reqps", [(rate(names.ATTEMPTS, "target, outcome"), "{{target}} {{outcome}}")]),
    ("Cache lookups", "reqps", [(rate(names.CACHE_LOOKUPS, "outcome"), "{{outcome}}")]),
    ("Saved by the cache", "currencyUSD", [(f"sum({names.CACHE_SAVED_USD})", "USD")]),
    ("Cache entries", "short", [(f"sum({names.CACHE_ENTRIES})", "entries")]),
    (
        "Safety",
        "reqps",
        [
            (rate(names.VERDICTS, "verdict"), "{{verdict}}"),
            (rate(names.UNSCREENED), "unscreened"),
        ],
    ),
    ("KV cache in use", "percentunit", [(f"max by (model) ({names.LOCAL_KV_CACHE_USED})", "{{model}}")]),
    ("Ledger lag", "s", [(f"max by (instance) ({names.LEDGER_LAG})", "{{instance}}")]),
    (
        "Calls between services, p95",
        "s",
        [(quantile(0.95, names.RPC_SERVER_CALL_DURATION, names.LABEL_METHOD), "{{rpc_method}}")],
    ),
    ("What inference leans on", "short", [(f"min by (dependency) ({names.DEPENDENCY_UP})", "{{dependency}}")]),
    ("Telemetry lost", "short", [(rate(names.TELEMETRY_DROPPED, "job, signal"), "{{job}} {{signal}}")]),
)
BOARDS = {"serving": ("Millrace: serving", SERVING), "parts": ("Millrace: its parts", PARTS)}


def board(uid: str, title: str, panels: Sequence[Panel]) -> dict[str, Any]:
    """A dashboard."""
    return {
        "uid": f"millrace-{uid}",
        "title": title,
        "tags": ["millrace"],
        "schemaVersion": 39,
        "timezone": "utc",
        "refresh": "15s",
        "time": {"from": "now-1h", "to": "now"},
        "panels": [_panel(number, *panel) for number, panel in enumerate(panels)],
    }


def _panel(number: int, title: str, unit: str, queries: Sequence[Query]) -> dict[str, Any]:
    across = 24 // WIDTH
    return {
        "id": number + 1,
        "type": "timeseries",
        "title": title,
        "datasource": SOURCE,
        "gridPos": {"w": WIDTH, "h": HEIGHT, "x": number % across * WIDTH, "y": number // across * HEIGHT},
        "fieldConfig": {"defaults": {"unit": unit, "min": 0, "custom": {"fillOpacity": 8}}, "overrides": []},
        "options": {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi"}},
        "targets": [
            {"refId": chr(65 + place), "expr": expr, "legendFormat": legend, "exemplar": "_bucket" in expr}
            for place, (expr, legend) in enumerate(queries)
        ],
    }


def written() -> dict[Path, str]:
    """Each file and what it is to hold."""
    return {FOLDER / f"{uid}.json": json.dumps(board(uid, *made), indent=2) + "\n" for uid, made in BOARDS.items()}


def main() -> int:
    """Writes or checks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="fail where a file is not what this would write")
    if parser.parse_args().check:
        stale = [path.name for path, text in written().items() if not path.exists() or path.read_text() != text]
        print("\n".join(f"{name} is stale: run python -m tools.dashboards" for name in stale), end="")
        return bool(stale)
    for path, text in written().items():
        path.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
