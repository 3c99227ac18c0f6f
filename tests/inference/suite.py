"""The inference service on a free port, with the real cache and safety behind it where a test wants them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
from pydantic import SecretStr

from kit import telemetry
from kit.dial import dial
from kit.errors import MillraceError
from kit.serve import Server
from kit.status import from_rpc_error
from millrace.inference.v1 import event_pb2, generation_pb2
from millrace.inference.v1 import inference_service_pb2 as pb
from millrace.inference.v1.inference_service_pb2_grpc import InferenceServiceStub
from services.cache import wiring as cache_wiring
from services.cache.config import CacheSettings
from services.inference import wiring
from services.inference.access.settings import AccessSettings
from services.inference.config import CacheDialSettings, InferenceSettings, SafetyDialSettings
from services.inference.database.settings import DatabaseSettings
from services.inference.ledger.settings import LedgerSettings
from services.safety.config import SafetySettings
from services.safety.wiring import SafetyService
from tests.fakes.openai_upstream import OpenAIUpstream
from tests.fakes.span_sink import SpanSink

Serve = Callable[..., Awaitable["Suite"]]
DEADLINE_S = 10.0

MODELS = """
version: 1
upstreams:
  fake: {{base_url: "{url}"}}
  nobody: {{base_url: "http://127.0.0.1:1/v1"}}
models:
  - {{name: gpt, targets: [{{engine: openai, upstream: fake, model: gpt, price: {{prompt: 2, completion: 10}}}}]}}
  - {{name: vectors, kind: embedding, targets: [{{engine: openai, upstream: fake, model: vectors}}]}}
  - {{name: "any-*", targets: [{{engine: openai, upstream: fake}}]}}
  - name: spared
    targets:
      - {{engine: openai, upstream: fake, model: first}}
      - {{engine: openai, upstream: fake, model: second}}
{more}
defaults:
  safety: {{profile: "{profile}"}}
  cache: {{enabled: {cached}}}
  retries: {{backoff_s: 0.01, backoff_s_max: 0.05}}
