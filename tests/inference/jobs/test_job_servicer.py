"""Jobs and files over gRPC, through the real inference service and a real upstream on a socket."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

from kit import identity
from kit.errors import Code, PermissionDenied
from kit.identity import CallContext, Caller
from kit.status import from_rpc_error
from millrace.inference.v1 import file_service_pb2, file_service_pb2_grpc, job_pb2, job_service_pb2_grpc
from millrace.inference.v1 import inference_service_pb2 as inference_pb2
from millrace.inference.v1 import job_service_pb2 as pb
from services.inference.jobs import job_servicer
from services.inference.jobs.settings import JobSettings
from tests.inference.suite import Serve, Suite, spec

DEADLINE_S = 20.0
AS_BOB = (("x-millrace-principal", "bob"),)


@pytest.fixture
async def suite(serve: Serve) -> Suite:
    """The service, with workers that look often."""
    return await serve(jobs=JobSettings(poll_s=0.05, concurrency=2))


def jobs(suite: Suite) -> Any:
    """JobService's stub."""
    return job_service_pb2_grpc.JobServiceStub(suite.channel)


def files(suite: Suite) -> Any:
    """FileService's stub."""
    return file_service_pb2_grpc.FileServiceStub(suite.channel)


def ask(text: str = "hi", label: str = "", model: str = "gpt") -> job_pb2.JobWork:
    """An item that asks for an answer."""
    return job_pb2.JobWork(label=label, generation=spec(model, text))


async def create(suite: Suite, *items: job_pb2.JobWork, request_id: str = "", **options: Any) -> job_pb2.Job:
    """An accepted job."""
    request = pb.CreateJobRequest(request_id=request_id, items=items, options=pb.JobOptions(**options))
    job: job_pb2.Job = (await jobs(suite).CreateJob(request, timeout=DEADLINE_S)).job
    return job


async def follow(suite: Suite, job: job_pb2.Job, after: int = 0) -> list[pb.StreamJobResponse]:
    """Every event until the job ends."""
    request = pb.StreamJobRequest(job_id=job.job_id, after_sequence=after)
    return [event async for event in jobs(suite).StreamJob(request, timeout=DEADLINE_S)]


async def items_of(suite: Suite, job: job_pb2.Job, **only: Any) -> list[job_pb2.JobItem]:
    """The items as they are."""
    request = pb.ReadJobRequest(job_id=job.job_id, **only)
    return [item async for page in jobs(suite).ReadJob(request, timeout=DEADLINE_S) for item in page.items]


async def refusal(call: Any) -> Any:
    """The error that a call ends with."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return from_rpc_error(caught.value)


async def test_a_job_answers_as_the_service_would(suite: Suite) -> None:
    """Answers, vectors and failures of one job, each with its label and what a direct call would have told."""
    vectors = job_pb2.JobWork(label="v", embedding=inference_pb2.EmbedRequest(model="vectors", texts=["a", "b"]))
    job = await create(suite, ask("hi", "a"), vectors, ask("hi", "x", model="nothing"), kind="batch", labels={"k": "v"})
    ended = (await follow(suite, job))[-1].ended_job
    answer, vector, failed = await items_of(suite, job)
    direct = await suite.generate(text="hi")

    assert (job.state, job.kind, dict(job.labels), job.item_count) == (job_pb2.JOB_STATE_QUEUED, "batch", {"k": "v"}, 3)
    assert (ended.state, ended.completed_item_count, ended.failed_item_count) == (job_pb2.JOB_STATE_COMPLETED, 2, 1)
    assert (answer.label, answer.answer.choices[0].text) == ("a", direct.choices[0].text)
    assert answer.answer.request_id == f"{job.job_id}.0"
    assert answer.answer.receipt.cost_micro_usd == direct.receipt.cost_micro_usd
    assert (vector.label, len(vector.vectors.embeddings)) == ("v", 2)
    assert (failed.label, failed.state, failed.error.code) == ("x", job_pb2.JOB_STATE_FAILED, Code.NOT_FOUND)
    assert ended.start_time.ToMilliseconds() <= ended.end_time.ToMilliseconds()


async def test_a_followed_job_tells_what_a_stream_would(suite: Suite) -> None:
    """The item's events are those of StreamGenerate, and can be taken up again anywhere."""
    job = await create(suite, ask(), keep_events=True)
    told = await follow(suite, job)
    steps = [event.event for event in told if event.HasField("event")]
    direct = await suite.stream()

    assert [event.sequence for event in told] == list(range(1, len(told) + 1))
    assert [step.WhichOneof("event") for step in steps] == [step.WhichOneof("event") for step in direct]
    assert "".join(step.delta.text for step in steps) == "".join(step.delta.text for step in direct)
    assert [event.WhichOneof("happened") for event in told[-2:]] == ["ended_item", "ended_job"]
    assert told[-2].ended_item.answer.choices[0].text == "".join(step.delta.text for step in steps)
    for after in (1, len(told) - 1, len(told)):
        assert await follow(suite, job, after) == told[after:]


