"""The suite's own endpoints: chat, summaries, batches, health, figures."""

from __future__ import annotations

import json
import uuid

import pytest


def sse(text):
    """Events of a stream as pairs of name and data."""
    frames = [frame.split("\n") for frame in text.strip().split("\n\n")]
    return [(f[0].removeprefix("event: "), json.loads(f[1].removeprefix("data: "))) for f in frames]


async def test_chat(edge, inference):
    """One message in, one answer out, with the default model and a session id made here."""
    body = (await edge.post("/chat", {"message": "hi"})).json()

    assert body.keys() == {
        "request_id",
        "session_id",
        "response",
        "model_used",
        "tokens_used",
        "latency_ms",
        "cached",
    }
    assert (body["response"], body["model_used"], body["tokens_used"], body["cached"]) == (
        "echo: hi",
        "millrace-embedded",
        9,
        False,
    )
    assert uuid.UUID(body["session_id"])
    assert inference.specs[-1].session_id == body["session_id"]


async def test_chat_with_everything(edge, inference):
    """Session, model and temperature are passed on; a cached answer says so."""
    asked = {"message": "hi", "session_id": "s1", "model": "cached", "temperature": 0}
    body = (await edge.post("/chat", asked)).json()

    assert (body["session_id"], body["model_used"], body["cached"]) == ("s1", "cached", True)
    assert inference.specs[-1].sampling.HasField("temperature")


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"message": ""}, "message"),
        ({"message": "x" * 4097}, "message"),
        ({"message": "x", "temperature": 2.1}, "temperature"),
        ({"message": "x", "session_id": "s" * 129}, "session_id"),
        ({}, "message"),
    ],
)
@pytest.mark.parametrize("path", ["/chat", "/chat/stream", "/chat/smart", "/chat/safe"])
async def test_chat_limits(edge, path, fields, param):
    """A message has 1 to 4096 characters; what is wrong is named."""
    answer = await edge.post(path, fields)

    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)


async def test_longest_message_is_taken(edge):
    """Limits count characters, not bytes."""
    assert (await edge.post("/chat", {"message": "é" * 4096})).status_code == 200


async def test_chat_stream(edge):
    """Events `token` and then one `done`."""
    events = sse((await edge.post("/chat/stream", {"message": "hi", "session_id": "s1"})).text)

    assert [name for name, _ in events] == ["token", "token", "done"]
    assert "".join(data["token"] for name, data in events if name == "token") == "echo: hi"
    assert (events[-1][1]["session_id"], events[-1][1]["finish_reason"]) == ("s1", "stop")


async def test_chat_stream_that_breaks(edge):
    """The last event is `error`, in the envelope."""
    name, data = sse((await edge.post("/chat/stream", {"message": "a b", "model": "break"})).text)[-1]

    assert (name, data["error"]["code"]) == ("error", "upstream_broke")


async def test_smart_chat_lets_the_router_choose(edge, inference):
    """/chat/smart asks for `auto`, and takes no model."""
    await edge.post("/chat/smart", {"message": "hi"})
    named = await edge.post("/chat/smart", {"message": "hi", "model": "echo"})

    assert inference.specs[-1].model == "auto"
    assert named.json()["error"]["param"] == "model"


async def test_safe_chat_asks_for_the_strict_profile(edge, inference):
    """/chat/safe sets the profile, whatever the header says."""
    await edge.post("/chat/safe", {"message": "hi"}, headers={"x-millrace-safety-profile": "lax"})

    assert inference.specs[-1].safety.profile == "strict"


async def test_safe_chat_refuses_a_flagged_prompt_with_its_categories(edge):
    """A refused prompt is 400 and says which categories."""
    answer = await edge.post("/chat/safe", {"message": "x", "model": "blocked"})
    error = answer.json()["error"]

    assert (answer.status_code, error["code"]) == (400, "content_policy_violation")
    assert error["categories"] == ["hate", "violence"]


@pytest.mark.parametrize("model", ["filtered", "flagged"])
async def test_safe_chat_replaces_a_flagged_answer(edge, model):
    """None of an answer that safety cut or marked is shown."""
    answer = await edge.post("/chat/safe", {"message": "x", "model": model})

    assert answer.status_code == 200
    assert answer.json()["response"] == "I cannot help with that."


