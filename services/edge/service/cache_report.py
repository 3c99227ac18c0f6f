"""POST /v1/cache/report: an answer from the cache that did not fit."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from millrace.inference.v1 import inference_service_pb2 as pb
from services.edge.exchange import Exchange
from services.edge.inference_client import InferenceClient


class CacheReport(Struct, forbid_unknown_fields=True):
    """Which entry did not fit: `millrace.cache.entry_id` of the answer.

    With `text`, the last user turn of what was asked, the cache also learns that the two differ in meaning. `user` is
    the one of the request, where answers are kept per user.
    """

    entry_id: Annotated[str, Meta(min_length=1, max_length=256)]
    text: Annotated[str, Meta(max_length=32_768)] | None = None
    user: Annotated[str, Meta(max_length=256)] | None = None


class CacheReported(Struct):
    """Whether the entry was there, and is gone now."""

    request_id: str
    removed: bool


class CacheReportEndpoint:
    """Takes reports of wrong answers."""

    def __init__(self, inference: InferenceClient) -> None:
        self._inference = inference

    async def report(self, exchange: Exchange, body: CacheReport) -> CacheReported:
        """POST /v1/cache/report."""
        request = pb.ReportFalseHitRequest(entry_id=body.entry_id, text=body.text, end_user_id=body.user)
        return CacheReported(exchange.request_id, await self._inference.report_false_hit(exchange, request))
