"""The process: how it starts, refuses to start, and stops."""

import asyncio
import os
import signal
import socket
import sys
from pathlib import Path

from grpc_health.v1 import health_pb2, health_pb2_grpc

from kit.dial import dial
from millrace.safety.v1.safety_service_pb2_grpc import SafetyServiceStub
from services.safety.wiring import FULL_NAME
from tests.safety.messages import prompt

DEADLINE_S = 60


async def start(**variables: str) -> asyncio.subprocess.Process:
    """Starts the service as `millrace up` does."""
    environment = os.environ | {f"MILLRACE_SAFETY_{name}": value for name, value in variables.items()}
    command = (sys.executable, "-m", "services.safety")
    return await asyncio.create_subprocess_exec(*command, env=environment, stderr=asyncio.subprocess.PIPE)


async def test_process_serves_until_it_is_told_to_stop() -> None:
    """It says SERVING once it is warm, judges, and ends with 0 after SIGTERM."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = await start(PORT=str(port))
    try:
        async with asyncio.timeout(DEADLINE_S):
            channel = dial(f"127.0.0.1:{port}", service=FULL_NAME)
            await SafetyServiceStub(channel).CheckInput(prompt("hello"), wait_for_ready=True)
            health = health_pb2_grpc.HealthStub(channel)
            request = health_pb2.HealthCheckRequest(service=FULL_NAME)
            status = await health.Check(request)  # type: ignore[attr-defined]  # Its stubs lack the methods.
            assert status.status == health_pb2.HealthCheckResponse.SERVING
            await channel.close()
            process.send_signal(signal.SIGTERM)
            assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()


async def test_bad_policies_stop_the_start(tmp_path: Path) -> None:
    """A mistake in the policy file ends the process before it listens, naming line and field."""
    path = tmp_path / "policies.yaml"
    path.write_text("profiles:\n  mine:\n    description: d\n    strictness: many\n")

    async with asyncio.timeout(DEADLINE_S):
        process = await start(PORT="0", POLICIES_FILE=str(path))
        _, complaint = await process.communicate()

    assert process.returncode == 2
    assert "policies.yaml:4: profiles.mine.strictness" in complaint.decode()
