"""Between the contract's jobs and the nouns, and the one place that knows what an item's bytes mean.

An item's work is kept as the bytes of a JobWork, its result as those of a JobItem, a step as those of a
StreamGenerateResponse: a newer release reads what an older one has kept.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import aclosing

import msgspec
from google.protobuf.timestamp_pb2 import Timestamp

from kit import identity, status
from kit.errors import Code, Internal, MillraceError
from millrace.inference.v1 import inference_service_pb2, job_pb2, job_service_pb2
from services.inference import translate
from services.inference.embedding import Embeddings
from services.inference.events import Event, Receipt
from services.inference.generation import Prompt
from services.inference.jobs.job import Claim, Item, Job, JobEvent, Outcome, State
from services.inference.pipeline import Pipeline
from services.inference.request import Request

log = logging.getLogger(__name__)

PRIORITY = -50  # whoever waits for an answer goes first
BACKOFF_S = (0.5, 30.0)  # first and longest pause before another try, doubling, where the error does not say
FINAL_REASONS = frozenset({"BUDGET_EXCEEDED"})  # waiting would not help within any job's time


class WireRunner:
    """Does items through the pipeline, as InferenceService would."""

    def __init__(self, pipeline: Pipeline, embeddings: Embeddings) -> None:
        self._pipeline, self._embeddings = pipeline, embeddings

    async def run(self, claim: Claim, tell: Callable[[bytes], None] | None) -> Outcome:
        """Does an item and tells its steps; failures are outcomes."""
        work, call = job_pb2.JobWork.FromString(claim.work), identity.current()
        receipt = Receipt(call.request_id, work.generation.model or work.embedding.model)
        try:
            if work.HasField("embedding"):
                return _done(job_pb2.JobItem(vectors=await self._embed(work.embedding, receipt)))
            happened = await self._generate(work, tell, receipt)
            return _done(job_pb2.JobItem(answer=translate.generation(happened)))
        except MillraceError as error:
            return _failed(claim, error, receipt, is_awaited=work.awaited)
        except Exception:  # a bug met by one item must not stop the worker
            log.exception("an item of a job failed")
            bug = Internal("INTERNAL", "internal error; the log has it all")
            return _failed(claim, bug, receipt, is_awaited=work.awaited)

    async def _generate(
        self, work: job_pb2.JobWork, tell: Callable[[bytes], None] | None, receipt: Receipt
    ) -> list[Event]:
        call = identity.current()
        asked = translate.request(work.generation, call, call.request_id, streamed=tell is not None)
        if not work.awaited:
            asked = msgspec.structs.replace(asked, priority=min(asked.priority, PRIORITY))
        happened: list[Event] = []
        async with aclosing(self._pipeline.run(asked, receipt)) as batches:
            async for batch in batches:
                for event in batch:
                    happened.append(event)
                    if tell:
                        tell(translate.response(event, len(happened)).SerializeToString())
        return happened

    async def _embed(
        self, asked: inference_service_pb2.EmbedRequest, receipt: Receipt
    ) -> inference_service_pb2.EmbedResponse:
        call = identity.current()
        request = Request(
            call.request_id, call.tenant, asked.model, Prompt(streamed=False), call.deadline, caller=call.caller
        )
        dimension_count = asked.dimension_count if asked.HasField("dimension_count") else None
        done = await self._embeddings.embed(request, asked.texts, dimension_count, receipt)
        return inference_service_pb2.EmbedResponse(
            request_id=call.request_id,
            model=receipt.model,
            embeddings=[inference_service_pb2.Embedding(values=vector) for vector in done.vectors],
            usage=translate.usage(done.usage),
            receipt=translate.receipt(receipt),
        )

    def given_up(self, claim: Claim, reason: str, message: str) -> Outcome:
        """What came of an item that is not done to its end."""
        state = State.CANCELLED if reason == "CANCELLED" else State.FAILED
        code = Code.CANCELLED if state is State.CANCELLED else Code.ABORTED
        return Outcome(state, refused(MillraceError(code, reason, message)))


def _done(item: job_pb2.JobItem) -> Outcome:
    return Outcome(State.COMPLETED, item.SerializeToString())


def _failed(claim: Claim, error: MillraceError, receipt: Receipt, *, is_awaited: bool) -> Outcome:
    """What a failure comes to: another try where waiting helps, the end where it does not or somebody waits."""
    result = refused(error, receipt)
    if time.time() * 1000 >= claim.deadline_ms:
        return Outcome(State.EXPIRED, result)
    is_limited = error.code is Code.RESOURCE_EXHAUSTED and error.reason not in FINAL_REASONS
    if is_awaited or (not is_limited and error.code is not Code.UNAVAILABLE):
        return Outcome(State.FAILED, result)
    said_s = (error.retry_after_ms or 0) / 1000
    after_s = max(said_s, min(BACKOFF_S[0] * 2**claim.try_count, BACKOFF_S[1]))
    return Outcome(State.FAILED, result, retry_after_s=after_s, is_a_try=not is_limited)


def refused(error: MillraceError, receipt: Receipt | None = None) -> bytes:
    """The result of an item that has none but an error, with what was done for it."""
    full = status.to_proto(error)
    said = inference_service_pb2.ItemError(code=full.code, message=full.message, details=full.details)
    done = translate.receipt(receipt) if receipt else None
    return job_pb2.JobItem(error=said, receipt=done).SerializeToString()


def job(made: Job) -> job_pb2.Job:
    """Job."""
    return job_pb2.Job(
        job_id=made.job_id,
        state=int(made.state),  # type: ignore[arg-type]
        item_count=made.item_count,
        completed_item_count=made.completed_count,
        failed_item_count=made.failed_count,
        kind=made.kind,
        labels=made.labels,
        created_time=timestamp(made.created_ms),
        start_time=timestamp(made.started_ms),
        end_time=timestamp(made.ended_ms),
        deadline_time=timestamp(made.deadline_ms),
        expire_time=timestamp(made.expire_ms),
        cancel_time=timestamp(made.cancel_ms),
    )


def item(kept: Item) -> job_pb2.JobItem:
    """JobItem."""
    message = job_pb2.JobItem.FromString(kept.result or b"")
    message.index, message.label, message.attachment = kept.index, kept.label, kept.attachment
    message.state = int(kept.state)  # type: ignore[assignment]
    return message


def step(event: JobEvent) -> job_service_pb2.StreamJobResponse:
    """StreamJobResponse, of a step of an item."""
    assert event.index is not None
    assert event.payload is not None
    told = inference_service_pb2.StreamGenerateResponse.FromString(event.payload)
    return job_service_pb2.StreamJobResponse(sequence=event.sequence, item_index=event.index, event=told)


def timestamp(time_ms: int | None) -> Timestamp | None:
    """Milliseconds since the epoch as a Timestamp."""
    return None if time_ms is None else Timestamp(seconds=time_ms // 1000, nanos=time_ms % 1000 * 1_000_000)
