"""Jobs outlive the processes that do them: killed, restarted, and shared by replicas on PostgreSQL and Redis."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

from kit.dial import dial
from millrace.inference.v1 import generation_pb2, job_pb2, job_service_pb2_grpc
from millrace.inference.v1 import job_service_pb2 as pb
from tests.fakes.redis_server import RedisServer
from tests.flow.conftest import Suite
from tests.flow.replicas import ServiceProcess
from tests.flow.upstream import Upstream
from tests.inference.jobs.parts import eventually
from tests.inference.postgres import PostgresServer

pytestmark = pytest.mark.asyncio(loop_scope="module")

UNSCREENED = """
version: 1
upstreams: {{fake: {{base_url: "{url}"}}}}
models: [{{name: fake-slow, targets: [{{engine: openai, upstream: fake, model: fake-slow}}]}}]
defaults: {{safety: {{profile: "off"}}}}
"""
DEADLINE_S = 90.0
COUNT = 12


@pytest.fixture(scope="module")
def variables() -> dict[str, str]:
    """Short leases, so that what a dead process did is begun anew soon."""
    return {"MILLRACE_INFERENCE_JOBS_LEASE_S": "2", "MILLRACE_INFERENCE_JOBS_POLL_S": "0.2"}


def work(label: str, model: str = "fake-slow") -> job_pb2.JobWork:
    """An item that takes a second."""
    message = generation_pb2.Message(
        role=generation_pb2.ROLE_USER, parts=[generation_pb2.ContentPart(text=f"question {label}")]
    )
    spec = generation_pb2.GenerationSpec(model=model, conversation=generation_pb2.Conversation(messages=[message]))
    return job_pb2.JobWork(label=label, generation=spec)


async def begun(upstream: Upstream, count: int) -> None:
    """Waits until the upstream has been asked so often."""
    async with asyncio.timeout(DEADLINE_S):
        while True:
            if len(upstream.requests) >= count:
                return
            await asyncio.sleep(0.02)


async def test_a_batch_survives_its_service(suite: Suite, upstream: Upstream) -> None:
    """Inference is killed twice in the middle; every request has one answer, and what was done is not done again."""
    message = [{"role": "user", "content": "hi"}]
    lines = [
        {"custom_id": f"r{n}", "method": "POST", "url": "/v1/chat/completions",
         "body": {"model": "fake-slow", "messages": message, "seed": n}}
        for n in range(COUNT)
    ]  # fmt: skip
    data = "\n".join(json.dumps(line) for line in lines)
    upstream.requests.clear()
    async with httpx.AsyncClient(base_url=suite.url, timeout=30, trust_env=False) as http:
        kept = (await http.post("/v1/files", data={"purpose": "batch"}, files={"file": data.encode()})).json()
        body = {"input_file_id": kept["id"], "endpoint": "/v1/chat/completions", "completion_window": "24h"}
        batch = (await http.post("/v1/batches", json=body)).json()
        for count in (6, 12):
            await begun(upstream, count)
            await suite.kill("inference")
            await suite.start("inference")
        async with asyncio.timeout(DEADLINE_S):
            while batch["status"] != "completed":
                await asyncio.sleep(0.2)
                batch = (await http.get(f"/v1/batches/{batch['id']}")).raise_for_status().json()
        answers = (await http.get(f"/v1/files/{batch['output_file_id']}/content")).text.splitlines()

    assert batch["request_counts"] == {"total": COUNT, "completed": COUNT, "failed": 0}
    assert sorted(json.loads(line)["custom_id"] for line in answers) == sorted(f"r{n}" for n in range(COUNT))
    assert len(upstream.requests) <= COUNT + 2 * 4  # at most what ran at each kill was begun anew


async def test_a_response_that_was_begun_anew_is_told_once_in_the_end(suite: Suite, upstream: Upstream) -> None:
    """Inference is killed in the middle of an answer: the broken try stays told, and the last event is what is read."""
    body = {"model": "fake-slow", "input": "hi", "background": True}
    async with httpx.AsyncClient(base_url=suite.url, timeout=30, trust_env=False) as http:
        made = (await http.post("/v1/responses", json=body)).json()
        path = f"/v1/responses/{made['id']}"
        async with http.stream("GET", path, params={"stream": "true"}) as stream:
            async for line in stream.aiter_lines():
                if "output_text.delta" in line:
                    break
        await suite.kill("inference")
        await suite.start("inference")

        async def look() -> Any:
            now = (await http.get(path)).raise_for_status().json()
            return now if now["status"] == "completed" else None

        read = await eventually(look)
        told = (await http.get(path, params={"stream": "true"})).text
    events = [json.loads(line.removeprefix("data: ")) for line in told.splitlines() if line.startswith("data: ")]
    done = [event["item"]["status"] for event in events if event["type"] == "response.output_item.done"]

    assert done == ["incomplete", "completed"]
    assert events[-1]["type"] == "response.completed"
    assert events[-1]["response"] == read
    assert [item["content"][0]["text"] for item in read["output"]] == ["The quick brown fox jumps over the lazy dog."]


@pytest.fixture(scope="module")
def postgres() -> Iterator[PostgresServer]:
    """A real PostgreSQL."""
    server = PostgresServer()
    yield server
    server.close()


@pytest_asyncio.fixture(loop_scope="module")
async def replicas(tmp_path: Path, upstream: Upstream, postgres: PostgresServer) -> AsyncIterator[list[ServiceProcess]]:
    """Three replicas of inference on one PostgreSQL and one Redis."""
    redis = RedisServer(tmp_path)
    (tmp_path / "models.yaml").write_text(UNSCREENED.format(url=upstream.url))
    settings: dict[str, Any] = {
        "database_url": postgres.create_database(), "database_migrate": "true", "jobs_queue_url": redis.url,
        "jobs_lease_s": 2, "jobs_poll_s": 30, "jobs_concurrency": 2, "cache_target": "none", "safety_target": "none",
        "models_file": tmp_path / "models.yaml", "access_pepper_path": tmp_path / "pepper",
    }  # fmt: skip
    made = [
        ServiceProcess(tmp_path, "inference", f"inference-{n}", ledger_folder=tmp_path / f"ledger-{n}", **settings)
        for n in range(3)
    ]
    async with AsyncExitStack() as stack:
        stack.callback(redis.kill)
        for one in made:
            stack.push_async_callback(one.kill)
            await one.start()
        yield made


async def test_replicas_share_a_job_and_outlive_one(replicas: list[ServiceProcess], upstream: Upstream) -> None:
    """Any of them takes it, tells of it and cancels it; one that dies is done without."""
    async with AsyncExitStack() as stack:
        channels = [await stack.enter_async_context(dial(one.address)) for one in replicas]
        stubs: list[Any] = [job_service_pb2_grpc.JobServiceStub(channel) for channel in channels]
        await asyncio.gather(*(stub.ListJobs(pb.ListJobsRequest(), timeout=60, wait_for_ready=True) for stub in stubs))
        upstream.requests.clear()
        request = pb.CreateJobRequest(items=[work(f"i{n}") for n in range(COUNT)])
        job = (await stubs[0].CreateJob(request, timeout=30)).job
        await begun(upstream, 6)  # two at each: none of them looks for work by itself so soon
        await replicas[0].kill()
        follow = stubs[1].StreamJob(pb.StreamJobRequest(job_id=job.job_id), timeout=DEADLINE_S)
        told = [event async for event in follow]
        read = stubs[2].ReadJob(pb.ReadJobRequest(job_id=job.job_id), timeout=30)
        items = [item async for page in read for item in page.items]

    assert told[-1].ended_job.completed_item_count == COUNT
    assert sorted(event.item_index for event in told[:-1]) == list(range(COUNT))
    assert {item.answer.choices[0].text for item in items} == {"The quick brown fox jumps over the lazy dog."}
