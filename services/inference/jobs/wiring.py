"""Where the parts of jobs meet."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from kit.cancelling import cancel_all
from kit.identity import Caller
from kit.serve import Registration
from millrace.inference.v1 import file_service_pb2, file_service_pb2_grpc, job_service_pb2, job_service_pb2_grpc
from services.inference.database.database import Database
from services.inference.embedding import Embeddings
from services.inference.jobs.file_servicer import FileServicer
from services.inference.jobs.file_store import FileStore
from services.inference.jobs.item_store import ItemStore
from services.inference.jobs.job_servicer import JobServicer
from services.inference.jobs.job_store import JobStore
from services.inference.jobs.job_wire import WireRunner
from services.inference.jobs.queue import LocalQueue, Queue
from services.inference.jobs.settings import JobSettings
from services.inference.jobs.worker import Workers
from services.inference.pipeline import Pipeline
from services.inference.routing.router import Router

DAY_S = 24 * 3600.0


class Jobs:
    """The services of jobs and files, and this process's workers."""

    def __init__(
        self,
        settings: JobSettings,
        database: Database,
        pipeline: Pipeline,
        embeddings: Embeddings,
        is_good: Callable[[Caller], bool],
        router: Router,
    ) -> None:
        items = ItemStore(database, settings.lease_s)
        self._queue = _queue(settings)
        self._workers = Workers(items, self._queue, WireRunner(pipeline, embeddings), settings, is_good)
        self._task: asyncio.Task[None] | None = None
        store = JobStore(database, settings.ttl_days * DAY_S, settings.pending_count_max)
        files = FileStore(database, settings.file_bytes_max)
        self.registrations = [
            Registration(
                job_service_pb2.DESCRIPTOR.services_by_name["JobService"].full_name,
                job_service_pb2_grpc.add_JobServiceServicer_to_server,
                JobServicer(store, self._queue, self._workers, router),
            ),
            Registration(
                file_service_pb2.DESCRIPTOR.services_by_name["FileService"].full_name,
                file_service_pb2_grpc.add_FileServiceServicer_to_server,
                FileServicer(files),
            ),
        ]

    def start(self, is_ready: asyncio.Event) -> None:
        """Begins to work as soon as the database's schema is the code's."""
        self._task = asyncio.create_task(self._run(is_ready))

    async def _run(self, is_ready: asyncio.Event) -> None:
        await is_ready.wait()
        await self._workers.run()

    async def close(self) -> None:
        """Gives back what is being done, for other processes or for later."""
        if self._task:
            await cancel_all({self._task})
        await self._queue.close()


def _queue(settings: JobSettings) -> Queue:
    url = settings.queue_url.get_secret_value()
    if not url:
        return LocalQueue()
    from services.inference.jobs.taskiq_queue import TaskiqQueue  # taskiq only where it is used

    return TaskiqQueue(url)
