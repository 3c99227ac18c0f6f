"""The engine for OpenAI-compatible upstreams: OpenAI, vLLM, Ollama, llama.cpp and the like.

The openai SDK configures it (base URL, key, organization, headers) and names its errors; the bytes of the hot path
are read raw with aiohttp and msgspec, because the SDK's own path costs six to twelve times the CPU. It never retries:
routes do.

It asks for a stream whether or not its caller reads one, because only a stream shows early that an upstream is
silent; an upstream that cannot stream, or that never sends the [DONE] which tells an end from a cut, says
`streams: false` in the models file.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing, suppress
from typing import Any

import msgspec
import openai
from yarl import URL

from kit.errors import DeadlineExceeded, MillraceError, Unimplemented
from kit.proxies import DIRECT, Proxies, parse
from services.inference.accounting import metering
from services.inference.accounting.metering import Meter
from services.inference.engines.openai_errors import from_answer, malformed, truncated
from services.inference.engines.openai_events import EventSplitter
from services.inference.engines.openai_http import JSON, STREAM, HttpAnswer, UpstreamHttp
from services.inference.engines.openai_request import chat_body, completion_body
from services.inference.engines.openai_wire import Assembler, WireEmbeddings, decode
from services.inference.generation import EngineEvent, Prompt, Usage
from services.inference.routing.catalog import Upstream

ANSWER_BYTES_MAX = 64 * 1024 * 1024  # of an answer in one piece: a megabyte for each of the most choices, and more
EMBEDDINGS_BYTES_MAX = 256 * 1024 * 1024  # 2048 vectors of 4096 numbers, 22 characters each, and some room
DONE = b"[DONE]"


class OpenAIEngine:
    """Every model of one upstream.

    Args:
        label: The upstream's name in the models file.
        upstream: Its entry there.
        api_key: Sent as bearer token; None sends none.
        proxies: What stands before upstreams that name no proxy of their own.

    Raises:
        ConfigError: The upstream's file of authorities cannot be read.
    """

    kind = "openai"

    def __init__(self, label: str, upstream: Upstream, api_key: str | None, proxies: Proxies = DIRECT) -> None:
        self._label = label
        self._upstream = upstream
        self.streams = upstream.streams
        sdk = openai.AsyncOpenAI(
            api_key=api_key or "none",  # servers that need no key still get a well-formed header from every SDK
            base_url=str(upstream.base_url),
            organization=upstream.organization,
            project=upstream.project,
            default_headers=upstream.headers,
            max_retries=0,
            # It is asked for headers alone: a proxy that httpx does not speak to would fail its start all the same.
            http_client=openai.DefaultAsyncHttpxClient(trust_env=False),
        )
        authorization = sdk.auth_headers if api_key else {}  # no part of the defaults since SDK 3
        headers = {**authorization, **sdk.default_headers}
        sent = {name: value for name, value in headers.items() if isinstance(value, str)}
        base = URL(str(sdk.base_url))
        proxy = parse(upstream.proxy) if upstream.proxy else proxies.before(base)
        self._http = UpstreamHttp(label, upstream, sent, proxy)
        self._chat_url, self._completions_url = base / "chat/completions", base / "completions"
        self._embeddings_url = base / "embeddings"

    async def warm(self) -> None:
        """Opens the connection pool; the upstream itself is not asked, so that it may be down at start."""
        await self._http.open()

    async def generate(self, prompt: Prompt, deadline: float | None) -> AsyncGenerator[Sequence[EngineEvent], None]:
        """Streams an answer; see `Engine.generate`."""
        raw = prompt.raw_prompt is not None
        body = completion_body(prompt, self._upstream) if raw else chat_body(prompt, self._upstream)
        url = self._completions_url if raw else self._chat_url
        assembler, meter = Assembler(prompt.sampling.n, len(body), self._label), metering.current()
        answer = await self._ask(url, body, assembler, meter)
        splitter, completed = EventSplitter(), False
        try:
            if not self.streams:
                yield await self._whole(answer, assembler)
            else:
                async with aclosing(self._stream(answer, assembler, splitter)) as batches:
                    async for events in batches:
                        yield events
            completed = True
        finally:
            arrived = b"" if completed else answer.arrived()
            answer.let_go(completed)
            if not completed:
                self._read_rest(arrived, splitter, assembler)
                meter.usage = assembler.usage_so_far()

    async def embed(
        self, model: str, texts: Sequence[str], dimension_count: int | None, deadline: float | None
    ) -> tuple[list[list[float]], Usage]:
        """Embeds texts; see `Embedder.embed`."""
        body: dict[str, Any] = {"model": model, "input": list(texts), "encoding_format": "float"}
        if dimension_count is not None:
            body["dimensions"] = dimension_count
        try:
            async with asyncio.timeout(None if deadline is None else max(0.0, deadline - time.monotonic())):
                answer = await self._embeddings(msgspec.json.encode(body))
        except TimeoutError as error:
            message = f"upstream {self._label} did not answer in time; retry"
            raise DeadlineExceeded("DEADLINE_EXCEEDED", message) from error
        vectors = _in_order(answer, len(texts))
        if answer.usage is None or answer.usage.prompt_tokens is None:
            return vectors, Usage(max(1, sum(map(len, texts)) // 4), estimated=True)
        return vectors, Usage(answer.usage.prompt_tokens)

    async def count_tokens(self, prompt: Prompt) -> int:
        """Refuses: chat completions have no way to ask."""
        raise Unimplemented(
            "COUNT_TOKENS_UNSUPPORTED", f"upstream {self._label} cannot count tokens; a local model can"
        )

    async def close(self) -> None:
        """Closes every connection."""
        await self._http.close()

    async def _ask(self, url: URL, body: bytes, assembler: Assembler, meter: Meter) -> HttpAnswer:
        """Asks; from then on the prompt counts as used, until the upstream says that it has not even begun."""
        meter.usage = assembler.usage_so_far()
        try:
            return await self._http.post(url, body, STREAM if self.streams else JSON)
        except MillraceError:
            meter.usage = Usage()
            raise

    def _read_rest(self, arrived: bytes, splitter: EventSplitter, assembler: Assembler) -> None:
        """Counts what had arrived when its reader left, and was not read."""
        if self.streams:
            with suppress(MillraceError):
                for payload in splitter.feed(arrived):
                    if payload.rstrip() != DONE:
                        assembler.take(decode(payload, self._label), [])

    async def _whole(self, answer: HttpAnswer, assembler: Assembler) -> list[EngineEvent]:
        events: list[EngineEvent] = []
        assembler.take(decode(await answer.read_whole(ANSWER_BYTES_MAX), self._label), events)
        events.append(assembler.complete())
        return events

    async def _stream(
        self, answer: HttpAnswer, assembler: Assembler, splitter: EventSplitter
    ) -> AsyncGenerator[Sequence[EngineEvent], None]:
        while data := await answer.read():
            events: list[EngineEvent] = []
            for payload in splitter.feed(data):
                if payload.rstrip() == DONE:
                    events.append(assembler.complete())
                    yield events
                    return
                assembler.take(decode(payload, self._label), events)
            if events:
                yield events
        raise truncated(self._label)

    async def _embeddings(self, body: bytes) -> WireEmbeddings:
        answer = await self._http.post(self._embeddings_url, body, JSON)
        try:
            data = await answer.read_whole(EMBEDDINGS_BYTES_MAX)
        finally:
            answer.let_go()
        try:
            return msgspec.json.decode(data, type=WireEmbeddings)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise from_answer(data, self._label) or malformed("malformed JSON") from error


def _in_order(answer: WireEmbeddings, text_count: int) -> list[list[float]]:
    """The vectors in the order of the texts: as their indexes say, or as they came where there are none.

    Raises:
        Unavailable: Some text has no vector, or two, or they are not alike in length.
    """
    numbered = [(one.index, one.embedding) for one in answer.data if one.index is not None]
    found = dict(numbered) if numbered else dict(enumerate(one.embedding for one in answer.data))
    if len(answer.data) != text_count or found.keys() != set(range(text_count)):
        raise malformed(f"{len(found)} vectors for {text_count} texts")
    if len({len(vector) for vector in found.values()} | {0}) > 2 or not all(found.values()):
        raise malformed("vectors of no length, or of several")
    return [found[index] for index in range(text_count)]
