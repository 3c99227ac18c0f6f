from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest

from bench.names import Names
from kit import telemetry
from kit.channel import Channel
from kit.config import ServeSettings
from kit.dial import dial
from kit.serve import Server
from tests.fakes.echo_service import NAME, EchoService, collect, start
from tests.fakes.proxy import name_a_proxy
from tests.fakes.span_sink import DEADLINE_S


class Replica:
    """One of several servers that do the same."""

    def __init__(self, port: int = 0, **settings: Any) -> None:
        self.service = EchoService()
        serve = ServeSettings(port=port, **settings)
        self.server = Server("echo", serve, [self.service.registration], telemetry.off())
        self.port = port

    async def __aenter__(self) -> Replica:
        self.port = await self.server.start()
        self.server.set_serving("", True)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.server.stop(0)

    @property
    def call_count(self) -> int:
        """Calls that arrived here."""
        return len(self.service.contexts)


@pytest.fixture
async def replicas() -> AsyncIterator[tuple[Replica, Replica]]:
    """Starts two servers."""
    async with Replica() as first, Replica() as second:
        yield first, second


def _dial(*replicas: Replica) -> Channel:
    addresses = ",".join(f"127.0.0.1:{replica.port}" for replica in replicas)
    return dial(f"ipv4:{addresses}", service=NAME)


async def _until(channel: Channel, done) -> None:
    """Calls until something is seen to be so."""
    async with asyncio.timeout(DEADLINE_S):
        while not done():
            await collect(start(channel, "UnaryUnary", b"ok"))


async def test_calls_go_to_every_server_behind_a_target(replicas: tuple[Replica, Replica]) -> None:
    """Round robin: in the long run each gets its half."""
    first, second = replicas
    async with _dial(first, second) as channel:
        await _until(channel, lambda: first.call_count and second.call_count)
        before = first.call_count, second.call_count
        for _ in range(20):
            await collect(start(channel, "UnaryUnary", b"ok"))

    assert (first.call_count - before[0], second.call_count - before[1]) == (10, 10)


async def test_a_server_that_is_not_serving_gets_no_calls(replicas: tuple[Replica, Replica]) -> None:
    """Health decides, without a single call failing."""
    first, second = replicas
    async with _dial(first, second) as channel:
        await _until(channel, lambda: first.call_count and second.call_count)
        first.server.set_serving(NAME, False)
        last = -1
        # A call that was on its way may still arrive; then no more does.
        while first.call_count != last:
            last = first.call_count
            for _ in range(10):
                await collect(start(channel, "UnaryUnary", b"ok"))

        first.server.set_serving(NAME, True)
        await _until(channel, lambda: first.call_count > last)


async def test_a_server_that_stops_costs_no_call(replicas: tuple[Replica, Replica]) -> None:
    """A drain moves the calls to the other server."""
    first, second = replicas
    async with _dial(first, second) as channel:
        await _until(channel, lambda: first.call_count and second.call_count)
        stop = asyncio.create_task(first.server.stop(5))
        while not stop.done():
            await collect(start(channel, "UnaryUnary", b"ok"))
        last = first.call_count
        for _ in range(10):
            await collect(start(channel, "UnaryUnary", b"ok"))

    assert first.call_count == last


async def test_a_server_that_comes_back_is_found_soon() -> None:
    """After a restart calls succeed again within seconds, on the same channel."""
    async with Replica() as first:
        channel = _dial(first)
        await collect(start(channel, "UnaryUnary", b"ok", wait_for_ready=True))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await collect(start(channel, "UnaryUnary", b"ok"))
    async with Replica(first.port) as second, asyncio.timeout(DEADLINE_S):
        await collect(start(channel, "UnaryUnary", b"ok", wait_for_ready=True))
        assert second.call_count == 1
    await channel.close()

    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_services_reach_each_other_past_a_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy that the environment names is for the way out, not for what stands beside."""
    name_a_proxy(monkeypatch)
    async with Replica() as replica:
        channel = _dial(replica)
        await collect(start(channel, "UnaryUnary", b"ok", wait_for_ready=True, timeout=DEADLINE_S))
        await channel.close()

    assert replica.call_count == 1


async def test_a_new_channel_does_not_wait_with_an_older_one() -> None:
    """One that was made after a server came back reaches it at once, though another to the same address still waits."""
    async with Replica() as gone:
        older = _dial(gone)
        await collect(start(older, "UnaryUnary", b"ok"))
    for _ in range(8):  # each failure makes it wait for longer
        with pytest.raises(grpc.aio.AioRpcError):
            await collect(start(older, "UnaryUnary", b"ok"))
    async with older, Replica(gone.port) as back, _dial(back) as newer:
        assert await collect(start(newer, "UnaryUnary", b"ok"))


async def test_a_call_is_never_retried_by_the_channel() -> None:
    """A call that fails reaches a server once: repeating is for whoever knows its price."""
    counted: list[bytes] = []

    async def busy(request: bytes, context: grpc.aio.ServicerContext) -> bytes:
        counted.append(request)
        await context.abort(grpc.StatusCode.UNAVAILABLE, "busy")

    replica = Replica()
    replica.service.unary_unary = busy  # type: ignore[method-assign]
    # The method is bound when the server starts, so the replacement counts.
    replica.server = Server("echo", ServeSettings(), [replica.service.registration], telemetry.off())
    async with replica, _dial(replica) as channel:
        with pytest.raises(grpc.aio.AioRpcError):
            await collect(start(channel, "UnaryUnary", b"ok", wait_for_ready=True))

    assert counted == [b"ok"]


async def test_a_replica_that_is_new_gets_calls_and_no_stream_is_cut() -> None:
    """Connections of a certain age end, DNS is asked again, and what was in flight on them goes on."""
    aged = {"max_connection_age_s": 1.0, "max_connection_age_grace_s": 60.0}
    async with Names() as names, Replica(**aged) as first:
        names.addresses["echo.test"] = ["127.0.0.1"]
        async with (
            dial(names.target("echo.test", first.port), service=NAME) as channel,
            Replica(first.port, host="127.0.0.2", **aged) as second,
        ):
            stream = aiter(start(channel, "UnaryStream", b"wait", timeout=4 * DEADLINE_S, wait_for_ready=True))
            assert await anext(stream) == b"waiting"
            names.addresses["echo.test"].append("127.0.0.2")

            await _until(channel, lambda: second.call_count)

            first.service.release.set()
            assert [message async for message in stream] == [b"wait"] * 3
