"""GET /v1/limits: the limits of whoever asks, and how much is left of each."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

from millrace.inference.v1 import event_pb2 as pb
from services.edge.exchange import Exchange
from services.edge.inference_client import InferenceClient

_UNITS: dict[int, Literal["requests", "tokens", "usd"]] = {
    pb.LIMIT_UNIT_REQUESTS: "requests",
    pb.LIMIT_UNIT_TOKENS: "tokens",
    pb.LIMIT_UNIT_MICRO_USD: "usd",
}
_WINDOWS: dict[int, Literal["at_once", "minute", "day", "month"]] = {
    pb.LIMIT_WINDOW_AT_ONCE: "at_once",
    pb.LIMIT_WINDOW_MINUTE: "minute",
    pb.LIMIT_WINDOW_DAY: "day",
    pb.LIMIT_WINDOW_MONTH: "month",
}


class StandingLimit(Struct):
    """One limit; `limit` and `remaining` are in its unit."""

    name: Annotated[str, Meta(description="As errors name it: `user_requests_per_minute`.")]
    unit: Literal["requests", "tokens", "usd"]
    window: Literal["at_once", "minute", "day", "month"]
    limit: Annotated[float, Meta(description="Most that can be taken in one go.")]
    remaining: float
    reset_s: Annotated[float, Meta(description="Until it is whole again, in seconds; 0 where it is.")]


class StandingLimits(Struct):
    """All of them; none where the caller is not limited."""

    data: list[StandingLimit]


class LimitsEndpoint:
    """What is left."""

    def __init__(self, inference: InferenceClient) -> None:
        self._inference = inference

    async def limits(self, exchange: Exchange, _: None) -> StandingLimits:
        """GET /v1/limits."""
        found = await self._inference.limits(exchange)
        return StandingLimits([_limit(one) for one in found.limits])


def _limit(state: pb.LimitState) -> StandingLimit:
    scale = 1e6 if state.unit == pb.LIMIT_UNIT_MICRO_USD else 1
    reset_s = state.reset.seconds + state.reset.nanos / 1e9
    return StandingLimit(
        state.name,
        _UNITS[state.unit],
        _WINDOWS[state.window],
        state.limit / scale,
        state.remaining / scale,
        reset_s,
    )
