"""The edge's one peer: the inference service.

A call here lasts at most as long as its HTTP request may, and ends when the client leaves. Failures come out as the
suite's errors. Retrying what failed is the business of inference; what is asked again here is a call whose server went
away before it answered, for nobody else is left to do it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from functools import partial
from types import TracebackType
from typing import Any, TypeVar

import grpc
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import DecodeError
from grpc_health.v1 import health_pb2, health_pb2_grpc

from kit.dial import REPLICA_WAITS_S
from kit.errors import Code, DeadlineExceeded, MillraceError
from kit.status import from_rpc_error
from millrace.inference.v1 import (
    access_service_pb2,
    event_pb2,
    generation_pb2,
    key_pb2,
    key_service_pb2,
    live_service_pb2,
    model_pb2,
    usage_service_pb2,
)
from millrace.inference.v1 import inference_service_pb2 as pb
from millrace.inference.v1.access_service_pb2_grpc import AccessServiceStub
from millrace.inference.v1.inference_service_pb2_grpc import InferenceServiceStub
from millrace.inference.v1.key_service_pb2_grpc import KeyServiceStub
from millrace.inference.v1.live_service_pb2_grpc import LiveServiceStub
from millrace.inference.v1.usage_service_pb2_grpc import UsageServiceStub
from services.edge.credentials import address_of, metadata_of
from services.edge.exchange import Disconnected, Exchange
from services.edge.provenance import set_failed

T = TypeVar("T")
Metadata = list[tuple[str, str]]
_RECEIPT = "x-millrace-receipt-bin"
LONG_S = 86_400.0  # who watches for longer opens the stream again, as a page does by itself


class InferenceClient:
    """Calls inference on behalf of HTTP requests.

    Args:
        channel: A channel to the inference service.
        heartbeat_s: Longest silence of a stream before a comment keeps it alive.
    """

    def __init__(self, channel: grpc.aio.Channel, heartbeat_s: float) -> None:
        self._stub: Any = InferenceServiceStub(channel)
        self._usage: Any = UsageServiceStub(channel)
        self._keys: Any = KeyServiceStub(channel)
        self._access: Any = AccessServiceStub(channel)
        self._live: Any = LiveServiceStub(channel)
        self._health: Any = health_pb2_grpc.HealthStub(channel)
        self._heartbeat_s = heartbeat_s

    async def generate(self, exchange: Exchange, spec: generation_pb2.GenerationSpec) -> event_pb2.Generation:
        """Generates a complete answer."""
        request = pb.GenerateRequest(request_id=exchange.request_id, spec=spec)
        answer: pb.GenerateResponse = await self._call(exchange, self._stub.Generate, request)
        return answer.generation

    def stream(self, exchange: Exchange, spec: generation_pb2.GenerationSpec, part: int | None = None) -> EventStream:
        """Generates an answer as events; as a numbered part of several within `attended`, where one is given."""
        request_id = exchange.request_id if part is None else f"{exchange.request_id[:120]}.{part}"
        request = pb.StreamGenerateRequest(request_id=request_id, spec=spec)
        timeout_s, metadata = time_left_s(exchange), metadata_of(exchange)
        start = self._stub.StreamGenerate
        heartbeat_s = self._heartbeat_s if part is None else None
        return EventStream(exchange, lambda: start(request, timeout=timeout_s, metadata=metadata), heartbeat_s)

    def attended(self, exchange: Exchange) -> AbstractAsyncContextManager[None]:
        """Ends what is asked for within the block when the client leaves."""
        return attended(exchange, self._heartbeat_s)

    async def batch(self, exchange: Exchange, specs: list[generation_pb2.GenerationSpec]) -> list[pb.BatchItem]:
        """Generates answers to several prompts; each item succeeds or fails by itself."""
        request = pb.BatchGenerateRequest(request_id=exchange.request_id, specs=specs)
        answer: pb.BatchGenerateResponse = await self._call(exchange, self._stub.BatchGenerate, request)
        return list(answer.items)

    async def embed(self, exchange: Exchange, request: pb.EmbedRequest) -> pb.EmbedResponse:
        """Turns texts into vectors."""
        return await self._call(exchange, self._stub.Embed, request)

    async def moderate(self, exchange: Exchange, texts: list[str]) -> pb.ModerateResponse:
        """Judges texts."""
        request = pb.ModerateRequest(request_id=exchange.request_id, texts=texts)
        return await self._call(exchange, self._stub.Moderate, request)

    async def count_tokens(self, exchange: Exchange, spec: generation_pb2.GenerationSpec) -> int:
        """Counts the tokens of a prompt."""
        request = pb.CountTokensRequest(request_id=exchange.request_id, spec=spec)
        answer: pb.CountTokensResponse = await self._call(exchange, self._stub.CountTokens, request)
        return answer.prompt_token_count

    async def report_false_hit(self, exchange: Exchange, request: pb.ReportFalseHitRequest) -> bool:
        """Reports a cached answer that did not fit; false where its entry was gone."""
        request.request_id = exchange.request_id
        answer: pb.ReportFalseHitResponse = await self._call(exchange, self._stub.ReportFalseHit, request)
        return answer.removed

    async def models(self, exchange: Exchange) -> list[model_pb2.Model]:
        """Lists the models."""
        answer: pb.ListModelsResponse = await self._call(exchange, self._stub.ListModels, pb.ListModelsRequest())
        return list(answer.models)

    async def model(self, exchange: Exchange, name: str) -> model_pb2.Model:
        """Gets one model."""
        answer: pb.GetModelResponse = await self._call(exchange, self._stub.GetModel, pb.GetModelRequest(name=name))
        return answer.model

    async def stats(self, exchange: Exchange) -> usage_service_pb2.GetStatsResponse:
        """Gets the counters."""
        return await self._call(exchange, self._usage.GetStats, usage_service_pb2.GetStatsRequest())

    async def history(
        self, exchange: Exchange, request: usage_service_pb2.ListHistoryRequest
    ) -> usage_service_pb2.ListHistoryResponse:
        """Lists past requests."""
        return await self._call(exchange, self._usage.ListHistory, request)

    async def usage(
        self, exchange: Exchange, request: usage_service_pb2.GetUsageRequest
    ) -> usage_service_pb2.GetUsageResponse:
        """Gets the usage of a span of time."""
        return await self._call(exchange, self._usage.GetUsage, request)

    async def limits(self, exchange: Exchange) -> usage_service_pb2.ListLimitsResponse:
        """Lists the limits of whoever asks."""
        return await self._call(exchange, self._usage.ListLimits, usage_service_pb2.ListLimitsRequest())

    async def create_key(self, exchange: Exchange, key: key_pb2.Key) -> key_service_pb2.CreateKeyResponse:
        """Makes a key."""
        return await self._call(exchange, self._keys.CreateKey, key_service_pb2.CreateKeyRequest(key=key), again=False)

    async def list_keys(self, exchange: Exchange, limit: int, after: str) -> key_service_pb2.ListKeysResponse:
        """Lists keys."""
        request = key_service_pb2.ListKeysRequest(page_size=limit, page_token=after)
        return await self._call(exchange, self._keys.ListKeys, request)

    async def revoke_key(self, exchange: Exchange, key_id: str) -> key_service_pb2.RevokeKeyResponse:
        """Revokes a key."""
        return await self._call(exchange, self._keys.RevokeKey, key_service_pb2.RevokeKeyRequest(key_id=key_id))

    async def rotate_key(self, exchange: Exchange, key_id: str, overlap_s: int) -> key_service_pb2.RotateKeyResponse:
        """Gives a key a new secret."""
        request = key_service_pb2.RotateKeyRequest(key_id=key_id, overlap=Duration(seconds=overlap_s))
        return await self._call(exchange, self._keys.RotateKey, request, again=False)

    async def login(self, exchange: Exchange, name: str, password: str) -> access_service_pb2.LoginTokens:
        """Lets a user in. Whatever else the request shows of its caller, attempts are counted by its address."""
        request = access_service_pb2.LoginRequest(name=name, password=password)
        answer: access_service_pb2.LoginResponse
        answer = await self._call(exchange, self._access.Login, request, address_of(exchange), again=False)
        return answer.tokens

    async def refresh_login(self, exchange: Exchange, token: str) -> access_service_pb2.LoginTokens:
        """Trades a refresh token for new tokens."""
        request = access_service_pb2.RefreshLoginRequest(refresh_token=token)
        answer: access_service_pb2.RefreshLoginResponse
        answer = await self._call(exchange, self._access.RefreshLogin, request, address_of(exchange), again=False)
        return answer.tokens

    async def caller(self, exchange: Exchange) -> access_service_pb2.GetCallerResponse:
        """Says who a request's credential stands for."""
        return await self._call(exchange, self._access.GetCaller, access_service_pb2.GetCallerRequest())

    def watch(self, exchange: Exchange) -> EventStream:
        """Watches how inference fares, for as long as the client stays."""
        metadata, start = metadata_of(exchange), self._live.Watch
        request = live_service_pb2.WatchRequest()
        return EventStream(exchange, lambda: start(request, timeout=LONG_S, metadata=metadata), self._heartbeat_s)

    async def health(self, name: str, timeout_s: float) -> str:
        """The state of inference itself (""), of a model or of a dependency, as inference reports it.

        Returns:
            SERVING, NOT_SERVING, UNKNOWN where inference knows no such name, or UNREACHABLE.
        """
        try:
            answer = await self._health.Check(health_pb2.HealthCheckRequest(service=name), timeout=timeout_s)
        except grpc.aio.AioRpcError as error:
            return "UNKNOWN" if error.code() is grpc.StatusCode.NOT_FOUND else "UNREACHABLE"
        return health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)

    async def _call(
        self,
        exchange: Exchange,
        method: Callable[..., Awaitable[T]],
        request: object,
        metadata: Metadata | None = None,
        again: bool = True,
    ) -> T:
        """Makes a unary call that ends when the client leaves; with the client's credentials unless said otherwise.

        Where its server goes away, another is asked, unless what it did may not be done twice (`again`).
        """
        ask = partial(self._call_once, exchange, method, request, metadata)
        return await asked_again(exchange, ask, lambda: again)

    async def _call_once(
        self, exchange: Exchange, method: Callable[..., Awaitable[T]], request: object, metadata: Metadata | None
    ) -> T:
        call: Any = method(request, timeout=time_left_s(exchange), metadata=metadata or metadata_of(exchange))
        attending = asyncio.create_task(exchange.attend(call.cancel, self._heartbeat_s))
        try:
            answer: T = await call
            return answer
        except grpc.aio.AioRpcError as error:
            raise failure(exchange, error) from error
        except asyncio.CancelledError:
            if exchange.disconnected:
                raise Disconnected from None
            raise
        finally:
            attending.cancel()


