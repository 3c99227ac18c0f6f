"""Measures the safety service as its callers see it: input checks, and the cost that screening adds to a stream.

    python -m bench.safety_check [--calls 300] [--tokens 500]

Starts the real service as a process of its own and calls it over gRPC, so that latency is end to end and processor
time is that of the service alone.
"""

import argparse
import asyncio
import os
import socket
import statistics
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING

from kit.dial import dial
from millrace.safety.v1 import safety_service_pb2 as pb
from millrace.safety.v1 import verdict_pb2 as verdict
from millrace.safety.v1.safety_service_pb2_grpc import SafetyServiceStub

if TYPE_CHECKING:  # Exists for type checkers only.
    from millrace.safety.v1.safety_service_pb2_grpc import SafetyServiceAsyncStub

READY_S = 60
SENTENCE = "The committee met on Tuesday and agreed that the new bridge should open before the winter rains begin. "
PERSONAL = "Write to jo.miller@example.com or call 212-555-0147 about card 4111 1111 1111 1111 today please, thanks. "


async def main() -> None:
    """Runs every measurement and prints one line for each."""
    arguments = _arguments()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = os.environ | {"MILLRACE_SAFETY_PORT": str(port), "MILLRACE_SAFETY_LOG_LEVEL": "error"}
    process = await asyncio.create_subprocess_exec(sys.executable, "-m", "services.safety", env=environment)
    try:
        channel = dial(f"127.0.0.1:{port}", service="millrace.safety.v1.SafetyService")
        stub = SafetyServiceStub(channel)
        await stub.ListPolicies(pb.ListPoliciesRequest(), wait_for_ready=True, timeout=READY_S)
        for words, text in ((100, SENTENCE * 6), (100, PERSONAL * 6), (1000, SENTENCE * 56)):
            kind = "personal data" if text.startswith("Write") else "plain"
            await _input(stub, process.pid, f"input check, {words} words, {kind}", text, arguments.calls)
        for batch in (1, 10):
            await _stream(stub, process.pid, arguments.tokens, batch, 20)
        await channel.close()
    finally:
        process.terminate()
        await process.wait()


async def _input(stub: "SafetyServiceAsyncStub", pid: int, name: str, text: str, calls: int) -> None:
    request = pb.CheckInputRequest(segments=[pb.Segment(role=verdict.ROLE_USER, text=text)])
    latencies = []
    before = cpu_s(pid)
    for _ in range(calls):
        started = time.perf_counter()
        await stub.CheckInput(request)
        latencies.append((time.perf_counter() - started) * 1000)
    cpu_ms = (cpu_s(pid) - before) / calls * 1000
    p50, p99 = statistics.median(latencies), statistics.quantiles(latencies, n=100)[98]
    print(f"{name}: p50 {p50:.2f} ms, p99 {p99:.2f} ms, service CPU {cpu_ms:.2f} ms")


async def _stream(stub: "SafetyServiceAsyncStub", pid: int, tokens: int, batch: int, rounds: int) -> None:
    words = [f" {word}" for word in (SENTENCE * (tokens // 18 + 1)).split()[:tokens]]
    messages = [
        pb.StreamCheckOutputRequest(deltas=[pb.OutputDelta(text=word) for word in words[at : at + batch]])
        for at in range(0, len(words), batch)
    ]

    async def requests() -> AsyncIterator[pb.StreamCheckOutputRequest]:
        yield pb.StreamCheckOutputRequest(start=pb.StreamStart(profile="strict"))
        for message in messages:
            yield message

    before = cpu_s(pid)
    first_ms = []
    for _ in range(rounds):
        started = time.perf_counter()
        seen = False
        async for _response in stub.StreamCheckOutput(requests()):
            if not seen:
                first_ms.append((time.perf_counter() - started) * 1000)
                seen = True
    per_token_ms = (cpu_s(pid) - before) / rounds / tokens * 1000
    first = statistics.median(first_ms)
    name = f"stream, {batch} tokens a message"
    print(f"{name}: service CPU {per_token_ms:.3f} ms per token, first release {first:.2f} ms")


def cpu_s(pid: int) -> float:
    """Processor time of a process so far, from Linux's /proc."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=300, help="input checks per text")
    parser.add_argument("--tokens", type=int, default=500, help="tokens per stream")
    return parser.parse_args()


if __name__ == "__main__":
    asyncio.run(main())
