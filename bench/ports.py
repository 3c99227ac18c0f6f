"""Ports for servers that are started by number, killed, and started again under the same one.

Connections that go out, and servers that let the kernel choose, share one range. A port of it that is free now may be
somebody's connection by the time its server starts, or starts again; so these are from below that range.
"""

from __future__ import annotations

import random
import socket
from contextlib import ExitStack, suppress
from pathlib import Path

LOWEST = 15_000
RANGE_FILE = Path("/proc/sys/net/ipv4/ip_local_port_range")
CHOSEN_FROM = 32_768  # where the range begins on Linux unless it was set; elsewhere it begins later


def free_port() -> int:
    """A port that nobody listens on."""
    return free_ports(1)[0]


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on, each another one."""
    highest = int(RANGE_FILE.read_text().split()[0]) if RANGE_FILE.exists() else CHOSEN_FROM
    if highest <= LOWEST + count:  # the kernel was told to use them all
        highest = CHOSEN_FROM
    found: list[int] = []
    with ExitStack() as held:
        # The order is the operating system's: whoever seeds `random` would get the same ports as the run beside it.
        for port in random.SystemRandom().sample(range(LOWEST, highest), highest - LOWEST):
            with suppress(OSError):
                held.enter_context(socket.create_server(("127.0.0.1", port)))
                found.append(port)
            if len(found) == count:
                return found
    raise OSError(f"no {count} ports are free from {LOWEST} to {highest}")
