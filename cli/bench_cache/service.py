"""A cache service for one run: a process of its own, with an empty store, that is gone afterwards.

It takes no setting from the environment: a bench measures what it says that it measures.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import socket
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from cli.child import Child, Part
from cli.errors import CommandError
from cli.readiness import until_listening, until_serving
from kit.dial import dial
from millrace.cache.v1.cache_service_pb2_grpc import CacheServiceStub

if TYPE_CHECKING:  # Exists for type checkers only.
    from millrace.cache.v1.cache_service_pb2_grpc import CacheServiceAsyncStub

FULL_NAME = "millrace.cache.v1.CacheService"
START_DEADLINE_S = 120.0
GRACE_S = 5.0
TAIL_LINE_COUNT = 5
# Callers may be stricter than the service, never laxer: so that each policy can ask for what it wants, it asks nothing.
# Deadlines would turn a busy machine into a worse policy.
SETTINGS = {
    "SEMANTIC": "true",
    "SEMANTIC_ERROR_MAX": "1",
    "SEMANTIC_TIMEOUT_S": "5",
    "LOG_LEVEL": "warning",
}


@asynccontextmanager
async def cache_service(store: str, *, guards: bool) -> AsyncIterator[CacheServiceAsyncStub]:
    """Starts a service on a store (`embedded` or `redis`) and stops it at the end.

    Without guards nothing but similarity counts where a lookup asks for no bound, as in other caches.

    Raises:
        CommandError: It did not start, or there is no redis-server to start.
    """
    with tempfile.TemporaryDirectory(prefix="millrace-bench-") as name:
        folder = Path(name)
        async with contextlib.AsyncExitStack() as stack:
            settings = SETTINGS | {"STORE": store, "PATH": str(folder / "cache.sqlite3")}
            settings["SEMANTIC_GUARDS"] = str(guards).lower()
            if store == "redis":
                settings["REDIS_URL"] = await stack.enter_async_context(_redis(folder))
            address = await stack.enter_async_context(_started(settings, folder))
            channel = dial(address, service=FULL_NAME)
            stack.push_async_callback(channel.close)
            yield CacheServiceStub(channel)


@asynccontextmanager
async def _started(settings: dict[str, str], folder: Path) -> AsyncIterator[str]:
    port = _free_port()
    variables = {f"MILLRACE_CACHE_{name}": value for name, value in {**settings, "PORT": str(port)}.items()}
    part = Part("cache", ("services.cache",), "127.0.0.1", port, GRACE_S, environ=variables)
    environ = {name: value for name, value in os.environ.items() if not name.startswith("MILLRACE_")}
    child = await Child.start(part, folder, environ)
    try:
        await _until_ready(child)
        yield part.address
    finally:
        await child.stop()


async def _until_ready(child: Child) -> None:
    ready = asyncio.ensure_future(until_serving(child.part))
    try:
        await asyncio.wait([ready, child.exited], timeout=START_DEADLINE_S, return_when=asyncio.FIRST_COMPLETED)
        if not ready.done():
            raise CommandError("the cache service did not start:\n" + "\n".join(child.tail(TAIL_LINE_COUNT)))
    finally:
        ready.cancel()


@asynccontextmanager
async def _redis(folder: Path) -> AsyncIterator[str]:
    """Starts a redis-server that keeps nothing on the disk."""
    binary = shutil.which("redis-server")
    if binary is None:
        raise CommandError("--store redis needs redis-server on the PATH (Debian: apt-get install redis-server)")
    port = _free_port()
    options = ["--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder), "--save", "", "--appendonly", "no"]
    with (folder / "redis.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(binary, *options, stdout=log, stderr=log)
    try:
        async with asyncio.timeout(START_DEADLINE_S):
            await until_listening(Part("redis", (), "127.0.0.1", port, GRACE_S))
        yield f"redis://127.0.0.1:{port}/0"
    finally:
        process.terminate()
        await process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