"""


@dataclass
class Suite:
    """The running service, and what a test asks of it."""

    inference: wiring.Inference
    channel: grpc.aio.Channel
    spans: SpanSink
    servers: dict[str, Server] = field(default_factory=dict)
    target: str = ""

    @property
    def stub(self) -> Any:
        """The generated stub."""
        return InferenceServiceStub(self.channel)

    async def generate(self, model: str = "gpt", text: str = "hi", **fields: Any) -> event_pb2.Generation:
        """A whole answer."""
        request = pb.GenerateRequest(spec=spec(model, text, **fields))
        answer = await self.stub.Generate(request, timeout=DEADLINE_S)
        generation: event_pb2.Generation = answer.generation
        return generation

    def start(self, model: str = "gpt", text: str = "hi", *, timeout: float = DEADLINE_S, **fields: Any) -> Any:
        """A streaming call that is under way."""
        return self.stub.StreamGenerate(pb.StreamGenerateRequest(spec=spec(model, text, **fields)), timeout=timeout)

    async def stream(self, model: str = "gpt", text: str = "hi", **fields: Any) -> list[pb.StreamGenerateResponse]:
        """Every event of a streamed answer."""
        return [event async for event in self.start(model, text, **fields)]


async def serve_suite(
    stack: AsyncExitStack,
    folder: Path,
    upstream: OpenAIUpstream,
    safety_service: Callable[[], SafetyService],
    more_models: str,
    *,
    cache: bool | str,
    safety: bool | str,
    settings: Mapping[str, Any],
) -> Suite:
    """Starts inference, and the real cache and safety where asked for, or dials what is said to be theirs.

    Models are MODELS and what is given.
    """
    servers: dict[str, Server] = {}
    dials: dict[str, Any] = {"cache": CacheDialSettings(target="none"), "safety": SafetyDialSettings(target="none")}
    dials["access"] = AccessSettings(pepper_path=folder / "pepper")
    dials["ledger"] = LedgerSettings(folder=folder / "ledger")
    dials["database"] = DatabaseSettings(url=SecretStr(f"sqlite+aiosqlite:///{folder}/millrace.sqlite3"))
    if cache:
        address = cache if isinstance(cache, str) else await _serve_cache(stack, folder, servers)
        dials["cache"] = CacheDialSettings(target=address)
    if safety:
        address = safety if isinstance(safety, str) else await _serve_safety(stack, safety_service(), servers)
        dials["safety"] = SafetyDialSettings(target=address)
    profile = "default" if safety else "off"
    text = MODELS.format(url=upstream.url, more=more_models, profile=profile, cached=str(bool(cache)).lower())
    (folder / "models.yaml").write_text(text)
    patient = {"cache_lookup_timeout_ms": 2_000}  # what is kept is found, however busy the machine
    given = InferenceSettings(port=0, models_file=folder / "models.yaml", **{**patient, **dials, **settings})
    spans = SpanSink()
    records = telemetry.setup("inference", given, exporter=spans)
    inference = await wiring.build(given, records, {})
    stack.push_async_callback(inference.close)
    server = servers["inference"] = Server("inference", given, inference.registrations, records)
    port = await server.start()
    stack.push_async_callback(server.stop, 0)
    await inference.warm(server)
    server.set_serving("", True)
    channel = dial(f"127.0.0.1:{port}")
    stack.push_async_callback(channel.close)
    return Suite(inference, channel, spans, servers, f"127.0.0.1:{port}")


async def _serve_cache(stack: AsyncExitStack, folder: Path, servers: dict[str, Server]) -> str:
    settings = CacheSettings(port=0, path=folder / "cache.sqlite3")
    service = await cache_wiring.build(settings, telemetry.off())
    stack.push_async_callback(service.close)
    server = servers["cache"] = Server("cache", settings, service.registrations, telemetry.off())
    port = await server.start()
    stack.push_async_callback(server.stop, 0)
    await service.warm(server)
    server.set_serving("", True)
    return f"127.0.0.1:{port}"


async def _serve_safety(stack: AsyncExitStack, service: SafetyService, servers: dict[str, Server]) -> str:
    settings = SafetySettings(port=0)
    server = servers["safety"] = Server("safety", settings, service.registrations, telemetry.off())
    port = await server.start()
    stack.push_async_callback(server.stop, 0)
    await service.warm(server)
    server.set_serving("", True)
    return f"127.0.0.1:{port}"


def spec(model: str = "gpt", text: str = "hi", **fields: Any) -> generation_pb2.GenerationSpec:
    """A spec of one user message."""
    said = generation_pb2.Message(role="ROLE_USER", parts=[generation_pb2.ContentPart(text=text)])
    fields.setdefault("conversation", generation_pb2.Conversation(messages=[said]))
    return generation_pb2.GenerationSpec(model=model, **fields)


async def failure(call: Awaitable[Any]) -> MillraceError:
    """The error that a call ends with."""
    try:
        answer = await call
    except grpc.aio.AioRpcError as error:
        return from_rpc_error(error)
    raise AssertionError(f"the call succeeded: {answer}")


def kinds(events: Sequence[pb.StreamGenerateResponse]) -> list[str]:
    """The names of events, in order."""
    return [str(event.WhichOneof("event")) for event in events]


def text_of(events: Sequence[pb.StreamGenerateResponse], index: int = 0) -> str:
    """The text that a stream showed of one choice."""
    return "".join(event.delta.text for event in events if event.delta.choice_index == index)


def tasks_now() -> set[asyncio.Task[Any]]:
    """Every task of the loop but the one that asks and those in which grpc waits for calls."""
    tasks = asyncio.all_tasks() - {asyncio.current_task()}  # type: ignore[arg-type]
    return {task for task in tasks if not getattr(task.get_coro(), "__qualname__", "").startswith("AioServer.")}


async def only_tasks(before: set[asyncio.Task[Any]]) -> None:
    """Waits until no task is left but those there were before."""
    async with asyncio.timeout(DEADLINE_S):
        while left := tasks_now() - before:
            await asyncio.wait(left)