async def test_summarize(edge, inference):
    """A summary with both lengths in characters; the length sets the instruction and the token limit."""
    asked = {"text": "Ten chars and more.", "length": "short"}
    body = (await edge.post("/summarize", asked)).json()

    assert body == {
        "summary": "echo: Ten chars and more.",
        "original_length": 19,
        "summary_length": 25,
        "cached": False,
    }
    assert inference.specs[-1].sampling.max_tokens == 80


@pytest.mark.parametrize(
    "fields", [{"text": "short"}, {"text": "x" * 5001}, {"text": "x" * 20, "length": "huge"}, {"length": "short"}]
)
async def test_summarize_limits(edge, fields):
    """Texts have 10 to 5000 characters; the length is one of three."""
    assert (await edge.post("/summarize", fields)).status_code == 400


async def test_generate_is_one_batch(edge, inference):
    """Each prompt has its answer, in order, with its own id."""
    answer = await edge.post("/generate", {"prompts": ["a", "b"], "max_length": 10})
    body = answer.json()

    assert [(item["prompt"], item["generated_text"]) for item in body] == [("a", "echo: a"), ("b", "echo: b")]
    assert body[1]["id"] == f"{answer.headers['x-request-id']}.1"
    assert body[0]["created_at"] == "2023-11-14T22:13:20+00:00"
    assert inference.specs[0].sampling.max_tokens == 10


@pytest.mark.parametrize(
    ("model", "kind"), [("base", "raw_prompt"), ("echo", "conversation"), ("auto", "conversation")]
)
async def test_generate_suits_the_model(edge, inference, model, kind):
    """A model that only completes gets raw prompts, every other one a conversation."""
    await edge.post("/generate", {"prompts": ["a"], "model": model})

    assert inference.specs[-1].WhichOneof("input") == kind


@pytest.mark.parametrize(
    "fields",
    [
        {"prompts": []},
        {"prompts": ["x"] * 11},
        {"prompts": [""]},
        {"prompts": ["x"], "max_length": 9},
        {"prompts": ["x"], "max_length": 201},
    ],
)
async def test_generate_limits(edge, fields):
    """1 to 10 prompts, 10 to 200 tokens."""
    assert (await edge.post("/generate", fields)).status_code == 400


async def test_generate_names_the_prompt_at_fault(edge):
    """The prompt that is refused is named as the body has it."""
    answer = await edge.post("/generate", {"prompts": ["a", "fail"]})
    error = answer.json()["error"]

    assert (answer.status_code, error["param"], error["message"]) == (400, "prompts[1]", "prompts[1]: told to fail")


async def test_generate_names_the_blocked_prompt(edge):
    """A prompt that safety refuses is named, with its categories."""
    answer = await edge.post("/generate", {"prompts": ["a"], "model": "blocked"})
    error = answer.json()["error"]

    assert (answer.status_code, error["param"], error["code"]) == (400, "prompts[0]", "content_policy_violation")
    assert error["message"].startswith("prompts[0]: ")
    assert error["categories"] == ["hate", "violence"]


async def test_generate_names_no_prompt_where_none_is_at_fault(edge):
    """What is wrong with all of the request is no prompt's fault."""
    answer = await edge.post("/generate", {"prompts": ["a"], "model": "error-INVALID_ARGUMENT"})

    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "seed")


async def test_batch_items_fail_by_themselves(edge):
    """Results come in order; the item that failed says why, the others answered."""
    items = [{"id": "one", "message": "a"}, {"message": "fail"}, {"message": "c", "temperature": 1}]
    body = (await edge.post("/batch-process", {"items": items})).json()

    assert [(r["id"], r["status"]) for r in body["results"]] == [
        ("one", "succeeded"),
        ("1", "failed"),
        ("2", "succeeded"),
    ]
    assert body["results"][1]["error"]["status"] == 400
    assert (body["succeeded"], body["failed"], body["results"][0]["response"]) == (2, 1, "echo: a")


async def test_health(edge):
    """/health has status, version and uptime; /livez lives."""
    body = (await edge.get("/health")).json()

    assert body["status"] == "ok"
    assert body["version"]
    assert body["uptime_s"] >= 0
    assert (await edge.get("/livez")).status_code == 200


