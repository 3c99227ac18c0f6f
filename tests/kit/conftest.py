"""A real server with the echo service on a free port, and a channel to it, both recording into one sink."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest

from kit import telemetry
from kit.channel import Channel
from kit.config import ServeSettings
from kit.dial import dial
from kit.serve import Server
from kit.telemetry import Telemetry
from tests.fakes.echo_service import NAME, EchoService
from tests.fakes.span_sink import SpanSink


@dataclass
class Suite:
    """What a test needs to talk to the server and to see what it did."""

    server: Server
    channel: Channel
    service: EchoService
    sink: SpanSink
    telemetry: Telemetry
    target: str


@pytest.fixture
async def sink() -> SpanSink:
    """Returns an empty sink."""
    return SpanSink()


@pytest.fixture
async def suite(sink: SpanSink) -> AsyncIterator[Suite]:
    """Starts a server that records every span and counts every call."""
    settings = ServeSettings(port=0, grace_s=2.0)
    recording = telemetry.setup("echo", settings, exporter=sink, count_calls=True)
    service = EchoService()
    server = Server("echo", settings, [service.registration], recording)
    target = f"127.0.0.1:{await server.start()}"
    server.set_serving("", True)
    async with dial(target, telemetry=recording, service=NAME) as channel:
        await channel.channel_ready()
        yield Suite(server, channel, service, sink, recording, target)
    await server.stop(0)
