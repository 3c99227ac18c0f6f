"""/chat-async: a message is taken, answered later, and can be asked after by its sender alone."""

from __future__ import annotations

import httpx

from tests.fakes.openai_upstream import OpenAIUpstream, Reply
from tests.inference.jobs.parts import eventually


async def ended(http: httpx.AsyncClient, task_id: str) -> dict:
    """The task once it has ended."""

    async def look() -> dict | None:
        task = (await http.get(f"/chat-status/{task_id}")).raise_for_status().json()
        return task if task["status"] not in ("pending", "processing") else None

    return await eventually(look)


async def test_a_message_is_answered_later(http: httpx.AsyncClient) -> None:
    """The answer is told with its model and tokens, and the session that it was sent under."""
    started = (await http.post("/chat-async", json={"message": "hi", "session_id": "s1"})).json()
    task = await ended(http, started["task_id"])

    assert started["status"] == "pending"
    assert (task["status"], task["response"], task["session_id"]) == ("completed", "Hello, world!", "s1")
    assert (task["model_used"], task["tokens_used"]) == ("gpt", 15)
    assert task["completed_at"] >= task["created_at"]


async def test_a_failure_is_told(http: httpx.AsyncClient, upstream: OpenAIUpstream) -> None:
    """With the code that the same message would have failed with at once; what could never be done, at once."""
    upstream.replies["gpt"] = Reply(status=400)
    started = (await http.post("/chat-async", json={"message": "hi"})).json()
    task = await ended(http, started["task_id"])
    unknown = await http.post("/chat-async", json={"message": "hi", "model": "nothing"})

    assert (task["status"], task["error"]["code"]) == ("failed", "upstream_bad_request")
    assert (unknown.status_code, unknown.json()["error"]["code"]) == (404, "model_not_found")


async def test_a_task_can_be_cancelled(http: httpx.AsyncClient, upstream: OpenAIUpstream) -> None:
    """What has not ended ends; the upstream's work with it."""
    upstream.replies["gpt"] = Reply(stall_after=1)
    started = (await http.post("/chat-async", json={"message": "hi"})).json()
    await upstream.next()
    await http.delete(f"/chat-status/{started['task_id']}")
    task = await ended(http, started["task_id"])

    assert task["status"] == "cancelled"


async def test_what_is_no_task_is_404(http: httpx.AsyncClient) -> None:
    """In the error envelope, whatever was asked for."""
    answer = await http.get("/chat-status/nothing")

    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["param"]) == (404, "task_not_found", "task_id")


async def test_a_bad_label_is_named_as_the_body_does(http: httpx.AsyncClient) -> None:
    """And not as a job's item has it."""
    answer = await http.post("/chat-async", json={"message": "hi", "session_id": "\0"})

    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "session_id")