@pytest.mark.parametrize("path", ["/readyz", "/ready"])
async def test_ready_follows_inference(own_pair, path):
    """Ready while inference serves, 503 when it says no, 503 when it is gone."""
    inference, edge = own_pair
    ready = await edge.get(path)
    await inference.set_serving("", False)
    refused = await edge.get(path)
    await inference.stop()
    gone = await edge.get(path)

    assert (ready.status_code, refused.status_code, gone.status_code) == (200, 503, 503)


async def test_health_in_detail(own_pair):
    """All up is ok; without the cache degraded and still 200."""
    inference, edge = own_pair
    ok = (await edge.get("/health/detailed")).json()
    await inference.set_serving("dependency/cache", False)
    degraded = await edge.get("/health/detailed")

    assert (ok["status"], ok["models"]["echo"]) == ("ok", "ready")
    assert ok["dependencies"]["inference"]["latency_ms"] > 0
    assert (degraded.status_code, degraded.json()["status"]) == (200, "degraded")
    assert degraded.json()["dependencies"]["cache"]["status"] == "down"


@pytest.mark.parametrize(
    ("needed", "status_code", "status"), [(True, 503, "down"), (False, 200, "degraded"), (None, 200, "degraded")]
)
async def test_health_in_detail_without_safety(own_pair, needed, status_code, status):
    """With safety away it is 503 where inference says that a model needs it, else degraded."""
    inference, edge = own_pair
    await inference.set_serving("dependency/safety", False)
    if needed is not None:
        await inference.set_serving("needs/safety", needed)
    answer = await edge.get("/health/detailed")

    assert (answer.status_code, answer.json()["status"]) == (status_code, status)
    assert answer.json()["dependencies"]["safety"] == {"status": "down", "needed": needed is True}
    assert answer.json()["dependencies"]["cache"] == {"status": "up", "needed": False}


@pytest.mark.parametrize("gone", [True, False], ids=["gone", "not serving"])
async def test_health_in_detail_without_inference(own_pair, gone):
    """Without inference it is 503, and of what is behind it nothing is known."""
    inference, edge = own_pair
    await (inference.stop() if gone else inference.set_serving("", False))
    answer = await edge.get("/health/detailed")
    states = {name: dependency["status"] for name, dependency in answer.json()["dependencies"].items()}

    assert (answer.status_code, answer.json()["status"]) == (503, "down")
    assert states == {"inference": "down", "cache": "unknown", "safety": "unknown", "database": "unknown"}


async def test_stats(edge):
    """Counters are those of inference, with the hit rate of requests that asked the cache."""
    body = (await edge.get("/stats")).json()

    assert (body["total_requests"], body["cache_hits"], body["cache_misses"], body["failed_requests"]) == (10, 3, 6, 1)
    assert (body["cache_hit_rate"], body["cost_usd"], body["tokens"]["total"]) == (0.3333, 0.0025, 150)
    assert (body["latency_ms"]["p50"], body["latency_ms"]["p95"], body["uptime_s"]) == (250.0, 2000.0, 60.0)
    assert body["models"]["echo"]["total_requests"] == 10
    assert body["source"] == "process"
    assert "total_api_keys" not in body


async def test_stats_of_targets(edge):
    """Each target says how it fares; what is not known, or does not apply, is absent."""
    down, well = (await edge.get("/stats")).json()["targets"]

    assert down == {
        "target": "fake-0", "model": "m", "breaker": "open", "running": 0, "waiting": 0, "calls": 7, "failures": 5,
        "retries": 2, "hedges": 0, "skipped": 9, "retry_after_ms": 30_000.0,
    }  # fmt: skip
    assert (well["breaker"], well["running"], well["waiting"], well["hedges"]) == ("closed", 3, 4, 1)
    assert (well["ttft_ms"], well["ttft_p95_ms"], "retry_after_ms" in well) == (250.0, 500.0, False)


async def test_metrics(own_pair):
    """Requests are counted by route template and status class; ids and unknown paths make no series."""
    _, edge = own_pair
    await edge.chat()
    await edge.get("/v1/models/org/model-with/slashes")
    await edge.get("/nowhere/at/all")
    text = (await edge.get("/metrics")).text

    assert 'millrace_edge_requests_total{method="POST",route="/v1/chat/completions",status="2xx"} 1.0' in text
    assert 'route="/v1/models/{model}",status="2xx"' in text
    assert 'route="other",status="4xx"' in text
    assert 'millrace_edge_generations_total{model="echo"} 1.0' in text
    assert "nowhere" not in text
