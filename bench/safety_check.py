"""Measures the safety service as its callers see it: input checks, and the cost that screening adds to a stream.

    python -m bench.safety_check [--calls 100] [--tokens 500] [--json OUT]

Starts the real service as a process of its own, with a profile `everything` in which every embedded detector runs, both
ways, and calls it over gRPC: latency is end to end and processor time is that of the service alone. Texts are
new in every call, for what was seen before costs nothing; that is measured apart. A stream is sent once as fast as it
goes, for its processor time, and at the pace of models: short answers for what their first release waits (in a burst it
waits for all tokens before it to be sent and read, which no model makes at once), and whole ones, one or several at
once, for their processor time. A process that rests between tokens pays more for each: it is woken, and finds its
caches cold. "Gathered" is how the inference service sends tokens, which gathers what cannot matter yet; a short answer
costs more a token than a long one, for each call is opened, and its last passage is judged before it is complete.
"""

import argparse
import asyncio
import json
import os
import random
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING

from kit.channel import Channel
from kit.dial import dial
from millrace.safety.v1 import safety_service_pb2 as pb
from millrace.safety.v1 import verdict_pb2 as verdict
from millrace.safety.v1.safety_service_pb2_grpc import SafetyServiceStub
from services.inference.screening.safety_client import SafetyClient
from services.inference.screening.safety_port import OutputPiece, Released

if TYPE_CHECKING:  # Exists for type checkers only.
    from millrace.safety.v1.safety_service_pb2_grpc import SafetyServiceAsyncStub

READY_S = 60
# The first release comes behind 160 to 320 characters; 250 tokens a second are more than most models make.
SHORT_TOKENS, PACE_S = 80, 0.004
# Streams at once, seconds between tokens of each, and rounds: few of fast models, more at the pace of large ones.
CROWDS = ((1, 0.004, 5), (4, 0.004, 2), (10, 0.04, 1))
# In place of a number of tokens a message: as many as the inference service finds it worth.
GATHERED = 0
Request = pb.StreamCheckOutputRequest

POLICIES = """
profiles:
  patterns:
    description: Terms, personal data and injections by patterns.
    strictness: 400
    input: {forbidden_terms: {action: block}, pii: {action: redact}, injection_phrases: {action: block}}
    output: {forbidden_terms: {action: block}, pii: {action: redact}}
  everything:
    description: Every embedded detector, so that text waits for each of them.
    strictness: 500
    input: &all
      forbidden_terms: {action: block}
      pii: {action: redact}
      injection_phrases: {action: block}
      moderation: {action: block, threshold: 0.99, deadline_ms: 60000}
      injection: {action: block, threshold: 0.99, deadline_ms: 60000}
      names: {action: redact, deadline_ms: 60000}
    output: *all
"""
WORDS = (
    "the committee met on tuesday and agreed that a new bridge should open before winter rains begin while many of its "
    "members wanted another report about costs which nobody had written yet although everyone spoke of it often"
).split()


async def main() -> None:
    """Runs every measurement and prints one line for each."""
    arguments = _arguments()
    figures: list[dict[str, object]] = []
    with tempfile.TemporaryDirectory() as folder, socket.socket() as probe:
        policies = Path(folder) / "policies.yaml"
        policies.write_text(POLICIES)
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
        probe.close()
        settings = {"PORT": str(port), "LOG_LEVEL": "error", "POLICIES_FILE": str(policies)}
        environment = os.environ | {f"MILLRACE_SAFETY_{name}": value for name, value in settings.items()}
        process = await asyncio.create_subprocess_exec(sys.executable, "-m", "services.safety", env=environment)
        try:
            channel = dial(f"127.0.0.1:{port}", service="millrace.safety.v1.SafetyService")
            stub = SafetyServiceStub(channel)
            await stub.ListPolicies(pb.ListPoliciesRequest(), wait_for_ready=True, timeout=READY_S)
            for profile in ("patterns", "everything"):
                for words in (100, 2000):
                    figures += await _input(stub, process.pid, profile, words, max(arguments.calls * 100 // words, 10))
                for batch in (1, 10):
                    figures.append(await _stream(channel, process.pid, profile, arguments.tokens, batch, 10))
                for batch in (1, 10, GATHERED):
                    figures.append(await _stream(channel, process.pid, profile, SHORT_TOKENS, batch, 15, PACE_S))
                for batch in (1, GATHERED):
                    for crowd, pace_s, rounds in CROWDS:
                        many = await _stream(
                            channel, process.pid, profile, arguments.tokens, batch, rounds, pace_s, crowd
                        )
                        figures.append(many)
            figures.append({"kind": "memory", "resident_mib": resident_mib(process.pid)})
            await channel.close()
        finally:
            process.terminate()
            await process.wait()
    for figure in figures:
        print(", ".join(f"{name} {value}" for name, value in figure.items()))
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2))


def _text(rng: random.Random, words: int) -> str:
    return " ".join(rng.choice(WORDS) + (". " if rng.random() < 0.07 else "") for _ in range(words))


