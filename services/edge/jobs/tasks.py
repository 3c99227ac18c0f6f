"""POST /chat-async and what becomes of it: one message, answered while its sender does something else."""

from __future__ import annotations

from typing import Literal

from msgspec import UNSET, Struct, UnsetType

from millrace.inference.v1 import job_pb2, job_service_pb2
from services.edge.batch_item import error_of_item
from services.edge.controls import apply_controls
from services.edge.exchange import Exchange
from services.edge.fault import Fault
from services.edge.jobs.job_client import JobClient
from services.edge.openai.spec import one_message_spec
from services.edge.service.bodies import Chat

KIND = "chat"
Status = Literal["pending", "processing", "completed", "failed", "cancelled"]

_STATUS: dict[int, Status] = {
    job_pb2.JOB_STATE_QUEUED: "pending",
    job_pb2.JOB_STATE_RUNNING: "processing",
    job_pb2.JOB_STATE_COMPLETED: "completed",
    job_pb2.JOB_STATE_FAILED: "failed",
    job_pb2.JOB_STATE_CANCELLED: "cancelled",
    job_pb2.JOB_STATE_EXPIRED: "failed",
}


class TaskError(Struct):
    """Why there is no answer."""

    code: str
    message: str


class Task(Struct):
    """A message on its way to an answer; times in seconds since the epoch."""

    task_id: str
    status: Status
    created_at: float
    completed_at: float | UnsetType = UNSET
    session_id: str | UnsetType = UNSET
    response: str | UnsetType = UNSET
    model_used: str | UnsetType = UNSET
    tokens_used: int | UnsetType = UNSET
    error: TaskError | UnsetType = UNSET


class TaskEndpoints:
    """Takes messages and tells what has become of them."""

    def __init__(self, inference: JobClient, default_model: str) -> None:
        self._inference, self._default_model = inference, default_model

    async def start(self, exchange: Exchange, body: Chat) -> Task:
        """POST /chat-async."""
        spec = one_message_spec(body.model or self._default_model, body.message)
        if body.temperature is not None:
            spec.sampling.temperature = body.temperature
        spec.session_id = body.session_id or ""
        work = job_pb2.JobWork(label=spec.session_id, generation=apply_controls(exchange, spec))
        return _task(await self._inference.create_job(exchange, work, job_service_pb2.JobOptions(kind=KIND)))

    async def status(self, exchange: Exchange, _: None) -> Task:
        """GET /chat-status/{task_id}."""
        job = await self._job(exchange)
        item = await self._inference.first_item(exchange, job.job_id)
        task = _task(job)
        task.status = _STATUS[item.state]
        task.session_id = item.label or UNSET
        if item.HasField("answer"):
            answer = item.answer
            task.response = answer.choices[0].text or answer.choices[0].refusal
            task.model_used = answer.model
            task.tokens_used = answer.usage.prompt_token_count + answer.usage.completion_token_count
        elif item.HasField("error"):
            error = Fault.of(error_of_item(item.error), route="/chat-async")
            task.error = TaskError(error.code or "failed", error.message)
        elif task.status == "failed":
            task.error = TaskError("expired", "The task's time was over before it could begin.")
        return task

    async def cancel(self, exchange: Exchange, _: None) -> Task:
        """DELETE /chat-status/{task_id}: cancels a task that has not ended; what has ended stays as it is."""
        job = await self._job(exchange)
        await self._inference.cancel_job(exchange, job.job_id)
        return await self.status(exchange, None)

    async def _job(self, exchange: Exchange) -> job_pb2.Job:
        return await self._inference.job(exchange, exchange.params["task_id"], KIND, "task")


def _task(job: job_pb2.Job) -> Task:
    task = Task(job.job_id, _STATUS[job.state], job.created_time.ToMilliseconds() / 1000)
    if job.HasField("end_time"):
        task.completed_at = job.end_time.ToMilliseconds() / 1000
    return task
