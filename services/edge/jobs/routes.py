"""The routes of work that outlives its request."""

from __future__ import annotations

from services.edge.jobs import batches, files, tasks
from services.edge.jobs.batches import BatchEndpoints
from services.edge.jobs.files import FileEndpoints
from services.edge.jobs.tasks import TaskEndpoints
from services.edge.routes import Route
from services.edge.service.bodies import Chat

FORM = {
    "type": "object",
    "required": ["file", "purpose"],
    "properties": {
        "file": {"type": "string", "format": "binary"},
        "purpose": {"type": "string", "enum": list(files.PURPOSES)},
        "expires_after[anchor]": {"type": "string", "const": "created_at"},
        "expires_after[seconds]": {"type": "integer", "minimum": 3600, "maximum": 2_592_000},
    },
}


def task_routes(ends: TaskEndpoints) -> list[Route]:
    """Tasks."""
    return [
        Route("POST", "/chat-async", ends.start, "Send one message, to be answered later.", "Plain",
              body=Chat, answer=tasks.Task, explains=True),
        _task("GET", ends.status, "What has become of a message."),
        _task("DELETE", ends.cancel, "Cancel a message."),
    ]  # fmt: skip


def _task(method: str, handle: object, summary: str) -> Route:
    return Route(method, "/chat-status/{task_id}", handle, summary, "Plain", answer=tasks.Task, explains=True)  # type: ignore[arg-type]


def file_routes(ends: FileEndpoints) -> list[Route]:
    """Files."""
    one = "/v1/files/{file_id}"
    return [
        Route("POST", "/v1/files", ends.upload, "Keep a file.", "OpenAI", answer=files.FileObject, form=FORM),
        Route("GET", "/v1/files", ends.list, "List files.", "OpenAI", answer=files.FileList, query=files.FileQuery),
        Route("GET", one, ends.get, "What is known of a file.", "OpenAI", answer=files.FileObject),
        Route("DELETE", one, ends.delete, "Forget a file.", "OpenAI", answer=files.Deleted),
        Route("GET", f"{one}/content", ends.content, "Read a file.", "OpenAI", text="application/octet-stream"),
    ]


def batch_routes(ends: BatchEndpoints) -> list[Route]:
    """Batches."""
    one = "/v1/batches/{batch_id}"
    return [
        Route("POST", "/v1/batches", ends.create, "Answer a file of requests within a day.", "OpenAI",
              body=batches.NewBatch, answer=batches.Batch, refused=batches.REFUSED),
        Route("GET", "/v1/batches", ends.list, "List batches.", "OpenAI",
              answer=batches.BatchList, query=batches.BatchQuery),
        Route("GET", one, ends.get, "How far a batch is.", "OpenAI", answer=batches.Batch),
        Route("POST", f"{one}/cancel", ends.cancel, "Cancel a batch.", "OpenAI", answer=batches.Batch),
    ]  # fmt: skip
