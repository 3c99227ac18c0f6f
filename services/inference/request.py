"""A request as the pipeline sees it: who asks, for what, under which wishes and until when."""

from __future__ import annotations

import msgspec

from kit.identity import NOBODY, Caller
from services.inference.generation import Prompt


class CacheWish(msgspec.Struct, frozen=True):
    """How the caller wants the cache to take part; None means the route's setting.

    `mode` is off, read_write, read_only, only_if_cached or refresh; `scope` is tenant or user. A refresh that the cache
    has asked for is made under its `lease_id`.
    """

    mode: str | None = None
    scope: str | None = None
    ttl_s: float | None = None
    semantic: bool | None = None
    similarity_threshold: float | None = None
    error_max: float | None = None
    age_max_s: float | None = None
    tags: tuple[str, ...] = ()
    lease_id: str = ""


class Request(msgspec.Struct, frozen=True):
    """One generation that was asked for; every limit of the contract has been checked.

    `deadline` is a `time.monotonic()` instant; `limit` names a limit that it counts against beside its caller's.
    """

    request_id: str
    tenant: str
    model: str
    prompt: Prompt
    deadline: float | None = None
    cache: CacheWish = CacheWish()
    safety_profile: str = ""
    fallbacks: tuple[str, ...] = ()
    priority: int = 0
    ttft_max_s: float | None = None
    inter_token_max_s: float | None = None
    session_id: str = ""
    caller: Caller = NOBODY
    limit: str = ""

    @property
    def char_count(self) -> int:
        """Characters of text in the prompt: what token counts are estimated from."""
        return len(self.prompt.raw_prompt or "") + sum(len(message.text) for message in self.prompt.messages)