class EventStream:
    """The events of one call; leaving the context ends the call, whatever became of it.

    Where there is no time of a heartbeat, somebody else looks after the client.
    """

    def __init__(self, exchange: Exchange, call: Callable[[], Any], heartbeat_s: float | None) -> None:
        self._exchange = exchange
        self._make_call = call
        self._attending: asyncio.Task[None] | None = None
        self._heartbeat_s = heartbeat_s

    async def __aenter__(self) -> AsyncIterator[Any]:
        self._call = self._make_call()
        if self._heartbeat_s is not None:
            attend = self._exchange.attend(self._call.cancel, self._heartbeat_s)
            self._attending = asyncio.create_task(attend)
        events: AsyncIterator[Any] = self._call.__aiter__()
        return events

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._attending is not None:
            self._attending.cancel()
        self._call.cancel()
        if isinstance(error, grpc.aio.AioRpcError):
            raise failure(self._exchange, error) from error
        if isinstance(error, asyncio.CancelledError) and self._exchange.disconnected:
            raise Disconnected from None


@asynccontextmanager
async def attended(exchange: Exchange, heartbeat_s: float) -> AsyncIterator[None]:
    """Ends the block when the client leaves, and keeps its stream alive meanwhile."""
    task = asyncio.current_task()
    assert task is not None
    attending = asyncio.create_task(exchange.attend(task.cancel, heartbeat_s))
    try:
        yield
    except asyncio.CancelledError:
        if exchange.disconnected:
            raise Disconnected from None
        raise
    finally:
        attending.cancel()


