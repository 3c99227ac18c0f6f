"""Faults of the answer itself: wrong, incomplete, too large, or odd and yet right."""

from __future__ import annotations

from dataclasses import replace

from kit.errors import Code
from tests.faults.answers import (
    DONE,
    LAST_PIECE,
    STREAM,
    chunk,
    completion,
    end,
    event,
    good,
    head,
    piece,
    stream,
    usage,
    whole,
    words,
)
from tests.faults.fault import GAP, Fault, broken, cut, harmless
from tests.faults.upstream import End, Step

BIG = "x" * 1_000_000
ALL = [*words(), *end()]
PING = b": ping\n\nid: 1\n\ndata:\n\n"
OVERLOADED = event({"error": {"message": "overloaded", "type": "server_error"}})
LIMITED = event({"error": {"message": "slow down", "type": "rate_limit_error"}})
LLAMA = b'error: {"code":400,"message":"the request exceeds the available context size"}\n\n'
NO_UTF_8 = event(b'{"choices": [{"index": 0, "delta": {"content": "\xff"}}]}')
FINISHED = chunk(finish="stop")


def after_two(*events: bytes) -> tuple[Step, ...]:
    """Two tokens, which leave, and then these."""
    return (head(), *map(piece, words(2)), GAP, *map(piece, events), LAST_PIECE)


def after_all(*events: bytes) -> tuple[Step, ...]:
    """Every token, which leave, and then these and [DONE]."""
    return (head(), *map(piece, words()), GAP, *map(piece, events), piece(DONE), LAST_PIECE)


NO_ANSWERS = (
    broken("html", "answers 200 with a page of HTML", whole(b"<html>busy</html>", content_type="text/html")),
    broken("json", "answers 200 with JSON in place of a stream", whole(b'{"choices": []}')),
    Fault(
        "json-error", "answers 200 with a rate limit as JSON in place of a stream", (whole(LIMITED[6:]),),
        Code.RESOURCE_EXHAUSTED, "UPSTREAM_RATE_LIMIT", opens=False,
    ),
    broken("gzip", "answers compressed, unasked", *stream([b"\x1f\x8b\x08"], Content_Encoding="gzip")),
    broken("no-http", "speaks another protocol", b"SSH-2.0-OpenSSH_9.6\r\n\r\n", End.SILENCE),
    broken("huge-headers", "sends headers without end", head(X_Huge="x" * 20_000), End.SILENCE),
    cut("empty", "answers 200 with an empty stream", whole(b"", content_type=STREAM), begun=False),
    cut("bad-framing", "sends nonsense as the size of a piece", *after_two()[:-1], b"zz\r\n", End.SILENCE),
)  # fmt: skip
BROKEN_ANSWERS = (
    broken("bad-json", "begins with malformed JSON", *stream([event('{"choices": [{'), *ALL])),
    broken("bad-json-later", "sends malformed JSON after two tokens", *after_two(event("{no}")), begun=True),
    broken("bad-utf-8", "sends bytes that are no UTF-8", *after_two(NO_UTF_8), begun=True),
    broken("deep-json", "nests brackets without end", *stream([event('{"extra": ' + "[" * 100_000)])),
    broken("huge-event", "sends an event without end", head(), *[piece(b"x" * 1_000_000)] * 12, End.SILENCE),
    cut("error", "reports an error at once", *stream([OVERLOADED, DONE]), reason="UPSTREAM_ERROR", begun=False),
    cut("error-later", "reports an error after two tokens", *after_two(OVERLOADED, DONE), reason="UPSTREAM_ERROR"),
    Fault(
        "limit-in-answer", "reports a rate limit within its answer", tuple(stream([LIMITED])),
        Code.RESOURCE_EXHAUSTED, "UPSTREAM_RATE_LIMIT", opens=False,
    ),
    Fault(
        "context-in-answer", "reports too long a prompt within its answer, as llama.cpp did",
        tuple(stream([LLAMA, DONE])), Code.INVALID_ARGUMENT, "CONTEXT_LENGTH_EXCEEDED", tries=1, opens=False,
    ),
    broken("other-choice", "sends a choice not asked for", *after_two(chunk({"content": "!"}, index=3)), begun=True),
)  # fmt: skip
WRONG_ENDS = (
    cut("no-finish", "leaves out the finish reason", *after_all(usage())),
    cut("no-done", "leaves out [DONE]", *after_two(*words()[2:], FINISHED, usage())),
    cut("gave-up", "gives `abort` as finish reason", *after_all(chunk(finish="abort"), usage())),
    broken("odd-finish", "gives an unknown finish reason", *after_all(chunk(finish="because")), begun=True),
    broken("two-finishes", "finishes for two reasons", *after_all(FINISHED, chunk(finish="length")), begun=True),
    broken("goes-on", "goes on after its finish", *after_all(FINISHED, chunk({"content": "!"})), begun=True),
    broken(
        "negative-usage", "counts fewer than no tokens",
        *after_all(FINISHED, usage(prompt_tokens=-7, completion_tokens=4)), begun=True,
    ),
)  # fmt: skip
ODD_ANSWERS = (
    harmless("same-finish", "finishes twice alike", *stream([*words(), FINISHED, *end()])),
    harmless("no-usage", "leaves out the usage", *stream([*words(), FINISHED, DONE]), estimated=True),
    harmless("half-usage", "counts the prompt only", *after_all(FINISHED, usage(prompt_tokens=7)), estimated=True),
    harmless(
        "early-usage", "tells the usage with its last token",
        *stream([*words(3), chunk({"content": "."}, "stop", usage={"prompt_tokens": 7, "completion_tokens": 4}), DONE]),
    ),
    harmless("after-done", "goes on after [DONE]", *stream([*ALL, event("{no}"), *words()])),
    harmless("no-end", "never ends the body after [DONE]", head(), *map(piece, ALL), End.SILENCE),
    harmless("big-chunk", "sends a million characters at once", *stream([chunk({"content": BIG}), *end()]), text=BIG),
    harmless("cr-lf", "ends lines with CR LF", *stream([one.replace(b"\n", b"\r\n") for one in ALL])),
    harmless("cr", "ends lines with CR", *stream([one.replace(b"\n", b"\r") for one in ALL])),
    harmless("comments", "sends comments and empty events", *stream([step for one in ALL for step in (PING, one)])),
    harmless("bytes", "sends every byte alone", head(), *[piece(bytes([byte])) for byte in b"".join(ALL)], LAST_PIECE),
)  # fmt: skip

WHOLE_ANSWERS = tuple(
    replace(fault, upstream="whole")
    for fault in (
        cut("whole-cut", "closes before its Content-Length", completion()[:-20], GAP, End.CLOSE, begun=False),
        cut("whole-no-finish", "leaves out the finish reason", completion(finish_reason=None), begun=False),
        cut("whole-no-choice", "answers without a choice", whole(b'{"choices": []}'), begun=False),
        cut("whole-error", "reports an error with 200", whole(OVERLOADED[6:]), reason="UPSTREAM_ERROR", begun=False),
        broken("whole-empty", "answers 200 with nothing", whole(b"")),
        broken("whole-html", "answers 200 with a page of HTML", whole(b"<html>busy</html>", content_type="text/html")),
        broken("whole-bad-json", "answers with malformed JSON", whole(b'{"choices": [{"message"')),
        broken("whole-stream", "streams all the same", *good()),
        harmless("whole-no-usage", "leaves out the usage", completion(usage=None), estimated=True),
    )
)

BODIES = NO_ANSWERS + BROKEN_ANSWERS + WRONG_ENDS + ODD_ANSWERS
