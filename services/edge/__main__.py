"""Runs the edge: load, wire, serve until a signal."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys

import uvloop

from kit import logs, telemetry
from kit.config import load
from kit.errors import ConfigError
from kit.process import calm_collector, raise_open_files
from services.edge.config import EdgeSettings
from services.edge.wiring import wire

_log = logging.getLogger("services.edge")
_CONFIG_WRONG = 2


async def serve(settings: EdgeSettings) -> None:
    """Serves until SIGTERM or SIGINT; a second signal ends at once."""
    records = telemetry.setup("millrace-edge", settings)
    edge = wire(settings, records)
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, lambda: sys.exit(1) if stopping.is_set() else stopping.set())
    try:
        port = await edge.start()
        calm_collector()
        _log.info("serving", extra={"host": settings.host, "port": port})
        await stopping.wait()
        _log.info("draining", extra={"grace_s": settings.grace_s})
        await edge.stop()
    finally:
        await asyncio.to_thread(records.shutdown)


def main() -> int:
    """Returns the exit code: 2 when the settings are wrong or the port is taken."""
    try:
        settings = load(EdgeSettings)
        logs.setup("edge", settings.log_level)
        raise_open_files()
        uvloop.run(serve(settings))
    except (ConfigError, OSError) as error:
        print(f"edge: {error}", file=sys.stderr)
        return _CONFIG_WRONG
    return 0


if __name__ == "__main__":
    sys.exit(main())