def failure(exchange: Exchange, error: grpc.aio.AioRpcError) -> MillraceError:
    """The error that a call ended with; what the receipt beside it tells is put into the answer's headers."""
    trailers = dict(error.trailing_metadata() or ())
    if receipt := trailers.get(_RECEIPT):
        # What a proxy mangled is as good as absent.
        with suppress(DecodeError):
            set_failed(exchange, event_pb2.Receipt.FromString(receipt))
    return from_rpc_error(error)


async def asked_again(exchange: Exchange, ask: Callable[[], Awaitable[T]], is_free: Callable[[], bool]) -> T:
    """Asks, and again where the server went away, while there is time and it is free: the client was told nothing, and
    what is asked for may be done twice.
    """
    for wait_s in REPLICA_WAITS_S:
        try:
            return await ask()
        except MillraceError as error:
            if not (is_lost(error) and is_free()) or exchange.elapsed_s + wait_s >= exchange.timeout_s:
                raise
        await asyncio.sleep(wait_s)
    return await ask()


def is_lost(error: MillraceError) -> bool:
    """Whether a server went away unheard, in the transport's own words; inference passes on its peers'."""
    return error.code is Code.UNAVAILABLE and error.reason in (error.code.name, "SERVER_STOPPING")


def time_left_s(exchange: Exchange) -> float:
    """Time that the request has left, for a call on its behalf.

    Raises:
        DeadlineExceeded: None.
    """
    left = exchange.timeout_s - exchange.elapsed_s
    if left <= 0:
        raise DeadlineExceeded("DEADLINE_EXCEEDED", "The request's time was over before the work could begin.")
    return left
