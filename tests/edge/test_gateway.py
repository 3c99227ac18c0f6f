"""What holds for every request: ids, times, limits, methods, origins, errors."""

from __future__ import annotations

import asyncio
import gzip
import json
import re

import pytest

JSON = {"content-type": "application/json"}


async def test_a_sane_request_id_is_echoed_and_passed_on(edge, inference):
    """The caller's id is in the answer and in the metadata of the call."""
    answer = await edge.post("/chat", {"message": "x"}, headers={"x-request-id": "abc.DEF:1-2_3"})

    assert answer.headers["x-request-id"] == "abc.DEF:1-2_3"
    assert answer.json()["request_id"] == "abc.DEF:1-2_3"
    assert inference.metadata["x-request-id"] == "abc.DEF:1-2_3"


@pytest.mark.parametrize("bad", ["", "a b", "x" * 129, "né", "a/b"])
async def test_other_request_ids_are_replaced(edge, bad):
    """An id that is not fit for a header or a log line is replaced by a new one."""
    answer = await edge.get("/livez", headers={b"x-request-id": bad.encode()})

    assert re.fullmatch("[0-9a-f]{32}", answer.headers["x-request-id"])


@pytest.mark.parametrize("path", ["/livez", "/nowhere", "/v1/models", "/docs", "/metrics"])
async def test_every_answer_says_how_long_it_took(edge, path):
    """X-Process-Time is in seconds, on success and failure."""
    answer = await edge.get(path)

    assert 0 <= float(answer.headers["x-process-time"]) < 60
    assert answer.headers["x-request-id"]


async def test_unknown_path_is_an_envelope(edge, openai_schema):
    """An unknown path is 404 in the envelope."""
    answer = await edge.get("/nowhere")

    assert answer.status_code == 404
    openai_schema("ErrorResponse", answer.json())


async def test_wrong_method_names_the_right_ones(edge, openai_schema):
    """A wrong method is 405 with Allow."""
    answer = await edge.get("/chat")

    assert (answer.status_code, answer.headers["allow"]) == (405, "OPTIONS, POST")
    openai_schema("ErrorResponse", answer.json())


async def test_head_answers_like_get_without_a_body(edge):
    """HEAD is GET without the body."""
    answer = await edge.client.head("/livez")

    assert (answer.status_code, answer.content, answer.headers["content-length"]) == (200, b"", "15")


async def test_options_says_what_is_allowed(edge):
    """OPTIONS is answered on every path that exists."""
    answer = await edge.client.options("/v1/models")

    assert (answer.status_code, answer.headers["allow"]) == (204, "GET, HEAD, OPTIONS")


async def test_a_packed_body_is_refused_as_such(edge):
    """415 says what is wrong with it; 400 said that the text is not UTF-8."""
    body = gzip.compress(b'{"message": "x"}')
    headers = {"content-type": "application/json", "content-encoding": "gzip"}
    packed = await edge.client.post("/chat", content=body, headers=headers)
    plain = await edge.client.post("/chat", json={"message": "x"}, headers={"content-encoding": "identity"})

    assert (packed.status_code, packed.json()["error"]["code"]) == (415, "unsupported_media_type")
    assert "Content-Encoding" in packed.json()["error"]["message"]
    assert plain.status_code == 200


async def test_a_body_of_another_type_is_refused(edge):
    """A form is 415: its fields would be read as nothing."""
    answer = await edge.client.post("/chat", data={"message": "x"})

    assert (answer.status_code, answer.json()["error"]["code"]) == (415, "unsupported_media_type")


async def test_a_body_over_the_limit_is_refused(serve, openai_schema):
    """A declared size over the limit is 413, in the envelope."""
    edge = await serve(body_bytes_max=1024)
    answer = await edge.post("/chat", {"message": "x" * 2000})

    assert answer.status_code == 413
    openai_schema("ErrorResponse", answer.json())