async def _input(
    stub: "SafetyServiceAsyncStub", pid: int, profile: str, words: int, calls: int
) -> list[dict[str, object]]:
    """Checks texts that are new, and one of them again and again."""
    rng = random.Random(words)
    new = [_text(rng, words) for _ in range(calls)]
    return [
        await _checks(stub, pid, {"kind": f"input, {seen}", "profile": profile, "words": words}, texts)
        for seen, texts in (("new", new), ("seen before", new[-1:] * calls))
    ]


async def _checks(
    stub: "SafetyServiceAsyncStub", pid: int, figure: dict[str, object], texts: list[str]
) -> dict[str, object]:
    latencies = []
    before = cpu_s(pid)
    for text in texts:
        segments = [pb.Segment(role=verdict.ROLE_USER, text=text)]
        started = time.perf_counter()
        said = await stub.CheckInput(pb.CheckInputRequest(profile=str(figure["profile"]), segments=segments))
        latencies.append((time.perf_counter() - started) * 1000)
        assert {run.state for run in said.assessment.runs} <= {1, 2}, "a detector failed or overran"
    cpu_ms = (cpu_s(pid) - before) / len(texts) * 1000
    p50, p95 = statistics.median(latencies), statistics.quantiles(latencies, n=20)[18]
    return figure | {"p50_ms": round(p50, 2), "p95_ms": round(p95, 2), "cpu_ms": round(cpu_ms, 2)}


async def _stream(
    channel: Channel,
    pid: int,
    profile: str,
    tokens: int,
    batch: int,
    rounds: int,
    pace_s: float = 0.0,
    crowd: int = 1,
) -> dict[str, object]:
    """Streams answers, so many at once, for their processor time and how long their first releases take."""
    rng = random.Random(f"{profile} {tokens} {batch} {rounds} {pace_s} {crowd}")
    before = cpu_s(pid)
    added_ms: list[float] = []
    for _ in range(rounds):
        texts = [[f" {word}" for word in _text(rng, tokens).split()] for _ in range(crowd)]
        added_ms += await asyncio.gather(*(_answer(channel, profile, words, batch, pace_s) for words in texts))
    per_token_ms = (cpu_s(pid) - before) / rounds / crowd / tokens * 1000
    return {
        "kind": "stream",
        "profile": profile,
        "streams": crowd,
        "tokens": tokens,
        "tokens_per_s": round(1 / pace_s) if pace_s else "burst",
        "tokens_per_message": batch or "gathered",
        "first_release_p50_ms": round(statistics.median(added_ms), 2),
        "cpu_ms_per_token": round(per_token_ms, 4),
    }


async def _answer(channel: Channel, profile: str, words: list[str], batch: int, pace_s: float) -> float:
    """Streams one answer; returns ms from the words that made the first release possible to that release."""
    made: list[tuple[int, float]] = []

    async def make() -> AsyncIterator[list[str]]:
        length = 0
        for at in range(0, len(words), batch or 1):
            new = words[at : at + (batch or 1)]
            length += sum(map(len, new))
            if pace_s:
                await asyncio.sleep(pace_s * len(new))
            made.append((length, time.perf_counter()))
            yield new

    added_ms = None
    async for through in (_released if batch else _released_to_inference)(channel, profile, make()):
        if added_ms is None:
            # The words that brought what was released, and one more: what lies behind it is held.
            brought = next(moment for length, moment in made if length > through)
            added_ms = (time.perf_counter() - brought) * 1000
    assert added_ms is not None, "nothing was released"
    return added_ms


async def _released(channel: Channel, profile: str, made: AsyncIterator[list[str]]) -> AsyncIterator[int]:
    """Sends words as they come, a message each time; yields how far they are released."""

    async def requests() -> AsyncIterator[Request]:
        yield Request(start=pb.StreamStart(profile=profile))
        async for words in made:
            yield Request(deltas=[pb.OutputDelta(text=word) for word in words])

    async for response in SafetyServiceStub(channel).StreamCheckOutput(requests()):
        if any(event.HasField("released") for event in response.events):
            yield max(event.released.released_through for event in response.events)


async def _released_to_inference(channel: Channel, profile: str, made: AsyncIterator[list[str]]) -> AsyncIterator[int]:
    """As the inference service sends them."""
    stream = SafetyClient(channel, READY_S).stream_output(profile, 1)

    async def send() -> None:
        async for words in made:
            await stream.send([OutputPiece(0, "text", word) for word in words])
        await stream.done()

    sending = asyncio.create_task(send())
    async for decisions in stream:
        if through := [one.released_through for one in decisions if isinstance(one, Released)]:
            yield max(through)
    await sending


def resident_mib(pid: int) -> int:
    """Memory that a process holds, from Linux's /proc."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") >> 20


def cpu_s(pid: int) -> float:
    """Processor time of a process so far, from Linux's /proc."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=100, help="input checks of 100 words; of longer texts fewer")
    parser.add_argument("--tokens", type=int, default=500, help="tokens per stream")
    parser.add_argument("--json", type=Path, help="where the figures go")
    return parser.parse_args()


if __name__ == "__main__":
    asyncio.run(main())