async def test_a_call_that_is_repeated_makes_one_job(suite: Suite) -> None:
    """By its request id, which is the caller's own."""
    first, again = [await create(suite, ask(), request_id="mine") for _ in range(2)]
    request = pb.CreateJobRequest(request_id="mine", items=[ask()])
    others = (await jobs(suite).CreateJob(request, metadata=AS_BOB)).job

    assert again.job_id == first.job_id
    assert others.job_id != first.job_id


async def test_another_callers_job_is_not_there(suite: Suite) -> None:
    """Whatever is asked of it, and in no list."""
    job = await create(suite, ask())
    await follow(suite, job)
    stub = jobs(suite)
    calls = [
        stub.GetJob(pb.GetJobRequest(job_id=job.job_id), metadata=AS_BOB),
        stub.CancelJob(pb.CancelJobRequest(job_id=job.job_id), metadata=AS_BOB),
        stub.DeleteJob(pb.DeleteJobRequest(job_id=job.job_id), metadata=AS_BOB),
        anext(aiter(stub.ReadJob(pb.ReadJobRequest(job_id=job.job_id), metadata=AS_BOB))),
        anext(aiter(stub.StreamJob(pb.StreamJobRequest(job_id=job.job_id), metadata=AS_BOB))),
    ]

    assert {(await refusal(call)).reason for call in calls} == {"JOB_NOT_FOUND"}
    assert not (await stub.ListJobs(pb.ListJobsRequest(), metadata=AS_BOB)).jobs


async def test_many_items_come_in_pieces(suite: Suite) -> None:
    """An upload is one job, whole, in the order in which its items came."""

    async def pieces() -> AsyncIterator[pb.UploadJobRequest]:
        yield pb.UploadJobRequest(options=pb.JobOptions(kind="batch"))
        for start in range(0, 250, 50):
            yield pb.UploadJobRequest(items=[ask(label=str(start + index)) for index in range(50)])

    job = (await jobs(suite).UploadJob(pieces(), timeout=DEADLINE_S)).job
    ended = (await follow(suite, job))[-1].ended_job

    assert (ended.kind, ended.item_count, ended.completed_item_count) == ("batch", 250, 250)
    assert [item.label for item in await items_of(suite, job, start_index=120)] == [str(n) for n in range(120, 250)]


async def test_what_the_maker_refused_is_told_as_failed(suite: Suite) -> None:
    """An item that makes no sense takes its place in the job and stops no other."""
    error = inference_pb2.ItemError(code=3, message="no such field")
    job = await create(suite, job_pb2.JobWork(label="bad", refused=error), ask(label="good"))
    await follow(suite, job)
    failed = await items_of(suite, job, states=[job_pb2.JOB_STATE_FAILED])

    assert [(item.label, item.error) for item in failed] == [("bad", error)]


async def test_an_attachment_comes_back_with_its_item(suite: Suite) -> None:
    """Its maker's own bytes, whatever becomes of the item; engines never see them."""
    work = ask()
    work.attachment = b"\x00mine"
    job = await create(suite, work)
    await follow(suite, job)

    assert [item.attachment for item in await items_of(suite, job)] == [b"\x00mine"]


async def test_an_item_of_many_that_breaks_a_limit_fails_by_itself(suite: Suite) -> None:
    """It takes none of the others with it, and says which field it was."""

    async def pieces() -> AsyncIterator[pb.UploadJobRequest]:
        yield pb.UploadJobRequest(items=[ask(label="good"), ask("x" * 1_000_001, label="long")])

    job = (await jobs(suite).UploadJob(pieces(), timeout=DEADLINE_S)).job
    await follow(suite, job)
    good, long = await items_of(suite, job)

    assert good.HasField("answer")
    assert (long.label, long.state, long.error.code) == ("long", job_pb2.JOB_STATE_FAILED, Code.INVALID_ARGUMENT)
    assert long.error.message.startswith("spec.")


