"""What the safety service's tests share: the real server on a free port, with other detectors or policies at will."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

from kit import telemetry
from kit.dial import dial
from kit.serve import Server
from millrace.safety.v1.safety_service_pb2_grpc import SafetyServiceStub
from services.safety import wiring
from services.safety.config import SafetySettings
from services.safety.detectors.detector import Detector

if TYPE_CHECKING:
    from millrace.safety.v1.safety_service_pb2_grpc import SafetyServiceAsyncStub as Stub

Serve = Callable[..., Awaitable["Stub"]]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Gives the tests of this folder one event loop: the embedded service, which they share, encodes in one."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents and pytest_asyncio.is_async_test(item):
            item.add_marker(pytest.mark.asyncio(loop_scope="session"), append=False)


@pytest.fixture(scope="session")
def embedded() -> wiring.SafetyService:
    """The service as it comes; it keeps no state, so that one does for all tests."""
    return wiring.build(SafetySettings(port=0))


@pytest_asyncio.fixture(loop_scope="session")
async def serve(embedded: wiring.SafetyService, tmp_path: Path) -> AsyncIterator[Serve]:
    """Starts a server, with policies given as YAML and detectors that replace the embedded ones."""
    async with AsyncExitStack() as stack:

        async def start(policies: str = "", detectors: Mapping[str, Detector] | None = None) -> "Stub":
            service = embedded
            if policies or detectors:
                path = tmp_path / "policies.yaml"
                path.write_text(policies or "profiles: {}")
                service = wiring.build(SafetySettings(port=0, policies_file=path), detectors)
                stack.push_async_callback(service.close)
            off = telemetry.off()
            server = Server("safety", SafetySettings(port=0), service.registrations, off)
            port = await server.start()
            stack.push_async_callback(server.stop, 0)
            await service.warm(server)
            server.set_serving("", True)
            channel = dial(f"127.0.0.1:{port}", service=wiring.FULL_NAME)
            stack.push_async_callback(channel.close)
            return SafetyServiceStub(channel)

        yield start


@pytest_asyncio.fixture(loop_scope="session")
async def stub(serve: Serve) -> "Stub":
    """The service as it comes, over gRPC."""
    return await serve()
