"""Kills and freezes the safety service in the middle of streams, and looks at what leaves.

    python -m bench.safety_faults [--trials 200] [--streams 10] [--seed 1] [--json FIGURES]

The real service runs as a process of its own. Answers that hold card numbers stream through the front door's own relay
at random paces; at a random moment the process gets SIGKILL or SIGSTOP. Half of the streams are under a closed rule:
all that leaves of them must be what screening let go, and they must end as an error unless they were through. The
other half are under an open rule: they must arrive whole, and say so where they were not screened.
"""

import argparse
import asyncio
import json
import os
import random
import signal
import socket
import sys
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import suppress
from pathlib import Path

from kit.dial import dial
from kit.errors import MillraceError
from millrace.safety.v1 import safety_service_pb2 as pb
from millrace.safety.v1.safety_service_pb2_grpc import SafetyServiceStub
from services.inference.attempts.attempts import Batch
from services.inference.events import SafetyEvent
from services.inference.generation import ChoiceFinished, Delta, EngineCompleted, FinishReason, Usage
from services.inference.routing.rules import SafetyRule
from services.inference.screening.release import Screen
from services.inference.screening.safety_client import SafetyClient

READY_S = 60.0
CALL_S = 5.0
# The relay gives a silent service 5 s, and its end as much again.
HANGS_S = 30.0
CARD, PLACEHOLDER = "4111 1111 1111 1111", "<CREDIT_CARD>"
WORDS = ("The", " bill", " of", " 4111", " 1111", " 1111", " 1111", " is", " paid", ",", " thanks", ".\n")
REPEATS = 12
ANSWER = "".join(WORDS) * REPEATS
SCREENED = ANSWER.replace(CARD, PLACEHOLDER)
FAULTS = (signal.SIGKILL, signal.SIGSTOP)


async def main() -> None:
    """Runs the trials, prints what came of them, and fails where anything left that should not have."""
    arguments = _arguments()
    rng = random.Random(arguments.seed)
    outcomes: Counter[str] = Counter()
    round_number = 0
    while outcomes.total() < arguments.trials:
        fault = FAULTS[round_number % len(FAULTS)]
        count = min(arguments.streams, arguments.trials - outcomes.total())
        outcomes += await _round(fault, count, rng)
        round_number += 1
    figures = {"trials": outcomes.total(), "wrong": _wrong(outcomes), **dict(sorted(outcomes.items()))}
    print("\n".join(f"{name}: {count}" for name, count in figures.items()))
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2))
    sys.exit(1 if figures["wrong"] else 0)


def _wrong(outcomes: Counter[str]) -> int:
    return sum(count for name, count in outcomes.items() if "WRONG" in name)


async def _round(fault: signal.Signals, count: int, rng: random.Random) -> Counter[str]:
    """Starts the service and so many streams, brings the fault about, and judges every stream."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = os.environ | {"MILLRACE_SAFETY_PORT": str(port), "MILLRACE_SAFETY_LOG_LEVEL": "error"}
    process = await asyncio.create_subprocess_exec(sys.executable, "-m", "services.safety", env=environment)
    channel = dial(f"127.0.0.1:{port}", service="millrace.safety.v1.SafetyService")
    try:
        stub = SafetyServiceStub(channel)
        await stub.ListPolicies(pb.ListPoliciesRequest(), wait_for_ready=True, timeout=READY_S)
        client = SafetyClient(channel, CALL_S)
        streams = [asyncio.create_task(_stream(client, number % 2 == 0, rng)) for number in range(count)]
        await asyncio.sleep(rng.uniform(0, 1.5))  # the fault's moment is the measurement's own
        process.send_signal(fault)
        return Counter(f"{fault.name} {outcome}" for outcome in await asyncio.gather(*streams))
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        await channel.close()


async def _stream(client: SafetyClient, is_closed: bool, rng: random.Random) -> str:
    """Streams one answer; returns what became of it."""
    screen = Screen(client, "default", SafetyRule(on_unavailable="closed" if is_closed else "open"), 1)
    name = "closed" if is_closed else "open"
    text, is_marked, is_whole = "", False, False
    try:
        async with asyncio.timeout(HANGS_S):
            async for batch in screen.streamed(_engine(rng.uniform(0, 0.02), rng)):
                for event in batch:
                    text += event.text if isinstance(event, Delta) else ""
                    is_marked |= isinstance(event, SafetyEvent) and event.unscreened
                    is_whole |= isinstance(event, EngineCompleted)
    except TimeoutError:
        return f"{name}: WRONG, it hangs"
    except MillraceError:
        is_right = is_closed and not is_whole and SCREENED.startswith(text)
        return f"{name}: ended as an error" if is_right else f"{name}: WRONG, it failed or told too much"
    if not is_whole:
        return f"{name}: WRONG, it was cut"
    if text == SCREENED:
        return f"{name}: screened to its end"
    is_right = not is_closed and is_marked and text.replace(CARD, PLACEHOLDER) == SCREENED
    return f"{name}: went on and said so" if is_right else f"{name}: WRONG, unscreened text left"


async def _engine(pause_s: float, rng: random.Random) -> AsyncGenerator[Batch, None]:
    for word in WORDS * REPEATS:
        await asyncio.sleep(rng.uniform(0, 2 * pause_s))
        yield [Delta(text=word)]
    yield [ChoiceFinished(0, FinishReason.STOP)]
    yield [EngineCompleted(Usage(1, len(WORDS) * REPEATS))]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=200, help="streams that meet a fault")
    parser.add_argument("--streams", type=int, default=10, help="streams at once, which meet the same fault")
    parser.add_argument("--seed", type=int, default=1, help="of paces and moments")
    parser.add_argument("--json", type=Path, help="where the figures go")
    return parser.parse_args()


if __name__ == "__main__":
    asyncio.run(main())
