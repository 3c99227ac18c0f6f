"""The wall: a real edge and a real inference service, in front of upstreams that go wrong.

Everything runs in the event loop of the tests, over real sockets, so that what is left afterwards can be counted.
"""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import httpx
from pydantic import SecretStr

from kit import telemetry
from kit.dial import dial
from kit.serve import Server
from kit.status import from_rpc_error
from millrace.inference.v1 import event_pb2, generation_pb2, usage_pb2
from millrace.inference.v1 import inference_service_pb2 as pb
from millrace.inference.v1 import usage_service_pb2 as usage_service
from millrace.inference.v1.inference_service_pb2_grpc import InferenceServiceStub
from millrace.inference.v1.usage_service_pb2_grpc import UsageServiceStub
from services.edge import wiring as edge_wiring
from services.edge.config import EdgeSettings, InferenceDialSettings
from services.inference import wiring
from services.inference.config import CacheDialSettings, InferenceSettings, SafetyDialSettings
from services.inference.database.settings import DatabaseSettings
from services.inference.ledger.settings import LedgerSettings
from tests.fakes.certificates import Authority
from tests.faults.answers import good
from tests.faults.fault import CALLS, Seen, Wait
from tests.faults.faults import FAULTS
from tests.faults.upstream import Asked, Script, ScriptedUpstream

DEADLINE_S = 20.0
TTFT_S, INTER_TOKEN_S = 1.2, 1.0  # of models whose upstream is silent; the others have ten seconds
CONNECT_S = 0.25
ERROR_S = DRAIN_S = 0.2
RULES = """
  cache: {enabled: false}
  safety: {profile: "off"}
  deadlines: {ttft_s: 10, inter_token_s: 10, total_s: 15}
  retries: {retries_max: 1, backoff_s: 0.01}
"""
IMPATIENT = f", deadlines: {{ttft_s: {TTFT_S}, inter_token_s: {INTER_TOKEN_S}}}"
# What stands behind a public name: the upstream alone, with a healthy one behind it, and alone with a breaker that
# opens at the first failure.
SETUPS = {
    "alone": "[{{engine: openai, upstream: {upstream}}}]",
    "spared": "[{{engine: openai, upstream: {upstream}}}, {{engine: openai, upstream: healthy}}]",
    "brittle": "[{{engine: openai, upstream: {upstream}, breaker: {{failures_in_a_row: 1}}}}]",
}


@dataclass(frozen=True)
class Heard:
    """What a caller saw of one call, and when it was told to come back."""

    seen: Seen
    retry_after_ms: int | None = None


@dataclass
class Wall:
    """The services and what a test asks of them; `faulty` and `healthy` are the upstreams."""

    channel: grpc.aio.Channel
    client: httpx.AsyncClient
    faulty: ScriptedUpstream
    healthy: ScriptedUpstream

    async def generate(self, model: str) -> Heard:
        """A whole answer over gRPC."""
        call = InferenceServiceStub(self.channel).Generate(pb.GenerateRequest(spec=_spec(model)), timeout=DEADLINE_S)
        try:
            answer = (await call).generation
        except grpc.aio.AioRpcError as error:
            return _failed(error, "")
        (choice,) = answer.choices
        return Heard(Seen("OK", choice.text, _tries(answer.receipt), answer.usage.estimated))

    async def stream_generate(self, model: str) -> Heard:
        """A streamed answer over gRPC."""
        request = pb.StreamGenerateRequest(spec=_spec(model))
        text, done = "", event_pb2.Completed()
        try:
            async for event in InferenceServiceStub(self.channel).StreamGenerate(request, timeout=DEADLINE_S):
                text += event.delta.text
                done = event.completed
        except grpc.aio.AioRpcError as error:
            return _failed(error, text)
        assert done.HasField("receipt"), "a stream that ends well ends with `completed`"
        return Heard(Seen("OK", text, _tries(done.receipt), done.usage.estimated))

    async def chat(self, model: str) -> Heard:
        """A whole answer over REST."""
        response = await self.client.post("/v1/chat/completions", json=_body(model))
        if response.status_code != 200:
            return _refused(response)
        (choice,) = response.json()["choices"]
        return Heard(Seen("200", choice["message"]["content"], _tries_told(response)))

    async def chat_stream(self, model: str) -> Heard:
        """A streamed answer over REST."""
        async with self.client.stream("POST", "/v1/chat/completions", json=_body(model, stream=True)) as response:
            if response.status_code != 200:
                await response.aread()
                return _refused(response)
            payloads = [line.removeprefix("data: ") async for line in response.aiter_lines() if line.startswith("data")]
        *chunks, last = payloads
        if is_done := last == "[DONE]":
            frames = [json.loads(one) for one in chunks]
        else:
            frames = [json.loads(one) for one in payloads]
        failures = [one["error"]["code"] for one in frames if "error" in one]
        assert is_done is not bool(failures), "a stream ends with [DONE] or with an error, never with both"
        text = "".join(choice["delta"].get("content") or "" for one in frames for choice in one.get("choices", ()))
        return Heard(Seen(f"200, then {failures[-1]}" if failures else "200", text, _tries_told(response)))

    async def ask(self, call: str, model: str) -> Heard:
        """An answer by one of CALLS."""
        ways = (self.stream_generate, self.generate, self.chat_stream, self.chat)
        return await dict(zip(CALLS, ways, strict=True))[call](model)

    async def stats(self) -> dict[str, usage_pb2.TargetStats]:
        """What is known of the targets, by model; nothing may be running or waiting."""
        stats = await UsageServiceStub(self.channel).GetStats(usage_service.GetStatsRequest(), timeout=DEADLINE_S)
        assert stats.running_count == 0
        assert {one.running_count + one.waiting_count for one in stats.targets} <= {0}
        return {one.target_model: one for one in stats.targets}


