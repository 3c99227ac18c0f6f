"""`millrace up`: the whole suite in one terminal.

Joins the parts: the layout says where each service listens, the suite runs them, the report shows it. SIGINT or SIGTERM
drains and stops; a second one stops at once.
"""

from __future__ import annotations

import asyncio
import signal
import time
from pathlib import Path

from cli.banner import Callers, banner
from cli.child import Part
from cli.layout import FIRST_KEY_PATH, Layout
from cli.readiness import until_listening, until_readyz, until_serving
from cli.report import make_report
from cli.suite import Suite

LOG_DIR = Path(".millrace/logs")


def up(color: bool, log_dir: Path | None = LOG_DIR) -> int:
    """Runs the suite until it is stopped; returns the exit code.

    Args:
        color: Whether to colour what is shown.
        log_dir: Where the services' logs go; None: to standard output.
    Raises:
        ConfigError: A variable has a bad value.
        CommandError: A port or the folder for logs cannot be used.
    """
    return asyncio.run(_up(Layout.load(), color, log_dir))


async def _up(layout: Layout, color: bool, log_dir: Path | None) -> int:
    started = time.monotonic()
    report = make_report(color)
    stop, kill = _signals()
    logs = log_dir or Path("/dev/stdout")

    async def on_ready() -> None:
        callers = Callers(layout.inference.access.mode == "required", take_first_key())
        report.say(banner(layout.edge_url, layout.inference_target, logs, time.monotonic() - started, callers))

    try:
        return await Suite(layout.parts, until_ready, report, log_dir).run(stop, kill, on_ready)
    finally:
        report.close()


def take_first_key() -> str:
    """Takes the key that inference made because there was none; empty where it made none."""
    try:
        text = FIRST_KEY_PATH.read_text().strip()
        FIRST_KEY_PATH.unlink()
    except FileNotFoundError:
        return ""
    return text


async def until_ready(part: Part) -> None:
    """Waits in the way that fits the service: the edge speaks HTTP, the others gRPC health."""
    if part.name == "edge":
        await until_readyz(part)
    elif part.tls:
        # The edge's /readyz vouches for what is behind it; asking here would need a client certificate of our own.
        await until_listening(part)
    else:
        await until_serving(part)


def _signals() -> tuple[asyncio.Event, asyncio.Event]:
    """Returns the orders to stop and to kill: the first and the second SIGINT or SIGTERM."""
    stop, kill = asyncio.Event(), asyncio.Event()

    def on_signal() -> None:
        (kill if stop.is_set() else stop).set()

    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, on_signal)
    return stop, kill
