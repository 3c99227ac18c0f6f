"""Whether many streams hold at once: 1,000 that are idle and 200 that are active, through edge and inference.

    python -m bench.streams [--idle 1000] [--active 200] [--seconds 20] [--json FILE]

An idle stream has got its first token and then hears nothing; an active one gets 100 tokens, 20 ms apart, and is
begun anew when it ends. At the end every idle stream must still be open and every active one must have been complete.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import time
from pathlib import Path
from typing import Any

import aiohttp

from bench.stand import chat_body, stand

IDLE_MODEL = "fake-n100-z1"  # stalls for ever after one token
ACTIVE_MODEL = "fake-n100-g20"
OPENING_PER_S = 200  # how fast streams are opened: nobody's thousand users arrive in one millisecond


class Count:
    """What happened."""

    def __init__(self) -> None:
        self.idle_open = self.completed = 0
        self.errors: list[str] = []
        self.ttfts_ms: list[float] = []


async def idle(session: aiohttp.ClientSession, url: str, count: Count, end: asyncio.Event) -> None:
    """Holds one idle stream until the end."""
    async with session.post(url, json=chat_body(IDLE_MODEL, True)) as answer:
        if answer.status != 200:
            count.errors.append(f"idle: {answer.status} {(await answer.text())[:200]}")
            return
        await answer.content.readuntil(b'"content":"T')
        count.idle_open += 1
        ended = asyncio.create_task(_until_closed(answer))
        await asyncio.wait({ended, asyncio.create_task(end.wait())}, return_when=asyncio.FIRST_COMPLETED)
        if ended.done():
            count.errors.append("idle: closed early")
        ended.cancel()


async def _until_closed(answer: aiohttp.ClientResponse) -> None:
    while await answer.content.readline():
        pass


async def active(session: aiohttp.ClientSession, url: str, count: Count, end: asyncio.Event) -> None:
    """Runs one active stream after another until the end."""
    while not end.is_set():
        start = time.monotonic()
        async with session.post(url, json=chat_body(ACTIVE_MODEL, True)) as answer:
            await answer.content.readuntil(b'"content":"T')
            count.ttfts_ms.append((time.monotonic() - start) * 1000)
            rest = await answer.content.read()
        if not rest.endswith(b"data: [DONE]\n\n"):
            count.errors.append(f"active: {answer.status} {rest[-200:]!r}")
            return
        count.completed += 1


async def hold(url: str, options: argparse.Namespace) -> Count:
    """Opens all streams, holds them, and counts."""
    count, end = Count(), asyncio.Event()
    timeout = aiohttp.ClientTimeout(total=None)
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0), timeout=timeout, read_bufsize=2**20
    ) as session:
        tasks = []
        for kind, number in ((idle, options.idle), (active, options.active)):
            for _ in range(number):
                tasks.append(asyncio.create_task(kind(session, url, count, end)))
                await asyncio.sleep(1 / OPENING_PER_S)
        await asyncio.sleep(options.seconds)
        end.set()
        for outcome in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(outcome, BaseException):
                count.errors.append(f"client: {outcome!r}")
    return count


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--idle", type=int, default=1_000)
    parser.add_argument("--active", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with stand() as made:
        suite = made.millrace()
        count = asyncio.run(hold(f"{suite.url}/v1/chat/completions", options))
        rss_mb = suite.rss_mb()
    result: dict[str, Any] = {
        "idle": options.idle,
        "idle_open_at_end": count.idle_open,
        "active": options.active,
        "active_completed": count.completed,
        "active_ttft_p50_ms": round(statistics.median(count.ttfts_ms), 1) if count.ttfts_ms else None,
        "errors": len(count.errors),
        "rss_mb": rss_mb,
    }
    print(json.dumps(result, indent=2))
    for error in count.errors[:5]:
        print(error)
    if options.json:
        options.json.write_text(json.dumps(result, indent=2))
    raise SystemExit(1 if count.errors or count.idle_open < options.idle else 0)


if __name__ == "__main__":
    main()
