"""The chat speaks to real servers: a scripted HTTP edge and a scripted gRPC inference service."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from concurrent import futures
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import grpc
import pytest

from cli.answers import AnswerError, Ask, GrpcBackend, Outcome, SseBackend, Turn
from cli.chat import Chat, say_once
from millrace.inference.v1 import event_pb2, inference_service_pb2, inference_service_pb2_grpc

ASK = Ask("embedded", 0.5)
DEADLINE_S = 10.0


class Edge:
    """Answers every chat completion with the chunks it was given, and notes what was asked and who hung up."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self.chunks: list[dict[str, Any] | str] = []
        self.status = 200
        self.endless = False
        self.hung_up = threading.Event()
        edge = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                edge.asked.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                self.send_response(edge.status)
                self.end_headers()
                for chunk in edge.chunks:
                    data = chunk if isinstance(chunk, str) else json.dumps(chunk)
                    self.wfile.write(
                        f": heartbeat\n\ndata: {data}\n\n".encode() if edge.status == 200 else data.encode()
                    )
                try:
                    while edge.endless:
                        self.wfile.write(b": heartbeat\n\n")
                except OSError:
                    edge.hung_up.set()

            def log_message(self, *_: object) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def close(self) -> None:
        self.endless = False
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def edge() -> Iterator[Edge]:
    edge = Edge()
    yield edge
    edge.close()


def chunk(content: str | None = None, **rest: Any) -> dict[str, Any]:
    choice = {"index": 0, "delta": {"content": content} if content else {}, "finish_reason": None}
    return {"model": "embedded", "choices": [choice | rest], "usage": None}


ANSWER: list[dict[str, Any] | str] = [
    chunk(delta={"role": "assistant", "content": ""}),
    chunk("Hello"),
    chunk(" you"),
    chunk(finish_reason="stop"),
    {"model": "embedded", "choices": [], "usage": {"completion_tokens": 7}},
    "[DONE]",
]


def test_sse_answer_is_read_whole(edge):
    """Pieces come in order and the outcome has the model, the reason and the server's token count."""
    edge.chunks = ANSWER

    pieces = list(SseBackend(edge.url).stream(ASK, [Turn("user", "Hi")]))

    assert pieces == ["Hello", " you", Outcome("embedded", "stop", 7)]
    assert edge.asked[0]["messages"] == [{"role": "user", "content": "Hi"}]
    assert edge.asked[0]["temperature"] == 0.5


def test_sse_refusal_is_told_in_the_servers_words(edge):
    """An error envelope becomes its message."""
    edge.status, edge.chunks = (
        404,
        [{"error": {"message": "no model named x", "type": "t", "param": None, "code": None}}],
    )

    with pytest.raises(AnswerError, match="no model named x"):
        list(SseBackend(edge.url).stream(ASK, [Turn("user", "Hi")]))


def test_sse_error_in_the_stream_is_told(edge):
    """An error after the first tokens is an error, not a short answer."""
    edge.chunks = [chunk("Hel"), {"error": {"message": "upstream fell over"}}]

    stream = SseBackend(edge.url).stream(ASK, [Turn("user", "Hi")])
    assert next(stream) == "Hel"
    with pytest.raises(AnswerError, match="upstream fell over"):
        next(stream)


def test_sse_answer_without_done_is_broken(edge):
    """A stream that ends early is never taken for a whole answer."""
    edge.chunks = [chunk("Hel")]

    with pytest.raises(AnswerError, match="broke off"):
        list(SseBackend(edge.url).stream(ASK, [Turn("user", "Hi")]))


def test_closing_an_sse_answer_hangs_up(edge):
    """Leaving an answer early closes the connection, which is what cancels it on the server."""
    edge.chunks, edge.endless = [chunk("Hel")], True

    stream = SseBackend(edge.url).stream(ASK, [Turn("user", "Hi")])
    assert next(stream) == "Hel"
    stream.close()

    assert edge.hung_up.wait(DEADLINE_S)


