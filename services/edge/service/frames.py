"""Server-sent events of POST /chat/stream: `token`, `done` and `error`."""

from __future__ import annotations

import msgspec

from millrace.inference.v1 import event_pb2 as pb
from services.edge.exchange import Exchange
from services.edge.fault import Fault
from services.edge.openai.answer import FINISH_REASONS
from services.edge.provenance import HITS
from services.edge.service.bodies import Done, Token

_encode = msgspec.json.Encoder().encode


class Unscreened(msgspec.Struct):
    """Data of the event `safety`: safety was away, and the policy lets the text pass."""

    unscreened: bool = True


class TokenFrames:
    """The events of one streamed message."""

    def __init__(self, exchange: Exchange, session_id: str) -> None:
        self._exchange = exchange
        self._session_id = session_id
        self._model = ""
        self._reason = ""

    def open(self, started: pb.Started) -> None:
        """Takes the model's name."""
        self._model = started.model

    def delta(self, delta: pb.Delta) -> bytes:
        """A `token` event; only text is shown here."""
        text = delta.text or delta.refusal
        return b"event: token\ndata: " + _encode(Token(text)) + b"\n\n" if text else b""

    def finished(self, finished: pb.ChoiceFinished) -> bytes:
        """Nothing; `done` has the reason."""
        self._reason = FINISH_REASONS[finished.finish_reason]
        return b""

    def judged(self, judged: pb.SafetyEvent) -> bytes:
        """A `safety` event where text was let through unscreened; what was found shows in the text and in `done`."""
        if not judged.unscreened:
            return b""
        return b"event: safety\ndata: " + _encode(Unscreened()) + b"\n\n"

    def completed(self, completed: pb.Completed) -> bytes:
        """The `done` event."""
        usage = completed.usage
        done = Done(
            request_id=self._exchange.request_id,
            session_id=self._session_id,
            model_used=self._model,
            tokens_used=usage.prompt_token_count + usage.completion_token_count,
            latency_ms=round(self._exchange.elapsed_s * 1000, 3),
            cached=completed.receipt.cache.outcome in HITS,
            finish_reason=self._reason,
        )
        return b"event: done\ndata: " + _encode(done) + b"\n\n"

    def failed(self, fault: Fault) -> bytes:
        """The `error` event."""
        return b"event: error\ndata: " + fault.body(with_extra=True) + b"\n\n"
