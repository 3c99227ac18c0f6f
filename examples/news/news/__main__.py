"""`python -m news`: reads the settings, serves the page, stops on Ctrl-C or SIGTERM."""

from __future__ import annotations

import asyncio
import logging
import os
import sys

import uvicorn

from news.app import wired
from news.settings import Settings, SettingsError


def main() -> int:
    """Serves until it is told to stop; returns the exit code."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)  # it would log addresses, and a key stands in one of them
    try:
        asyncio.run(_serve(Settings.load(os.environ)))
    except SettingsError as error:
        print(f"news: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        pass
    return 0


async def _serve(settings: Settings) -> None:
    async with wired(settings) as app:
        config = uvicorn.Config(app, host=settings.host, port=settings.port, access_log=False, log_config=None)
        print(f"The news are at http://{settings.host}:{settings.port}/ and, as JSON, at /news", flush=True)
        await uvicorn.Server(config).serve()


if __name__ == "__main__":
    sys.exit(main())