def name_of(setup: str, fault: str, call: str) -> str:
    """The model that a call asks for; each is a target of its own, with a breaker of its own."""
    return f"{setup}.{fault}.{call.replace(' ', '-')}"


@asynccontextmanager
async def built(folder: Path) -> AsyncIterator[Wall]:
    """Starts upstreams, inference and edge."""
    async with AsyncExitStack() as stack:
        faulty, healthy = ScriptedUpstream(_answer), ScriptedUpstream(lambda asked: good())
        for upstream in (faulty, healthy):
            await upstream.start()
            stack.push_async_callback(upstream.stop)
        entries = {"faulty": f'base_url: "{faulty.url}"', "healthy": f'base_url: "{healthy.url}"'}
        entries["whole"] = entries["faulty"] + ", streams: false"
        entries |= await _special_upstreams(stack, folder)
        models_file = folder / "models.yaml"
        models_file.write_text(_models(entries))
        address = await _serve_inference(stack, models_file)
        channel = dial(address)
        stack.push_async_callback(channel.close)
        client = await stack.enter_async_context(await _serve_edge(stack, address))
        wall = Wall(channel, client, faulty, healthy)
        for call in CALLS:  # what the first calls start, for good, is not what a fault has left behind
            await wall.ask(call, name_of("alone", "sound", call))
        yield wall


def _answer(asked: Asked) -> Script:
    _, name, _ = asked.model.split(".")
    fault = next((fault for fault in FAULTS if fault.name == name), None)
    if fault is None:
        return good()
    return fault.fresh_steps if fault.fresh_steps and asked.number == 1 else fault.steps


def _models(entries: dict[str, str]) -> str:
    """The models file: a pattern for most faults, and before it the names of those that need more than that."""

    def lines(name: str, upstream: str, more: str = "") -> list[str]:
        return [
            f'  - {{name: "{setup}.{name}", targets: {targets.format(upstream=upstream)}{more}}}'
            for setup, targets in SETUPS.items()
        ]

    models = []
    for fault in FAULTS:
        is_silent = fault.wait in (Wait.TTFT, Wait.INTER_TOKEN)
        if is_silent or fault.upstream != "faulty":
            models += lines(f"{fault.name}.*", fault.upstream, IMPATIENT if is_silent else "")
    upstreams = [f"  {name}: {{{entry}}}" for name, entry in entries.items()]
    return "\n".join(
        ["version: 1", "upstreams:", *upstreams, "models:", *models, *lines("*", "faulty"), f"defaults:{RULES}"]
    )


