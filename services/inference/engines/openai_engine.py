"""The engine for OpenAI-compatible upstreams: OpenAI, vLLM, Ollama, llama.cpp and the like.

The openai SDK configures it (base URL, key, organization, headers) and names its errors; the bytes of the hot path
are read raw with aiohttp and msgspec, because the SDK's own path costs six to twelve times the CPU. It never retries:
routes do.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any

import aiohttp
import msgspec
import openai
from yarl import URL

from kit import telemetry
from kit.errors import DeadlineExceeded, MillraceError, Unimplemented
from services.inference.catalog import Upstream
from services.inference.engines import openai_errors
from services.inference.engines.openai_request import chat_body, completion_body
from services.inference.engines.openai_wire import Assembler, EventSplitter, WireEmbeddings, broken, decode
from services.inference.generation import EngineEvent, Prompt, Usage

ERROR_BYTES_MAX = 64 * 1024
DRAIN_S = 1.0  # how long a connection may take to end its answer after [DONE] and still be kept
DONE = b"[DONE]"


class OpenAIEngine:
    """Every model of one upstream."""

    kind = "openai"

    def __init__(self, label: str, upstream: Upstream, api_key: str | None) -> None:
        self._label = label
        self._upstream = upstream
        sdk = openai.AsyncOpenAI(
            api_key=api_key or "none",  # servers that need no key still get a well-formed header from every SDK
            base_url=str(upstream.base_url),
            organization=upstream.organization,
            project=upstream.project,
            default_headers=upstream.headers,
            max_retries=0,
        )
        authorization = sdk.auth_headers if api_key else {}  # no part of the defaults since SDK 3
        headers = {**authorization, **sdk.default_headers}
        self._headers = {name: value for name, value in headers.items() if isinstance(value, str)}
        base = URL(str(sdk.base_url))
        self._chat_url, self._completions_url = base / "chat/completions", base / "completions"
        self._embeddings_url = base / "embeddings"
        self._session: aiohttp.ClientSession | None = None
        self._drains: set[asyncio.Task[None]] = set()

    async def warm(self) -> None:
        """Opens the connection pool; the upstream itself is not asked, so that it may be down at start."""
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=self._upstream.connect_timeout_s)
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, ttl_dns_cache=30),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers=self._headers,
            timeout=timeout,
        )

    async def generate(self, prompt: Prompt, deadline: float | None) -> AsyncGenerator[Sequence[EngineEvent], None]:
        """Streams an answer; see `Engine.generate`."""
        raw = prompt.raw_prompt is not None
        body = completion_body(prompt, self._upstream) if raw else chat_body(prompt, self._upstream)
        assembler = Assembler(prompt.sampling.n, len(body))
        response = await self._post(self._completions_url if raw else self._chat_url, body, prompt.streamed)
        completed = False
        try:
            if not prompt.streamed:
                yield await self._whole(response, assembler)
            else:
                async with aclosing(self._stream(response, assembler)) as batches:
                    async for events in batches:
                        yield events
            completed = True
        finally:
            self._let_go(response, completed)

    async def embed(
        self, model: str, texts: Sequence[str], dimension_count: int | None, deadline: float | None
    ) -> tuple[list[list[float]], Usage]:
        """Embeds texts; see `Embedder.embed`."""
        body: dict[str, Any] = {"model": model, "input": list(texts), "encoding_format": "float"}
        if dimension_count is not None:
            body["dimensions"] = dimension_count
        timeout_s = None if deadline is None else max(0.0, deadline - time.monotonic())
        try:
            async with asyncio.timeout(timeout_s):
                async with await self._post(
                    self._embeddings_url, msgspec.json.encode(body), streamed=False
                ) as response:
                    answer = await self._decode_embeddings(response)
        except TimeoutError as error:
            raise DeadlineExceeded(
                "DEADLINE_EXCEEDED", f"upstream {self._label} did not answer in time; retry"
            ) from error
        if len(answer.data) != len(texts):
            raise broken(f"{len(answer.data)} vectors for {len(texts)} texts")
        vectors = [one.embedding for one in sorted(answer.data, key=lambda one: one.index)]
        if answer.usage is None:
            return vectors, Usage(max(1, sum(map(len, texts)) // 4), estimated=True)
        return vectors, Usage(answer.usage.prompt_tokens)

    async def count_tokens(self, prompt: Prompt) -> int:
        """Refuses: the API has no way to ask."""
        raise Unimplemented(
            "COUNT_TOKENS_UNSUPPORTED", f"upstream {self._label} cannot count tokens; a local model can"
        )

    async def close(self) -> None:
        """Closes every connection."""
        for task in list(self._drains):
            task.cancel()
        if self._session:
            await self._session.close()

    async def _post(self, url: URL, body: bytes, streamed: bool) -> aiohttp.ClientResponse:
        assert self._session, "warm() was not awaited"
        headers = {
            "Content-Type": "application/json",
            "Accept": "text/event-stream" if streamed else "application/json",
        }
        headers.update(telemetry.inject())
        try:
            response = await self._session.post(url, data=body, headers=headers, allow_redirects=False)
        except aiohttp.ClientError as error:
            raise openai_errors.from_transport(error, self._label) from error
        if response.status == 200 and response.content_type == headers["Accept"]:
            return response
        try:
            raise await self._failure(response)
        finally:
            response.close()

    async def _failure(self, response: aiohttp.ClientResponse) -> MillraceError:
        if response.status == 200:
            return broken(f"content type {response.content_type[:64]!r}")
        body = b""
        try:
            while len(body) < ERROR_BYTES_MAX and (data := await response.content.readany()):
                body += data
        except aiohttp.ClientError:
            pass  # what came of it says enough
        return openai_errors.from_status(response.status, response.headers, body, self._label)

    async def _whole(self, response: aiohttp.ClientResponse, assembler: Assembler) -> list[EngineEvent]:
        events: list[EngineEvent] = []
        try:
            assembler.take(decode(await response.read()), events)
        except aiohttp.ClientError as error:
            raise openai_errors.from_transport(error, self._label) from error
        events.append(assembler.complete())
        return events

    async def _stream(
        self, response: aiohttp.ClientResponse, assembler: Assembler
    ) -> AsyncGenerator[Sequence[EngineEvent], None]:
        splitter = EventSplitter()
        while data := await self._read(response):
            events: list[EngineEvent] = []
            for payload in splitter.feed(data):
                if payload == DONE:
                    events.append(assembler.complete())
                    yield events
                    return
                assembler.take(decode(payload), events)
            if events:
                yield events
        raise openai_errors.from_transport(aiohttp.ClientPayloadError(), self._label)

    async def _read(self, response: aiohttp.ClientResponse) -> bytes:
        """What has arrived, all of it: tokens that are ready together travel together."""
        try:
            return await response.content.readany()
        except aiohttp.ClientError as error:
            raise openai_errors.from_transport(error, self._label) from error

    async def _decode_embeddings(self, response: aiohttp.ClientResponse) -> WireEmbeddings:
        try:
            return msgspec.json.decode(await response.read(), type=WireEmbeddings)
        except msgspec.DecodeError as error:
            raise broken("malformed JSON") from error
        except aiohttp.ClientError as error:
            raise openai_errors.from_transport(error, self._label) from error

    def _let_go(self, response: aiohttp.ClientResponse, completed: bool) -> None:
        """Gives the connection back, or closes it at once so that the upstream notices that nobody listens."""
        if response.content.at_eof():
            response.release()
        elif completed:  # [DONE] came before the end of the body: a moment's patience saves the connection
            task = asyncio.create_task(_drain(response))
            self._drains.add(task)
            task.add_done_callback(self._drains.discard)
        else:
            response.close()


async def _drain(response: aiohttp.ClientResponse) -> None:
    try:
        async with asyncio.timeout(DRAIN_S):
            await response.content.read(ERROR_BYTES_MAX)
    except (TimeoutError, aiohttp.ClientError):
        pass
    finally:
        response.close() if not response.content.at_eof() else response.release()
