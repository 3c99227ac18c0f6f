"""What is left over once every caller has gone: a request that still runs somewhere, a connection, an open file."""

from __future__ import annotations

import asyncio
import json
import time
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from bench.stand import Suite
from bench.upstream import Upstream

GRACE_S = 3.0
POLL_S = 0.05


@dataclass(frozen=True)
class Leaks:
    """What is left over; all zero where nothing is.

    Attributes:
        upstream_requests: Requests that an upstream still works on.
        generations: Generations that inference says are running.
        edge_requests: Requests that the edge says are in flight.
        connections: Connections that an upstream still has; not counted where a pool may keep some.
        files: Files and sockets that the processes have more than before; not counted where a pool may keep some.
    """

    upstream_requests: int
    generations: int
    edge_requests: int
    connections: int = 0
    files: int = 0

    def told(self) -> list[str]:
        """The leaks in words."""
        return [f"{count} {name} left over" for name, count in asdict(self).items() if count]


async def settled(suite: Suite, upstreams: Sequence[Upstream], before: Mapping[str, int] | None = None) -> Leaks:
    """What is left over after a short grace; returns as soon as nothing is.

    Args:
        suite: What was called.
        upstreams: What it called.
        before: Its file counts before, where no connection may be left in a pool.
    """
    deadline = time.monotonic() + GRACE_S
    left = await _left(suite, upstreams, before)
    while left.told() and time.monotonic() < deadline:
        await asyncio.sleep(POLL_S)
        left = await _left(suite, upstreams, before)
    return left


async def _left(suite: Suite, upstreams: Sequence[Upstream], before: Mapping[str, int] | None) -> Leaks:
    requests = sum(len(upstream.in_progress) for upstream in upstreams)
    running, active = await _running(suite), await _active(suite)
    if before is None:
        return Leaks(requests, running, active)
    more = {name: max(0, count - before[name]) for name, count in suite.file_counts().items()}
    return Leaks(requests, running, active, sum(one.connection_count for one in upstreams), sum(more.values()))


async def _running(suite: Suite) -> int:
    return int(json.loads(await asyncio.to_thread(_get, f"{suite.url}/stats"))["running"])


async def _active(suite: Suite) -> int:
    """Requests in flight at the edge, without the one that asks."""
    page = await asyncio.to_thread(_get, f"{suite.url}/metrics")
    line = next(one for one in page.splitlines() if one.startswith("millrace_edge_active_requests "))
    return int(float(line.split()[1])) - 1


def _get(url: str) -> str:
    with urllib.request.urlopen(url, timeout=10) as answer:
        return str(answer.read().decode())