async def test_lists_go_from_the_newest_in_pages(suite: Suite) -> None:
    """Each page tells where the next begins."""
    made = [(await create(suite, ask())).job_id for _ in range(3)]
    first = await jobs(suite).ListJobs(pb.ListJobsRequest(page_size=2))
    second = await jobs(suite).ListJobs(pb.ListJobsRequest(page_size=2, page_token=first.next_page_token))

    assert [job.job_id for job in [*first.jobs, *second.jobs]] == made[::-1]
    assert not second.next_page_token


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (pb.CreateJobRequest(), "items"),
        (pb.CreateJobRequest(items=[job_pb2.JobWork()]), "items[0]"),
        (pb.CreateJobRequest(items=[ask(), ask(model="x" * 300)]), "items[1].generation.model"),
        (pb.CreateJobRequest(items=[ask(label="x" * 513)]), "items[0].label"),
        (pb.CreateJobRequest(items=[ask(label="\0")]), "items[0].label"),
        (pb.CreateJobRequest(items=[ask()], options=pb.JobOptions(kind="Batch!")), "options.kind"),
        (pb.CreateJobRequest(items=[ask()], options=pb.JobOptions(labels={"": "x"})), "options.labels"),
        (pb.CreateJobRequest(items=[ask()], options=pb.JobOptions(time_max=Duration(seconds=0))), "options.time_max"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_bad_jobs_are_refused_by_field(suite: Suite, request_: Any, field: str) -> None:
    """Nothing of them is kept."""
    error = await refusal(jobs(suite).CreateJob(request_))

    assert error.code is Code.INVALID_ARGUMENT
    assert error.message.startswith(f"{field}: ")
    assert not (await jobs(suite).ListJobs(pb.ListJobsRequest())).jobs


async def test_files_come_back_as_they_were_kept(suite: Suite) -> None:
    """Byte for byte, over more chunks than one, and only for their owner."""
    data = bytes(range(256)) * 10_000

    async def pieces() -> AsyncIterator[file_service_pb2.UploadFileRequest]:
        yield file_service_pb2.UploadFileRequest(filename="in.jsonl", purpose="batch", data=data[:100_000])
        for start in range(100_000, len(data), 500_000):
            yield file_service_pb2.UploadFileRequest(data=data[start : start + 500_000])

    kept = (await files(suite).UploadFile(pieces(), timeout=DEADLINE_S)).file
    asked = file_service_pb2.ReadFileRequest(file_id=kept.file_id)
    read = b"".join([piece.data async for piece in files(suite).ReadFile(asked)])
    listed = (await files(suite).ListFiles(file_service_pb2.ListFilesRequest(purpose="batch"))).files

    assert read == data
    assert (kept.filename, kept.size_bytes) == ("in.jsonl", len(data))
    assert list(listed) == [kept]
    others = files(suite).GetFile(file_service_pb2.GetFileRequest(file_id=kept.file_id), metadata=AS_BOB)
    assert (await refusal(others)).reason == "FILE_NOT_FOUND"
    await files(suite).DeleteFile(file_service_pb2.DeleteFileRequest(file_id=kept.file_id))
    gone = files(suite).GetFile(file_service_pb2.GetFileRequest(file_id=kept.file_id))
    assert (await refusal(gone)).reason == "FILE_NOT_FOUND"


async def test_a_file_that_is_too_large_is_not_kept(serve: Serve) -> None:
    """Its bound is told, and nothing of it stays."""
    suite = await serve(jobs=JobSettings(file_bytes_max=1_000_000))

    async def pieces() -> AsyncIterator[file_service_pb2.UploadFileRequest]:
        for _ in range(3):
            yield file_service_pb2.UploadFileRequest(filename="big", purpose="batch", data=b"x" * 500_000)

    error = await refusal(files(suite).UploadFile(pieces()))

    assert error.code is Code.INVALID_ARGUMENT
    assert "1000000 bytes" in error.message
    assert not (await files(suite).ListFiles(file_service_pb2.ListFilesRequest())).files


def test_a_job_may_ask_for_what_its_maker_may_call() -> None:
    """A key that reaches jobs alone makes none that generates: the scope of an endpoint holds behind a job too."""
    caller = Caller("anna", "acme", "user", key_id="k", endpoints=("jobs",))
    with identity.use(CallContext("r", "acme", "anna", caller=caller)), pytest.raises(PermissionDenied) as caught:
        job_servicer._new_item(ask(), 0)

    assert caught.value.reason == "ENDPOINT_NOT_ALLOWED"
