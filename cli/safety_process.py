"""A safety service of the command's own, for as long as a measurement takes."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import sys
from collections.abc import AsyncIterator


@contextlib.asynccontextmanager
async def safety_service(target: str | None) -> AsyncIterator[str]:
    """Yields where a safety service listens: at `target`, or in a process that is ended afterwards."""
    if target:
        yield target
        return
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environ = os.environ | {"MILLRACE_SAFETY_PORT": str(port), "MILLRACE_SAFETY_LOG_LEVEL": "error"}
    process = await asyncio.create_subprocess_exec(sys.executable, "-m", "services.safety", env=environ)
    try:
        yield f"127.0.0.1:{port}"
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        await process.wait()