async def test_a_chunked_body_over_the_limit_is_refused(serve):
    """A body that does not declare its size is counted as it comes."""
    edge = await serve(body_bytes_max=1024)

    async def chunks():
        for _ in range(4):
            yield b"x" * 512

    answer = await edge.client.post("/chat", content=chunks(), headers=JSON)

    assert answer.status_code == 413


@pytest.mark.parametrize(
    ("raw", "param"),
    [
        (b"", None),
        (b"{", None),
        (b'{"message": "x"} tail', None),
        (b'{"message": "\xff"}', None),
        (b"[" * 100_000, None),
        (b'{"message": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", None),
        (b'{"message": "\\ud800"}', "message"),
        (b'{"message": "x", "temperature": NaN}', "temperature"),
        (b'{"message": "x", "temperature": 1e999}', "temperature"),
        (b'{"message": "x", "temperature": ' + b"9" * 5000 + b"}", "temperature"),
        (b'{"message": 1}', "message"),
        (b'{"message": ""}', "message"),
        (b'{"other": 1}', "other"),
        (b"{}", "message"),
        (b"[]", None),
        (b"null", None),
        (b'"x"', None),
    ],
)
async def test_a_bad_body_is_400_and_names_the_field(edge, openai_schema, raw, param):
    """Whatever is wrong with a body is the caller's to know, and never a 500."""
    answer = await edge.client.post("/chat", content=raw, headers=JSON)
    error = answer.json()["error"]

    assert answer.status_code == 400
    assert error["param"] == param or (param is None and error["param"] == "message")
    openai_schema("ErrorResponse", answer.json())


async def test_a_bug_shows_nothing(own_pair, openai_schema, caplog):
    """An error that nobody foresaw is 500 without detail; the log has it."""
    _, edge = own_pair
    edge.edge.inference.stats = _broken
    answer = await edge.get("/stats")

    assert answer.status_code == 500
    assert "secret detail" not in answer.text
    assert "secret detail" in caplog.text
    assert answer.headers["x-should-retry"] == "false"
    openai_schema("ErrorResponse", answer.json())


async def _broken(exchange):
    raise RuntimeError("secret detail")


async def test_the_deadline_reaches_inference(edge, inference):
    """X-Request-Timeout-Ms becomes the deadline of the call."""
    await edge.post("/chat", {"message": "x"}, headers={"x-request-timeout-ms": "3000"})

    assert inference.timeout_s is not None
    # gRPC counts time in its own coarse clock; unasked it would be ten minutes.
    assert 0 < inference.timeout_s < 3.1


async def test_time_that_is_over_is_504(edge, openai_schema):
    """A call that takes longer than its request may is cut and answered 504, not to be retried blindly."""
    answer = await edge.post("/chat", {"model": "silent", "message": "x"}, headers={"x-request-timeout-ms": "300"})

    assert (answer.status_code, answer.headers["x-should-retry"]) == (504, "false")
    openai_schema("ErrorResponse", answer.json())


@pytest.mark.parametrize(
    ("settings", "head"),
    [({}, "x-request-timeout-ms: 100\r\ncontent-length: 50"), ({"body_timeout_s": 0.1}, "content-length: 50")],
    ids=["time of the request", "setting"],
)
async def test_a_body_that_does_not_end_is_408(serve, inference, openai_schema, settings, head):
    """A body that stalls is given up when its time is over, and the connection with it; inference is not called."""
    edge = await serve(**settings)
    status, headers, body = await _send_half(edge.port, head)

    assert (status, headers["connection"], body["error"]["code"]) == ("408", "close", "body_timeout")
    assert "x-should-retry" not in headers  # nothing was done that a retry would pay for twice
    assert not inference.specs
    openai_schema("ErrorResponse", body)


async def test_a_chunked_body_that_does_not_end_is_408(serve):
    """A body without a declared size has no more time than others."""
    edge = await serve(body_timeout_s=0.1)
    status, headers, _ = await _send_half(edge.port, "transfer-encoding: chunked")

    assert (status, headers["connection"]) == ("408", "close")


async def _send_half(port, head):
    """Sends a part of a body and nothing more; returns the answer once the server has hung up."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    part = '6\r\n{"mess\r\n' if "chunked" in head else '{"mess'
    writer.write(f"POST /chat HTTP/1.1\r\nhost: x\r\n{head}\r\n\r\n{part}".encode())
    async with asyncio.timeout(5):
        answer = (await reader.read()).decode()
    writer.close()
    top, _, body = answer.partition("\r\n\r\n")
    first, *lines = top.split("\r\n")
    return first.split()[1], dict(line.lower().split(": ", 1) for line in lines), json.loads(body)


@pytest.mark.parametrize("bad", ["0", "-1", "x", "1.5", "99999999999", ""])
async def test_a_bad_timeout_is_refused(edge, bad):
    """A timeout outside its bounds is 400 and named."""
    answer = await edge.post("/chat", {"message": "x"}, headers={"x-request-timeout-ms": bad})

    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "X-Request-Timeout-Ms")


async def test_listed_origins_may_read(serve):
    """A page of a listed origin gets its CORS headers, also on errors; others get none."""
    edge = await serve(cors_origins=["https://app.test"])
    listed = await edge.get("/nowhere", headers={"origin": "https://app.test"})
    other = await edge.get("/livez", headers={"origin": "https://evil.test"})

    assert listed.headers["access-control-allow-origin"] == "https://app.test"
    exposed = listed.headers["access-control-expose-headers"].split(", ")
    assert {"x-request-id", "x-millrace-attempts", "retry-after", "x-should-retry"} <= set(exposed)
    assert "access-control-allow-origin" not in other.headers
    assert other.headers["vary"] == "origin"


async def test_preflight(serve):
    """A preflight of a listed origin says which methods and headers may be sent."""
    edge = await serve(cors_origins=["https://app.test"])
    asked = {
        "origin": "https://app.test",
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization,content-type",
    }
    answer = await edge.client.options("/v1/chat/completions", headers=asked)

    assert answer.status_code == 204
    assert "POST" in answer.headers["access-control-allow-methods"]
    assert answer.headers["access-control-allow-headers"] == "authorization,content-type"


async def test_without_a_list_no_origin_may_read(edge):
    """CORS is off by default."""
    answer = await edge.get("/livez", headers={"origin": "https://app.test"})

    assert not [name for name in answer.headers if name.startswith("access-control")]


@pytest.mark.parametrize(
    ("code", "status", "kind"),
    [
        ("INVALID_ARGUMENT", 400, "invalid_request_error"),
        ("FAILED_PRECONDITION", 400, "invalid_request_error"),
        ("OUT_OF_RANGE", 400, "invalid_request_error"),
        ("UNAUTHENTICATED", 401, "authentication_error"),
        ("PERMISSION_DENIED", 403, "permission_error"),
        ("NOT_FOUND", 404, "invalid_request_error"),
        ("ABORTED", 409, "invalid_request_error"),
        ("RESOURCE_EXHAUSTED", 429, "rate_limit_error"),
        ("INTERNAL", 500, "server_error"),
        ("DATA_LOSS", 500, "server_error"),
        ("UNKNOWN", 500, "server_error"),
        ("UNIMPLEMENTED", 501, "server_error"),
        ("UNAVAILABLE", 503, "server_error"),
        ("DEADLINE_EXCEEDED", 504, "server_error"),
    ],
)
async def test_every_status_has_its_place(edge, openai_schema, code, status, kind):
    """Each gRPC status becomes its HTTP status and OpenAI type."""
    answer = await edge.chat(f"error-{code}")

    assert (answer.status_code, answer.json()["error"]["type"]) == (status, kind)
    openai_schema("ErrorResponse", answer.json())


async def test_limits_say_when_to_come_back(edge):
    """Retry-After is whole seconds, rounded up; retry-after-ms is exact."""
    headers = (await edge.chat("error-RESOURCE_EXHAUSTED")).headers

    assert (headers["retry-after"], headers["retry-after-ms"]) == ("2", "1500")
    assert "x-should-retry" not in headers


async def test_work_that_may_be_billed_is_not_retried(edge):
    """After an internal error an SDK's automatic retry would pay twice."""
    assert (await edge.chat("error-INTERNAL")).headers["x-should-retry"] == "false"


async def test_cache_and_safety_headers_reach_the_spec(edge, inference):
    """no-store keeps the cache out, no-cache asks for a fresh answer, the profile is named."""
    await edge.post("/chat", {"message": "x"}, headers={"cache-control": "no-store"})
    await edge.post("/chat", {"message": "x"}, headers={"cache-control": "max-age=0, no-cache"})
    await edge.post("/chat", {"message": "x"}, headers={"cache-control": "only-if-cached, max-age=5"})
    await edge.post("/chat", {"message": "x"}, headers={"cache-control": "only-if-cached, no-store"})
    await edge.post("/chat", {"message": "x"}, headers={"x-millrace-safety-profile": "strict"})

    assert [spec.cache.mode for spec in inference.specs] == [1, 4, 5, 5, 0]
    assert inference.specs[2].cache.age_max.seconds == 5
    assert inference.specs[-1].safety.profile == "strict"


@pytest.mark.parametrize(
    ("value", "age_s"),
    [
        ("max-age=0", 0),
        ("Max-Age=60, no-transform", 60),
        ('max-age="60"', 60),
        ("max-age=" + "9" * 5000, 365 * 86_400),
        ("max-age=0, no-cache", None),
        ("max-age=60, no-store", None),
        ("only-if-cached", None),
    ],
)
async def test_an_age_bounds_what_the_cache_may_answer(edge, inference, value, age_s):
    """max-age is the oldest answer that will do, within the contract's bound; the stronger wishes need none."""
    await edge.post("/chat", {"message": "x"}, headers={"cache-control": value})
    cache = inference.specs[-1].cache

    assert (cache.age_max.seconds if cache.HasField("age_max") else None) == age_s


async def test_neither_a_kept_answer_nor_a_fresh_one_is_no_answer(edge, inference):
    """Who takes no kept answer and no other either is told so; no model is asked."""
    answer = await edge.post("/chat", {"message": "x"}, headers={"cache-control": "no-cache, only-if-cached"})

    assert (answer.status_code, answer.json()["error"]["code"]) == (504, "not_cached")
    assert inference.specs == []


@pytest.mark.parametrize("value", ["max-age", "max-age=", "max-age=-1", "max-age=1.5"])
async def test_an_age_that_is_none_is_refused(edge, value):
    """A caller who wants a young answer and misspells it is told so."""
    answer = await edge.post("/chat", {"message": "x"}, headers={"cache-control": value})

    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "Cache-Control")


async def test_requests_over_the_limit_are_refused_at_once(serve, inference):
    """With as many in flight as may be, the next is 503 in the envelope; probes are served; room is given back."""
    edge = await serve(active_requests_max=1)
    waiting = asyncio.create_task(edge.post("/chat/stream", {"message": "a b", "model": "gate"}))
    await asyncio.wait_for(inference.began.wait(), 5)
    refused, alive = await edge.post("/chat", {"message": "x"}), await edge.get("/livez")
    inference.gate.set()
    await waiting
    after = await edge.post("/chat", {"message": "x"})

    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "overloaded")
    assert (alive.status_code, after.status_code) == (200, 200)


async def test_inference_down_is_503(own_pair):
    """Without inference the answer is 503, at once."""
    inference, edge = own_pair
    await inference.stop()
    answer = await edge.chat()

    assert answer.status_code == 503
