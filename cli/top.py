"""`millrace top`: the live figures in the terminal, once a second, until Ctrl-C."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from cli import proxies
from cli.errors import CommandError

SILENCE_S_MAX = 20.0
STYLES = {"up": "green", "down": "red", "closed": "green", "half_open": "yellow", "open": "red"}


def top(url: str, api_key: str, once: bool = False, console: Console | None = None) -> int:
    """Shows the figures until it is interrupted, or once; raises CommandError where there are none to be had."""
    console = console or Console()
    with Live(console=console, auto_refresh=False, screen=console.is_terminal and not once) as live:
        for snapshot in snapshots(url, api_key):
            live.update(screen(snapshot), refresh=True)
            if once:
                break
    return 0


def snapshots(url: str, api_key: str) -> Iterator[dict[str, Any]]:
    """Yields what the edge tells.

    Raises:
        CommandError: Nothing answers, the caller is no administrator, or the stream has ended.
    """
    headers = {"authorization": f"Bearer {api_key}"} if api_key else {}
    try:
        with httpx.stream(
            "GET", f"{url}/admin/live", headers=headers, timeout=SILENCE_S_MAX, trust_env=proxies.are_for(url)
        ) as answer:
            if answer.status_code != 200:
                raise CommandError(json.loads(answer.read())["error"]["message"])
            for line in answer.iter_lines():
                if line.startswith("data: "):
                    told = json.loads(line.removeprefix("data: "))
                    if "error" in told:
                        raise CommandError(str(told["error"]["message"]))
                    yield told
    except httpx.HTTPError:
        raise CommandError("nothing answers: is `millrace up` running?") from None
    raise CommandError("the edge has ended the stream")


def screen(now: dict[str, Any]) -> Group:
    """What one snapshot looks like."""
    cache, safety = now["cache"], now["safety"]
    facts = Table.grid(padding=(0, 3))
    facts.add_row(
        f"requests/s [b]{now['requests_per_s']:.1f}[/b]",
        f"errors/s [b]{now['errors_per_s']:.1f}[/b]",
        f"in flight [b]{now['in_flight']}[/b]",
        f"tokens/s [b]{now['tokens_per_s']:.0f}[/b]",
    )
    hit_rate = "-" if cache["hit_rate"] is None else f"{cache['hit_rate']:.0%}"
    saved = "-" if cache["saved_usd"] is None else f"{cache['saved_usd']:.4f} USD"
    facts.add_row(f"latency {_times(now['latency_ms'])}", f"first token {_times(now['first_token_ms'])}")
    facts.add_row(f"cache hits [b]{hit_rate}[/b]", f"saved [b]{saved}[/b]")
    facts.add_row(f"flagged {safety['flag']}", f"redacted {safety['redact']}", f"blocked {safety['block']}")
    services = Text("  ").join(
        Text(f"{one['service']} {one['status']}", style=STYLES.get(one["status"], "")) for one in now["services"]
    )
    return Group(Text(f"Millrace, {now['replica']}", style="bold"), facts, services, _models(now["models"]))


def _models(models: list[dict[str, Any]]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for header, justify in (
        ("model", "left"), ("req/s", "right"), ("p95 ms", "right"), ("target", "left"), ("breaker", "left"),
        ("running", "right"), ("waiting", "right"), ("KV", "right"),
    ):  # fmt: skip
        table.add_column(header, justify=justify)  # type: ignore[arg-type]
    for model in models:
        shown = (model["model"], f"{model['requests_per_s']:.1f}", _ms(model["p95_ms"]))
        for target in model["targets"] or [None]:
            table.add_row(*shown, *(_target(target) if target else ()))
            shown = ("", "", "")
    return table


def _target(target: dict[str, Any]) -> tuple[str | Text, ...]:
    breaker = Text(target["breaker"], style=STYLES.get(target["breaker"], "dim"))
    kv_use = "" if target["kv_use"] is None else f"{target['kv_use']:.0%}"
    return target["target"], breaker, str(target["running"]), str(target["waiting"]), kv_use


def _times(found: dict[str, float | None]) -> str:
    return " / ".join(_ms(found[name]) for name in ("p50", "p95", "p99")) + " ms"


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{value:.0f}"
