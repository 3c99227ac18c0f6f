"""Server-sent events of a response, as OpenAI sends them: items open, grow and close, each event numbered.

The same events always give the same bytes, so that a stream that is taken up again goes on where it was left.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from millrace.inference.v1 import event_pb2 as pb
from services.edge.fault import Fault
from services.edge.jobs.identifiers import RESPONSE
from services.edge.openai.receipt import receipt
from services.edge.responses import answer
from services.edge.responses.answer import (
    FunctionCall,
    Message,
    OutputItem,
    OutputText,
    ReasoningItem,
    ReasoningText,
    RefusalPart,
    Response,
)

_encode: Callable[[object], bytes] = msgspec.json.Encoder().encode


class ResponseFrames:
    """The events of one response.

    Args:
        response: As it begins.
        after: Events up to this number are made and not told: the client has them.
    """

    def __init__(self, response: Response, after: int = -1) -> None:
        self._response, self._after = response, after
        self._sequence = -1
        self._route_reason = ""
        self._is_open = False
        self._reason = 0
        self._output: list[OutputItem] = []
        self._given_up_count = 0  # items at its beginning, of tries that came to nothing
        self._current: Message | ReasoningItem | None = None
        self._calls: dict[int, tuple[int, FunctionCall]] = {}

    def queue(self) -> bytes:
        """The first events of a response that waits for its turn."""
        self._is_open = True
        return self._told("response.created") + self._told("response.queued")

    def open(self, started: pb.Started) -> bytes:
        """The answer has begun.

        What was told of an earlier try of it stays told, as items that are not complete. The answer is told at the
        places behind them, under the ids that it has for whoever reads it later, and at the end stands alone.
        """
        self._route_reason = started.route_reason
        told = self._close("incomplete") if self._output else b""
        self._given_up_count = len(self._output)
        if not self._is_open:
            told += self._told("response.created")
        if self._response.status != "in_progress" or not self._is_open:
            self._response = msgspec.structs.replace(self._response, status="in_progress")
            told += self._told("response.in_progress")
        self._is_open = True
        return told

    def delta(self, delta: pb.Delta) -> bytes:
        """An item opened or grew."""
        told = b""
        if delta.reasoning:
            told += self._reason_on(delta.reasoning)
        if delta.text:
            told += self._say(OutputText(""), "output_text", delta.text, delta.logprobs)
        if delta.refusal:
            told += self._say(RefusalPart(""), "refusal", delta.refusal, ())
        for call in delta.tool_calls:
            told += self._call(call)
        return told

    def finished(self, finished: pb.ChoiceFinished) -> bytes:
        """Every open item closes."""
        self._reason = finished.finish_reason
        return self._close(answer.item_status(finished.finish_reason))

    def completed(self, completed: pb.Completed) -> bytes:
        """The response is complete, or as complete as it gets."""
        done = receipt(completed.receipt, self._route_reason)
        output, model = self._output[self._given_up_count :], completed.receipt.model
        self._response = answer.ended(self._response, output, self._reason, completed.usage, model, done)
        return self._told(f"response.{self._response.status}")

    def failed(self, fault: Fault) -> bytes:
        """The response failed: it has no output, as for whoever reads it later."""
        self._response = answer.failed(self._response, fault)
        return self._told("response.failed")

    def cancelled(self) -> bytes:
        """The response was cancelled: OpenAI's streams have no other word for it."""
        told = self._close("incomplete")
        self._response = msgspec.structs.replace(self._response, status="cancelled")
        return told + self._told("response.incomplete")

    def _reason_on(self, text: str) -> bytes:
        told = b""
        if not isinstance(self._current, ReasoningItem):
            told = self._close_current("completed")
            self._current = ReasoningItem(self._id("rs"), [], "in_progress")
            told += self._add(self._current)
            self._current.content.append(ReasoningText(""))
            told += self._part("content_part.added", self._current.content[0])
        self._current.content[0].text += text
        return told + self._event("response.reasoning_text.delta", **self._at(), delta=text)

    def _say(self, empty: OutputText | RefusalPart, kind: str, text: str, tokens: Any) -> bytes:
        told = b""
        if not isinstance(self._current, Message):
            told = self._close_current("completed")
            self._current = Message(self._id("msg"), "in_progress", [])
            told += self._add(self._current)
        content = self._current.content
        if not content or type(content[-1]) is not type(empty):
            told += self._close_part() if content else b""
            content.append(empty)
            told += self._part("content_part.added", empty)
        part = content[-1]
        if isinstance(part, RefusalPart):
            part.refusal += text
            return told + self._event("response.refusal.delta", **self._at(), delta=text)
        part.text += text
        found = answer.logprobs_of(tokens)
        part.logprobs = [*part.logprobs, *found]
        return told + self._event("response.output_text.delta", **self._at(), delta=text, logprobs=found)

    def _call(self, fragment: pb.ToolCallDelta) -> bytes:
        told = b""
        if fragment.index not in self._calls:
            told = self._close_current("completed")
            item = FunctionCall(self._id("fc"), fragment.id, fragment.name, "", "in_progress")
            told += self._add(item)
            self._calls[fragment.index] = (len(self._output) - 1, item)
        at, item = self._calls[fragment.index]
        item.arguments += fragment.arguments_json
        if not fragment.arguments_json:
            return told
        kind = "response.function_call_arguments.delta"
        return told + self._event(kind, item_id=item.id, output_index=at, delta=fragment.arguments_json)

    def _close(self, status: answer.ItemStatus) -> bytes:
        told = self._close_current(status)
        for at, item in self._calls.values():
            item.status = status
            told += self._event(
                "response.function_call_arguments.done",
                item_id=item.id, output_index=at, name=item.name, arguments=item.arguments,
            )  # fmt: skip
            told += self._event("response.output_item.done", output_index=at, item=item)
        self._calls.clear()
        return told

    def _close_current(self, status: answer.ItemStatus) -> bytes:
        if self._current is None:
            return b""
        told = self._close_part()
        self._current.status = status
        told += self._event("response.output_item.done", output_index=self._output_index(), item=self._current)
        self._current = None
        return told

    def _close_part(self) -> bytes:
        assert self._current
        part = self._current.content[-1]
        if isinstance(part, RefusalPart):
            told = self._event("response.refusal.done", **self._at(), refusal=part.refusal)
        elif isinstance(part, ReasoningText):
            told = self._event("response.reasoning_text.done", **self._at(), text=part.text)
        else:
            told = self._event("response.output_text.done", **self._at(), text=part.text, logprobs=part.logprobs)
        return told + self._part("content_part.done", part)

    def _add(self, item: OutputItem) -> bytes:
        self._output.append(item)
        return self._event("response.output_item.added", output_index=len(self._output) - 1, item=item)

    def _part(self, kind: str, part: object) -> bytes:
        return self._event(f"response.{kind}", **self._at(), part=part)

    def _at(self) -> dict[str, Any]:
        assert self._current
        return {
            "item_id": self._current.id,
            "output_index": self._output_index(),
            "content_index": len(self._current.content) - 1,
        }

    def _output_index(self) -> int:
        return next(index for index, item in enumerate(self._output) if item is self._current)

    def _id(self, prefix: str) -> str:
        return f"{prefix}_{self._response.id.removeprefix(RESPONSE)}_{len(self._output) - self._given_up_count}"

    def _told(self, kind: str) -> bytes:
        return self._event(kind, response=self._response)

    def _event(self, kind: str, **fields: Any) -> bytes:
        self._sequence += 1
        if self._sequence <= self._after:
            return b""
        data = _encode({"type": kind, "sequence_number": self._sequence, **fields})
        return b"event: %b\ndata: %b\n\n" % (kind.encode(), data)


class RelayedFrames:
    """The same for a stream that is relayed as it is made: what its start tells goes out with what follows."""

    def __init__(self, response: Response) -> None:
        self._frames, self._held = ResponseFrames(response), b""

    def open(self, started: pb.Started) -> None:
        """Takes what is told first."""
        self._held += self._frames.open(started)

    def delta(self, delta: pb.Delta) -> bytes:
        """An item opened or grew."""
        return self._with_held(self._frames.delta(delta))

    def finished(self, finished: pb.ChoiceFinished) -> bytes:
        """Every open item closes."""
        return self._with_held(self._frames.finished(finished))

    def judged(self, judged: pb.SafetyEvent) -> bytes:
        """OpenAI's streams have no words for it; the answer says what was cut."""
        return b""

    def completed(self, completed: pb.Completed) -> bytes:
        """The response is complete."""
        return self._with_held(self._frames.completed(completed))

    def failed(self, fault: Fault) -> bytes:
        """The response failed."""
        return self._with_held(self._frames.failed(fault))

    def _with_held(self, told: bytes) -> bytes:
        told, self._held = self._held + told, b""
        return told