@pytest.mark.parametrize("backend", [SseBackend, GrpcBackend])
def test_nothing_there_is_said_plainly(backend):
    """A suite that is not running is named as the likely cause, with the address that was tried."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
        target = address if backend is GrpcBackend else f"http://{address}"

        with pytest.raises(AnswerError, match=rf"{address}: is `millrace up` running"):
            list(backend(target).stream(ASK, [Turn("user", "Hi")]))


class Inference(inference_service_pb2_grpc.InferenceServiceServicer):
    """Streams two deltas and the receipt; for the model `endless` it streams until the call is cancelled."""

    def __init__(self) -> None:
        self.asked: list[Any] = []
        self.cancelled = threading.Event()

    def StreamGenerate(self, request: Any, context: Any) -> Iterator[Any]:
        self.asked.append(request.spec)
        # Called when the call ends, however it does; the endless one can only end by the caller's doing.
        context.add_callback(self.cancelled.set)
        if request.spec.model == "missing":
            context.abort(grpc.StatusCode.NOT_FOUND, "no model named missing")
        response = inference_service_pb2.StreamGenerateResponse
        yield response(started=event_pb2.Started(model="embedded"))
        yield response(delta=event_pb2.Delta(text="Hello"))
        if request.spec.model == "endless":
            self.cancelled.wait(DEADLINE_S)
            return
        yield response(choice_finished=event_pb2.ChoiceFinished(finish_reason=event_pb2.FINISH_REASON_LENGTH))
        usage, receipt = event_pb2.Usage(completion_token_count=3), event_pb2.Receipt(model="embedded")
        yield response(completed=event_pb2.Completed(usage=usage, receipt=receipt))


@pytest.fixture
def inference() -> Iterator[tuple[Inference, str]]:
    servicer, server = Inference(), grpc.server(futures.ThreadPoolExecutor(2))
    inference_service_pb2_grpc.add_InferenceServiceServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield servicer, f"127.0.0.1:{port}"
    server.stop(0).wait()


def test_grpc_answer_is_read_whole(inference):
    """The stubs give the same pieces and outcome as SSE, and carry the whole conversation."""
    servicer, target = inference

    pieces = list(GrpcBackend(target).stream(ASK, [Turn("system", "Be kind."), Turn("user", "Hi")]))

    assert pieces == ["Hello", Outcome("embedded", "length", 3)]
    roles = [(message.role, message.parts[0].text) for message in servicer.asked[0].conversation.messages]
    assert roles == [(1, "Be kind."), (3, "Hi")]
    assert servicer.asked[0].sampling.temperature == 0.5


def test_grpc_refusal_is_told_in_the_servers_words(inference):
    """A status becomes its message."""
    with pytest.raises(AnswerError, match="NOT_FOUND: no model named missing"):
        list(GrpcBackend(inference[1]).stream(Ask("missing"), [Turn("user", "Hi")]))


def test_closing_a_grpc_answer_cancels_the_call(inference):
    """Leaving an answer early cancels the RPC."""
    servicer, target = inference
    stream = GrpcBackend(target).stream(Ask("endless"), [Turn("user", "Hi")])
    assert next(stream) == "Hello"
    stream.close()

    assert servicer.cancelled.wait(DEADLINE_S)


class Scripted:
    """A backend that says the same each time; `interrupt` stands for Ctrl-C after the first piece."""

    def __init__(self, *, interrupt: bool = False) -> None:
        self.seen: list[list[Turn]] = []
        self.closed = False
        self._interrupt = interrupt

    def stream(self, ask: Ask, turns: list[Turn]) -> Iterator[str | Outcome]:
        self.seen.append(list(turns))
        try:
            yield "Hel"
            if self._interrupt:
                raise KeyboardInterrupt
            yield "lo"
            yield Outcome(ask.model, "stop", 2)
        finally:
            self.closed = True


def test_chat_keeps_its_history(capsys):
    """Each question is sent with the system prompt and everything said before."""
    backend = Scripted()
    chat = Chat(backend, ASK, "Be kind.")
    chat.answer("Hi")
    chat.answer("More")

    said = [Turn("system", "Be kind."), Turn("user", "Hi"), Turn("assistant", "Hello"), Turn("user", "More")]
    assert backend.seen[1] == said
    assert capsys.readouterr().out == "Hello\nHello\n"


def test_interrupted_answer_stays_as_far_as_it_came(capsys):
    """Ctrl-C closes the answer, keeps what was read in the history and lets the chat go on."""
    backend = Scripted(interrupt=True)
    chat = Chat(backend, ASK, None)

    assert chat.answer("Hi") is None
    assert backend.closed
    assert chat.turns == [Turn("user", "Hi"), Turn("assistant", "Hel")]


def test_one_question_prints_the_answer_alone(capsys):
    """Without a terminal the answer is all of standard output; the figures go to standard error."""
    assert say_once(Chat(Scripted(), ASK, None), "Hi") == 0

    captured = capsys.readouterr()
    assert captured.out == "Hello\n"
    assert "embedded · 2 tokens · first after" in captured.err
