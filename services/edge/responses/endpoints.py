"""OpenAI's /v1/responses. What is kept is a job of one item; what is not goes straight through."""

from __future__ import annotations

import asyncio
from contextlib import aclosing, suppress
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Raw, Struct

from kit.errors import PermissionDenied
from millrace.inference.v1 import generation_pb2, job_pb2, job_service_pb2
from services.edge import provenance, query
from services.edge.batch_item import error_of_item
from services.edge.controls import apply_controls
from services.edge.exchange import Disconnected, Exchange
from services.edge.fault import Fault
from services.edge.jobs.files import Deleted
from services.edge.jobs.identifiers import RESPONSE, bare
from services.edge.jobs.job_client import JobClient
from services.edge.relay import relay
from services.edge.responses import answer, kept
from services.edge.responses.answer import OutputItem, Response
from services.edge.responses.frames import RelayedFrames, ResponseFrames
from services.edge.responses.request import ResponseRequest, generation_spec, input_items

KIND = "response"
ROUTE = "/v1/responses"
_STATUS: dict[int, answer.Status] = {
    job_pb2.JOB_STATE_QUEUED: "queued",
    job_pb2.JOB_STATE_RUNNING: "in_progress",
    job_pb2.JOB_STATE_CANCELLED: "cancelled",
}
CANCEL_S = 4.0  # another replica learns of it when it renews its lease, after three seconds
_NO_JOBS = frozenset({"ROLE_NOT_ALLOWED", "ENDPOINT_NOT_ALLOWED"})
# Steps of an answer of which nothing has come yet.
_BEFORE = frozenset({"started", "attempt", "cache", "safety"})


class ResponseQuery(Struct, forbid_unknown_fields=True):
    """How a kept response is wanted; `starting_after` is the number of the last event that the client has."""

    stream: Literal["true", "false"] = "false"
    starting_after: Annotated[int, Meta(ge=0)] | None = None
    include_obfuscation: Literal["true", "false"] = "false"


class InputQuery(Struct, forbid_unknown_fields=True):
    """Which items of a response's input to list."""

    limit: Annotated[int, Meta(ge=1, le=100)] = 20
    after: Annotated[str, Meta(max_length=256)] = ""
    order: Literal["asc", "desc"] = "desc"


class InputList(Struct):
    """Items of a response's own input, last first unless asked otherwise; `after` the last of them goes on."""

    data: list[Any]
    first_id: str | None
    last_id: str | None
    has_more: bool
    object: Literal["list"] = "list"


class InputTokens(Struct):
    """How many tokens of the model a request's input is, with its instructions and tools."""

    input_tokens: int
    object: Literal["response.input_tokens"] = "response.input_tokens"


