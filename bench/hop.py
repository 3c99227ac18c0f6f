"""What the kit costs on a hop: CPU per unary call and per streamed message, against bare grpc.aio.

    python -m bench.hop [--rounds N]

Client and server share the process and its clock, so a figure is both sides together. The variants take turns and the
lowest round counts: on a shared machine every disturbance only adds.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

import grpc
import uvloop

from kit import identity, telemetry
from kit.config import ServeSettings
from kit.dial import dial
from kit.identity import CallContext
from kit.serve import Registration, Server
from kit.spans import Span

CALLS = 1_000
MESSAGES = 20_000
TOKEN = b"x" * 40
SERVICE = "bench.Hop"


class Discard:
    """Takes spans and drops them: what recording costs, without the wire."""

    def export(self, spans: Sequence[Span]) -> None:
        """Drops the spans."""


async def _unary(request: bytes, context: Any) -> bytes:
    return request


async def _stream(request: bytes, context: Any) -> AsyncIterator[bytes]:
    for _ in range(int(request)):
        yield TOKEN


def _add(_: object, server: grpc.aio.Server) -> None:
    handlers: dict[str, grpc.RpcMethodHandler[bytes, bytes]] = {
        "Unary": grpc.unary_unary_rpc_method_handler(_unary),
        "Stream": grpc.unary_stream_rpc_method_handler(_stream),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))


async def _bare() -> tuple[grpc.aio.Channel, Callable[[], Awaitable[None]]]:
    server = grpc.aio.server()
    _add(None, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    return grpc.aio.insecure_channel(f"127.0.0.1:{port}"), lambda: server.stop(None)


async def _kit(recording: bool) -> tuple[grpc.aio.Channel, Callable[[], Awaitable[None]]]:
    settings = ServeSettings()
    made = telemetry.setup("bench", settings, exporter=Discard() if recording else None, count_calls=recording)
    server = Server("bench", settings, [Registration(SERVICE, _add, None)], made)
    port = await server.start()
    server.set_serving("", True)
    return dial(f"127.0.0.1:{port}", telemetry=made, service=SERVICE), lambda: server.stop(0)


async def _unary_us(channel: grpc.aio.Channel) -> float:
    call: Any = channel.unary_unary(f"/{SERVICE}/Unary")
    started = time.process_time()
    for _ in range(CALLS):
        await call(TOKEN)
    return (time.process_time() - started) / CALLS * 1e6


async def _message_us(channel: grpc.aio.Channel) -> float:
    call: Any = channel.unary_stream(f"/{SERVICE}/Stream")
    started = time.process_time()
    async for _ in call(str(MESSAGES).encode()):
        pass
    return (time.process_time() - started) / MESSAGES * 1e6


async def measure(rounds: int) -> None:
    """Prints the table."""
    identity.enter(CallContext(identity.new_request_id(), deadline=time.monotonic() + 3600))
    variants = {
        "grpc.aio": await _bare(),
        "kit, telemetry off": await _kit(recording=False),
        "kit, spans and metrics": await _kit(recording=True),
    }
    unary: dict[str, list[float]] = {name: [] for name in variants}
    message: dict[str, list[float]] = {name: [] for name in variants}
    for _ in range(rounds):
        for name, (channel, _stop) in variants.items():
            unary[name].append(await _unary_us(channel))
            message[name].append(await _message_us(channel))
    print(f"{'':24}{'us CPU per unary call':>24}{'us CPU per message':>24}")
    for name, (channel, stop) in variants.items():
        print(f"{name:24}{min(unary[name]):24.0f}{min(message[name]):24.2f}")
        await channel.close()
        await stop()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    uvloop.run(measure(parser.parse_args().rounds))