async def _special_upstreams(stack: AsyncExitStack, folder: Path) -> dict[str, str]:
    """Upstreams that cannot even be connected to, each in its own way."""
    authority, loop = Authority(folder), asyncio.get_running_loop()
    refused = stack.enter_context(closing(socket.socket()))
    refused.bind(("127.0.0.1", 0))  # and does not listen
    deaf = stack.enter_context(closing(socket.create_server(("127.0.0.1", 0), backlog=0)))
    for _ in range(4):  # more than its backlog holds: who comes now is not even answered
        knocking = stack.enter_context(closing(socket.socket()))
        knocking.setblocking(False)
        knocking.connect_ex(deaf.getsockname())
    silent = await loop.create_server(asyncio.Protocol, "127.0.0.1", 0)
    plain = await loop.create_server(_Plain, "127.0.0.1", 0)
    for server in (silent, plain):
        stack.callback(server.close)
    secured = {"tls-untrusted": _secured(authority, "localhost"), "tls-other-host": _secured(authority, "elsewhere")}
    urls = {
        "refused": f"http://127.0.0.1:{refused.getsockname()[1]}",
        "dns": "http://upstream.invalid",
        "deaf": f"http://127.0.0.1:{deaf.getsockname()[1]}",
        "tls-plain": f"https://127.0.0.1:{plain.sockets[0].getsockname()[1]}",
        "tls-silent": f"https://127.0.0.1:{silent.sockets[0].getsockname()[1]}",
    }
    for name, context in secured.items():
        upstream = ScriptedUpstream(lambda asked: good(), context)
        await upstream.start()
        stack.push_async_callback(upstream.stop)
        urls[name] = upstream.url
    entries = {name: f'base_url: "{url}", connect_timeout_s: {CONNECT_S}' for name, url in urls.items()}
    entries["tls-other-host"] += f', ca_file: "{authority.certificate}"'
    return entries


class _Plain(asyncio.Protocol):
    """Answers whatever comes as a server without TLS does."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._transport.write(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
        self._transport.close()


def _secured(authority: Authority, host: str) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*authority.issue(host))
    return context


async def _serve_inference(stack: AsyncExitStack, models_file: Path) -> str:
    nobody = {"cache": CacheDialSettings(target="none"), "safety": SafetyDialSettings(target="none")}
    database = DatabaseSettings(url=SecretStr(f"sqlite+aiosqlite:///{models_file.parent}/millrace.sqlite3"))
    ledger = LedgerSettings(folder=models_file.parent / "ledger")
    settings = InferenceSettings(port=0, models_file=models_file, database=database, ledger=ledger, **nobody)
    records = telemetry.off()
    inference = await wiring.build(settings, records, {})
    stack.push_async_callback(inference.close)
    server = Server("inference", settings, inference.registrations, records)
    port = await server.start()
    stack.push_async_callback(server.stop, 0)
    await inference.warm(server)
    server.set_serving("", True)
    return f"127.0.0.1:{port}"


async def _serve_edge(stack: AsyncExitStack, target: str) -> httpx.AsyncClient:
    settings = EdgeSettings(inference=InferenceDialSettings(target=target), port=0, grace_s=1)
    edge = edge_wiring.wire(settings, telemetry.off())
    port = await edge.start()
    stack.push_async_callback(edge.stop)
    return httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=DEADLINE_S, trust_env=False)


def _spec(model: str) -> generation_pb2.GenerationSpec:
    said = generation_pb2.Message(role="ROLE_USER", parts=[generation_pb2.ContentPart(text="hi")])
    return generation_pb2.GenerationSpec(model=model, conversation=generation_pb2.Conversation(messages=[said]))


def _body(model: str, **fields: object) -> dict[str, object]:
    return {"model": model, "messages": [{"role": "user", "content": "hi"}], **fields}


def _tries(receipt: event_pb2.Receipt) -> int:
    return sum(one.outcome != event_pb2.ATTEMPT_OUTCOME_SKIPPED for one in receipt.attempts)


def _tries_told(response: httpx.Response) -> int:
    return int(response.headers["x-millrace-attempts"])


def _failed(error: grpc.aio.AioRpcError, text: str) -> Heard:
    said = from_rpc_error(error)
    trailers: dict[str, Any] = dict(error.trailing_metadata())
    receipt = event_pb2.Receipt.FromString(trailers["x-millrace-receipt-bin"])
    return Heard(Seen(f"{said.code.name} {said.reason}", text, _tries(receipt)), said.retry_after_ms)


def _refused(response: httpx.Response) -> Heard:
    code, wait_ms = response.json()["error"]["code"], response.headers.get("retry-after-ms")
    outcome = f"{response.status_code} {code}"
    return Heard(Seen(outcome, "", _tries_told(response)), None if wait_ms is None else int(wait_ms))