class ResponseEndpoints:
    """Makes responses, and tells of those that are kept.

    Args:
        inference: Makes and keeps them.
        keeps: Whether a response is kept that does not say.
    """

    def __init__(self, inference: JobClient, keeps: bool) -> None:
        self._inference, self._keeps = inference, keeps

    async def create(self, exchange: Exchange, body: ResponseRequest) -> Response | None:
        """POST /v1/responses."""
        if body.background and body.store is False:
            raise Fault.invalid("What is made in the background is kept: leave it out, or say true.", "store")
        items, before = input_items(body), await self._before(exchange, body.previous_response_id)
        asked = apply_controls(exchange, generation_spec(body, [*before, *items]))
        if body.is_kept(self._keeps):
            try:
                return await self._keep(exchange, body, asked, items, before)
            except PermissionDenied as error:
                # A caller that may have nothing kept gets its answer all the same, unless it asks for it to be kept.
                if error.reason not in _NO_JOBS:
                    raise
                if body.background or body.store:
                    message = f"{error.message}. Without `background`, and with `store` false, it is answered"
                    raise PermissionDenied(error.reason, message) from error
        response = answer.begun(body, exchange.request_id, is_kept=False)
        if body.stream:
            await relay(exchange, self._inference, asked, RelayedFrames(response))
            return None
        generation = await self._inference.generate(exchange, asked)
        provenance.set_all(exchange, generation)
        return answer.answered(response, generation)

    async def count_input(self, exchange: Exchange, body: ResponseRequest) -> InputTokens:
        """POST /v1/responses/input_tokens; what says how to answer does not count."""
        items, before = input_items(body), await self._before(exchange, body.previous_response_id)
        spec = generation_spec(body, [*before, *items])
        return InputTokens(await self._inference.count_tokens(exchange, spec))

    async def _before(self, exchange: Exchange, previous: str | None) -> list[Raw]:
        """The conversation that a response continues."""
        if previous is None:
            return []
        place = "previous_response_id"
        item = await self._item(exchange, bare(previous, RESPONSE, "response", place), place)
        if not item.HasField("answer"):
            raise Fault.invalid("The response is not complete.", place)
        had = kept.unpack(item)
        output = answer.answered(had.response, item.answer).output
        return [*had.before, *had.input, *(Raw(msgspec.json.encode(_sent_back(one))) for one in output)]

    async def _keep(
        self, exchange: Exchange, body: ResponseRequest, asked: generation_pb2.GenerationSpec,
        items: list[Raw], before: list[Raw],
    ) -> Response | None:  # fmt: skip
        """Has a job make the answer; whoever does not ask for it in the background waits for its end.

        It ends with its client then, as OpenAI's do: an answer that nobody hears is not paid for.
        """
        packed = kept.pack(body, items, before)
        work = job_pb2.JobWork(generation=asked, attachment=packed, awaited=not body.background)
        options = job_service_pb2.JobOptions(kind=KIND, keep_events=True)
        job = await self._inference.create_job(exchange, work, options)
        try:
            if body.stream:
                await self._follow(exchange, job.job_id, -1, has_begun=bool(body.background))
                return None
            if not body.background:
                item = await self._wait(exchange, job.job_id)
                return _as_it_stands(item, job.job_id) if item else await self._response(exchange, job.job_id)
        except Disconnected:
            if not body.background:
                await self._inference.abandon_job(exchange, job.job_id)
            raise
        return await self._response(exchange, job.job_id)

    async def _wait(self, exchange: Exchange, job_id: str) -> job_pb2.JobItem | None:
        """Waits for the end of a response, and raises what it failed with; None where it was cancelled unbegun."""
        ended = None
        async with aclosing(self._inference.follow_job(exchange, job_id)) as events:
            async for event in events:
                if event.HasField("ended_item"):
                    ended = event.ended_item
        if ended is not None:
            _raise_failure(exchange, ended)
            provenance.set_all(exchange, ended.answer)
        return ended

    async def get(self, exchange: Exchange, _: None) -> Response | None:
        """GET /v1/responses/{response_id}; with `stream=true` as events, from `starting_after` on."""
        job_id = self._id(exchange)
        asked = query.read(exchange, ResponseQuery)
        if asked.stream == "true":
            await self._follow(exchange, job_id, -1 if asked.starting_after is None else asked.starting_after)
            return None
        return await self._response(exchange, job_id)

    async def cancel(self, exchange: Exchange, _: None) -> Response:
        """POST /v1/responses/{response_id}/cancel: answers with what has become of it, as OpenAI does."""
        job_id = self._id(exchange)
        await self._item(exchange, job_id)
        await self._inference.cancel_job(exchange, job_id)
        with suppress(TimeoutError):
            async with asyncio.timeout(CANCEL_S), aclosing(self._inference.follow_job(exchange, job_id)) as events:
                async for _event in events:
                    pass
        return await self._response(exchange, job_id)

    async def delete(self, exchange: Exchange, _: None) -> Deleted:
        """DELETE /v1/responses/{response_id}."""
        job_id = self._id(exchange)
        await self._item(exchange, job_id)
        await self._inference.delete_job(exchange, job_id)
        return Deleted(RESPONSE + job_id, "response")

    async def list_input(self, exchange: Exchange, _: None) -> InputList:
        """GET /v1/responses/{response_id}/input_items."""
        job_id = self._id(exchange)
        had = kept.unpack(await self._item(exchange, job_id))
        items = [_named(msgspec.json.decode(raw), f"{job_id}_in{index}") for index, raw in enumerate(had.input)]
        return _page(items, query.read(exchange, InputQuery))

    async def _follow(self, exchange: Exchange, job_id: str, after: int, *, has_begun: bool = True) -> None:
        """Tells a kept response's events; each number always has the same event.

        Args:
            exchange: Who is told.
            job_id: The response.
            after: Number of the last event that is known already.
            has_begun: Whether the stream begins at once; else with the answer, for what fails before it is a status.
        """
        item = await self._item(exchange, job_id)
        frames, made = ResponseFrames(kept.begun(item, job_id, "queued"), after), set[int]()
        exchange.expect_stream(frames.failed)
        async with aclosing(self._inference.follow_job(exchange, job_id)) as events:
            told = frames.queue()
            if has_begun:
                await exchange.start_stream()
                await exchange.write(told)
                told = b""
            async for event in events:
                if not has_begun:
                    _raise_failure(exchange, event.ended_item)
                told += _told(frames, event)
                if not has_begun:
                    provenance.set_step(exchange, event.event, made)
                    if event.event.WhichOneof("event") in _BEFORE:
                        continue
                    await exchange.start_stream()
                    has_begun = True
                if told:
                    await exchange.write(told)
                    told = b""
        await exchange.end_stream(b"")

    async def _response(self, exchange: Exchange, job_id: str) -> Response:
        return _as_it_stands(await self._item(exchange, job_id), job_id)

    async def _item(self, exchange: Exchange, job_id: str, param: str = "") -> job_pb2.JobItem:
        await self._inference.job(exchange, job_id, KIND, "response", param)
        return await self._inference.first_item(exchange, job_id)

    def _id(self, exchange: Exchange) -> str:
        return bare(exchange.params["response_id"], RESPONSE, "response")


