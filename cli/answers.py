"""Asks for an answer over SSE or over gRPC and yields it as it comes.

Both ways speak the public contracts only, as any other client would; neither knows about the terminal.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, cast

import grpc
import httpx
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from cli import proxies
from cli.errors import CommandError
from millrace.inference.v1 import event_pb2, generation_pb2, inference_service_pb2, inference_service_pb2_grpc

# A model on two cores can take its time over a long prompt; nobody waits longer than this in silence.
SILENCE_S_MAX = 120.0
CONNECT_TIMEOUT_S = 5.0


class AnswerError(CommandError):
    """The answer failed; the message is for the person at the terminal."""


@dataclass(frozen=True)
class Turn:
    """One message of the conversation; role is `system`, `user` or `assistant`."""

    role: str
    text: str


@dataclass(frozen=True)
class Ask:
    """What stays the same over a conversation."""

    model: str
    temperature: float | None = None


@dataclass(frozen=True)
class Outcome:
    """How an answer ended, as the server tells it."""

    model: str
    finish_reason: str
    completion_token_count: int | None


def headers_of(api_key: str) -> dict[str, str]:
    """The HTTP headers that show a key; none where there is none."""
    return {"authorization": f"Bearer {api_key}"} if api_key else {}


def metadata_of(api_key: str) -> tuple[tuple[str, str | bytes], ...]:
    """The gRPC metadata that shows a key; none where there is none."""
    return (("x-api-key", api_key),) if api_key else ()


class Backend(Protocol):
    """A way to reach the suite."""

    def stream(self, ask: Ask, turns: Sequence[Turn]) -> Iterator[str | Outcome]:
        """Yields pieces of text and at last the outcome; closing the iterator cancels the request.

        Raises:
            AnswerError: Nothing answers, the request was refused, or the stream broke off.
        """
        ...


class SseBackend:
    """`POST /v1/chat/completions` with `stream: true`."""

    def __init__(self, url: str, api_key: str = "") -> None:
        self._url, self._api_key = url.rstrip("/"), api_key

    def stream(self, ask: Ask, turns: Sequence[Turn]) -> Iterator[str | Outcome]:
        """See Backend."""
        body: dict[str, Any] = {
            "model": ask.model,
            "messages": [{"role": turn.role, "content": turn.text} for turn in turns],
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        if ask.temperature is not None:
            body["temperature"] = ask.temperature
        timeout = httpx.Timeout(SILENCE_S_MAX, connect=CONNECT_TIMEOUT_S)
        try:
            url, headers = f"{self._url}/v1/chat/completions", headers_of(self._api_key)
            with httpx.stream(
                "POST", url, json=body, headers=headers, timeout=timeout, trust_env=proxies.are_for(url)
            ) as response:
                if response.status_code != httpx.codes.OK:
                    raise AnswerError(error_message(response.read(), response.status_code))
                yield from parse_chunks(response.iter_lines())
        except httpx.ConnectError as error:
            raise AnswerError(f"Nothing answers at {self._url}: is `millrace up` running?") from error
        except httpx.HTTPError as error:
            raise AnswerError(f"The connection to {self._url} failed: {error or type(error).__name__}") from error


def parse_chunks(lines: Iterator[str]) -> Iterator[str | Outcome]:
    """Reads the server-sent events of a streamed chat completion.

    Raises:
        AnswerError: The stream carries an error, or ends without `[DONE]`.
    """
    model, finish_reason, token_count = "", "", None
    for line in lines:
        if not line.startswith("data:"):
            continue
        data = line.removeprefix("data:").strip()
        if data == "[DONE]":
            yield Outcome(model, finish_reason, token_count)
            return
        chunk = json.loads(data)
        if "error" in chunk:
            raise AnswerError(str(chunk["error"].get("message")))
        model = chunk.get("model") or model
        token_count = (chunk.get("usage") or {}).get("completion_tokens", token_count)
        for choice in chunk.get("choices", []):
            finish_reason = choice.get("finish_reason") or finish_reason
            delta = choice["delta"]
            if text := delta.get("content") or delta.get("refusal"):
                yield text
    raise AnswerError("The answer broke off.")


def error_message(body: bytes, status: int) -> str:
    """Returns the message of an OpenAI error envelope, or says what came instead."""
    try:
        return str(json.loads(body)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return f"HTTP {status}: {body[:200].decode(errors='replace')}"


class GrpcBackend:
    """`InferenceService.StreamGenerate` through the generated stubs."""

    def __init__(self, target: str, api_key: str = "") -> None:
        self._target, self._api_key = target, api_key
        self._stub = inference_service_pb2_grpc.InferenceServiceStub(grpc.insecure_channel(target, proxies.DIRECT))

    def stream(self, ask: Ask, turns: Sequence[Turn]) -> Iterator[str | Outcome]:
        """See Backend."""
        call = self._stub.StreamGenerate(
            inference_service_pb2.StreamGenerateRequest(spec=make_spec(ask, turns)),
            timeout=SILENCE_S_MAX,
            metadata=metadata_of(self._api_key),
        )
        finish_reason = ""
        try:
            for response in call:
                if response.HasField("delta"):
                    if text := response.delta.text or response.delta.refusal:
                        yield text
                elif response.HasField("choice_finished"):
                    name = event_pb2.FinishReason.Name(response.choice_finished.finish_reason)
                    finish_reason = name.removeprefix("FINISH_REASON_").lower()
                elif response.HasField("completed"):
                    completed = response.completed
                    yield Outcome(completed.receipt.model, finish_reason, completed.usage.completion_token_count)
        except grpc.RpcError as error:
            raise AnswerError(self._explain(error)) from error
        finally:
            call.cancel()

    def _explain(self, error: grpc.RpcError) -> str:
        if error.code() is grpc.StatusCode.UNAVAILABLE and _details(error) is None:
            return f"Nothing answers at {self._target}: is `millrace up` running?"
        return f"{reason_of(error)}: {error.details()}"


def reason_of(error: grpc.RpcError) -> str:
    """Returns the reason of the status's ErrorInfo, or the name of its code where it has none."""
    status = _details(error)
    info = error_details_pb2.ErrorInfo()
    for detail in status.details if status else ():
        if detail.Unpack(info):
            return str(info.reason)
    return str(error.code().name)


def _details(error: grpc.RpcError) -> Any:
    """Returns the google.rpc.Status that came with an error; None where the server sent none."""
    return rpc_status.from_call(cast(grpc.Call, error))


def make_spec(ask: Ask, turns: Sequence[Turn]) -> generation_pb2.GenerationSpec:
    """Writes the conversation as a GenerationSpec."""
    return generation_pb2.GenerationSpec(
        model=ask.model,
        conversation=generation_pb2.Conversation(
            messages=[
                generation_pb2.Message(
                    role=f"ROLE_{turn.role.upper()}",
                    parts=[generation_pb2.ContentPart(text=turn.text)],
                )
                for turn in turns
            ]
        ),
        sampling=generation_pb2.SamplingParams(temperature=ask.temperature),
    )
