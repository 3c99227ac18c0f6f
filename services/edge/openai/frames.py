"""Server-sent events of streamed answers, byte for byte as OpenAI sends them.

Chunks are cut from byte templates: what never changes in a stream is encoded once, and a text delta costs one JSON
string. It never waits, writes or decides what to send.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec
from msgspec import UNSET

from millrace.inference.v1 import event_pb2 as pb
from services.edge.fault import Fault
from services.edge.openai import answer
from services.edge.openai import chat_answer as chat
from services.edge.openai.moderated import moderated
from services.edge.openai.receipt import receipt

DONE = b"data: [DONE]\n\n"
_encode: Callable[[object], bytes] = msgspec.json.Encoder().encode


class _Frames:
    """What both endpoints have in common: the head of every chunk, the usage chunk and the end."""

    object_name: str
    id_prefix: str

    def __init__(self, request_id: str, include_usage: bool) -> None:
        self._id = f"{self.id_prefix}-{request_id}"
        self._include_usage = include_usage
        self._route_reason = ""
        self._safety: list[pb.SafetyEvent] = []
        self._head = b""
        self._end = b',"usage":null}\n\n' if include_usage else b"}\n\n"

    def open(self, started: pb.Started) -> None:
        """Takes what every chunk repeats."""
        self._safety = []
        self._route_reason = started.route_reason
        same = {
            "id": self._id,
            "object": self.object_name,
            "created": started.created_time.seconds,
            "model": started.model,
        }
        self._head = b"data: " + _encode(same)[:-1] + b',"choices":['

    def judged(self, judged: pb.SafetyEvent) -> bytes:
        """Nothing as yet: a chunk of its own would have no choices, which clients do not expect."""
        self._safety.append(judged)
        return b""

    def completed(self, completed: pb.Completed) -> bytes:
        """The usage chunk with the receipt, where asked for, and the terminal event."""
        if not self._include_usage:
            return DONE
        done = b""
        if completed.HasField("receipt"):
            done = b',"millrace":' + _encode(receipt(completed.receipt, self._route_reason))
        return b"".join((self._head, b'],"usage":', _encode(answer.usage(completed.usage)), done, b"}\n\n", DONE))

    def failed(self, fault: Fault) -> bytes:
        """The last event of a stream that broke: no `[DONE]` follows."""
        return b"data: " + fault.body() + b"\n\n"


class ChatFrames(_Frames):
    """The events of one streamed chat answer."""

    object_name = "chat.completion.chunk"
    id_prefix = "chatcmpl"

    def open(self, started: pb.Started) -> None:
        """Takes what every chunk repeats."""
        super().open(started)
        self._introduced: set[int] = set()
        self._choice = self._head + b'{"index":'
        self._text_head = self._choice + b'0,"delta":{"content":'
        self._text_end = b'},"logprobs":null,"finish_reason":null}]' + self._end

    def delta(self, delta: pb.Delta) -> bytes:
        """One chunk; the first of a choice is led by its role chunk."""
        index = delta.choice_index
        role = b"" if index in self._introduced else self._introduce(index)
        if delta.reasoning or delta.refusal or delta.tool_calls or delta.logprobs:
            return role + self._rich_delta(delta)
        if not delta.text:
            return role
        if index:
            return b"%b%b%d,%b%b%b" % (
                role,
                self._choice,
                index,
                b'"delta":{"content":',
                _encode(delta.text),
                self._text_end,
            )
        return b"".join((role, self._text_head, _encode(delta.text), self._text_end))

    def finished(self, finished: pb.ChoiceFinished) -> bytes:
        """The finish chunk of a choice, with what safety has said by then."""
        index = finished.choice_index
        role = b"" if index in self._introduced else self._introduce(index)
        reason = answer.FINISH_REASONS[finished.finish_reason].encode()
        end = b'%d,"delta":{},"logprobs":null,"finish_reason":"%b"}]' % (index, reason)
        moderation = b',"moderation":' + _encode(moderated(self._safety)) if self._safety else b""
        return b"".join((role, self._choice, end, moderation, self._end))

    def _introduce(self, index: int) -> bytes:
        self._introduced.add(index)
        role = (
            b'%d,"delta":{"role":"assistant","content":"","refusal":null},"logprobs":null,"finish_reason":null}]'
            % index
        )
        return self._choice + role + self._end

    def _rich_delta(self, delta: pb.Delta) -> bytes:
        """A chunk with more than text in it."""
        grown = chat.ChatDelta(
            content=delta.text or UNSET,
            reasoning_content=delta.reasoning or UNSET,
            refusal=delta.refusal or UNSET,
            tool_calls=[_fragment(call) for call in delta.tool_calls] or UNSET,
        )
        choice = chat.ChunkChoice(delta.choice_index, grown, answer.chat_logprobs(delta.logprobs))
        return b"".join((self._head, _encode(choice), b"]", self._end))


class CompletionFrames(_Frames):
    """The events of one streamed answer to a raw prompt."""

    object_name = "text_completion"
    id_prefix = "cmpl"

    def __init__(self, request_id: str, include_usage: bool) -> None:
        super().__init__(request_id, include_usage)
        self._lengths: dict[int, int] = {}

    def delta(self, delta: pb.Delta) -> bytes:
        """One chunk."""
        offset = self._lengths.get(delta.choice_index, 0)
        self._lengths[delta.choice_index] = offset + len(delta.text)
        logprobs = answer.completion_logprobs(delta.logprobs, offset)
        return self._chunk(delta.choice_index, delta.text, _encode(logprobs), b"null")

    def finished(self, finished: pb.ChoiceFinished) -> bytes:
        """The finish chunk of a choice."""
        reason = answer.completion_finish_reason(finished.finish_reason)
        return self._chunk(finished.choice_index, "", b"null", _encode(reason))

    def _chunk(self, index: int, text: str, logprobs: bytes, reason: bytes) -> bytes:
        choice = b'{"text":%b,"index":%d,"logprobs":%b,"finish_reason":%b}]' % (_encode(text), index, logprobs, reason)
        return b"".join((self._head, choice, self._end))


def _fragment(call: pb.ToolCallDelta) -> chat.ToolCallFragment:
    """A fragment of a tool call: id, type and name come once, with the first."""
    function = chat.FunctionFragment(name=call.name or UNSET, arguments=call.arguments_json)
    return chat.ToolCallFragment(call.index, call.id or UNSET, "function" if call.id else UNSET, function)