def _as_it_stands(item: job_pb2.JobItem, job_id: str) -> Response:
    """The response of an item, as far as it has come."""
    response = kept.begun(item, job_id, _STATUS.get(item.state, "failed"))
    if item.HasField("answer"):
        return answer.answered(response, item.answer)
    if item.HasField("error") and response.status == "failed":
        return answer.failed(response, Fault.of(error_of_item(item.error), route=ROUTE))
    return response


def _raise_failure(exchange: Exchange, item: job_pb2.JobItem) -> None:
    """Raises what an item failed with, with the headers of any call that fails so."""
    if item.HasField("error"):
        provenance.set_failed(exchange, item.receipt)
        raise error_of_item(item.error)


def _told(frames: ResponseFrames, happened: job_service_pb2.StreamJobResponse) -> bytes:
    """The bytes for one event of the job."""
    if happened.HasField("ended_item"):
        item = happened.ended_item
        if item.state == job_pb2.JOB_STATE_CANCELLED:
            return frames.cancelled()
        return frames.failed(Fault.of(error_of_item(item.error), route=ROUTE)) if item.HasField("error") else b""
    event = happened.event
    kind = event.WhichOneof("event")
    if kind == "started":
        return frames.open(event.started)
    if kind == "delta":
        return frames.delta(event.delta)
    if kind == "choice_finished":
        return frames.finished(event.choice_finished)
    return frames.completed(event.completed) if kind == "completed" else b""


def _sent_back(item: OutputItem) -> object:
    """An item of an answer as the input of the next one."""
    return {key: value for key, value in msgspec.to_builtins(item).items() if key != "logprobs"}


def _page(items: list[dict[str, Any]], asked: InputQuery) -> InputList:
    """The items that are asked for, of all in the order in which they came.

    Raises:
        Fault: 400, none of them is the one behind which the page begins.
    """
    if asked.order == "desc":
        items = items[::-1]
    # Its maker may have given an id twice: pages must come to an end all the same.
    start = max([number for number, item in enumerate(items, 1) if item["id"] == asked.after], default=0)
    if asked.after and not start:
        raise Fault.invalid("The input has no such item.", "after")
    data = items[start : start + asked.limit]
    first, last = (data[0]["id"], data[-1]["id"]) if data else (None, None)
    return InputList(data, first, last, start + asked.limit < len(items))


def _named(item: dict[str, Any], name: str) -> dict[str, Any]:
    """An item of the input with an id and in OpenAI's long form."""
    if isinstance(item.get("content"), str):
        kind = "output_text" if item.get("role") == "assistant" else "input_text"
        item["content"] = [{"type": kind, "text": item["content"]}]
    return {"type": "message", **item, "id": item.get("id") or f"msg_{name}", "status": "completed"}
