"""The quotas file: tiers, and what each lets its callers use.

Read whole, checked whole, put in force at one stroke (`quotas.yaml` beside this package is the built-in one, and the
commented example). It counts nothing.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from kit.document import Document
from kit.identity import Role

Count = Annotated[int, Field(ge=1, le=1_000_000_000)]
Budget = Annotated[int, Field(ge=1, le=1_000_000_000_000)]
Dollars = Annotated[float, Field(gt=0, le=100_000_000)]


class Allowance(Document):
    """The most that one subject may use; what is absent is not limited."""

    requests_per_minute: Count | None = None
    requests_burst: Count | None = Field(default=None, description="Most requests in one go; absent: a minute's.")
    tokens_per_minute: Count | None = Field(default=None, description="Prompt and answer together.")
    tokens_burst: Count | None = Field(default=None, description="Most tokens in one go; absent: a minute's.")
    concurrent_requests: Count | None = Field(default=None, description="Most requests at once.")
    tokens_per_day: Budget | None = Field(default=None, description="From midnight to midnight, UTC.")
    tokens_per_month: Budget | None = Field(default=None, description="Of the calendar, UTC.")
    usd_per_day: Dollars | None = None
    usd_per_month: Dollars | None = None

    @model_validator(mode="after")
    def _bursts_have_rates(self) -> Self:
        for name in ("requests", "tokens"):
            if getattr(self, f"{name}_burst") and not getattr(self, f"{name}_per_minute"):
                raise ValueError(f"{name}_burst needs {name}_per_minute")
        return self


class Tier(Document):
    """What a caller of this tier may use, counted for each of these apart; a request must fit into all."""

    key: Allowance = Field(default=Allowance(), description="Each key by itself.")
    user: Allowance = Field(default=Allowance(), description="Each principal, with all its keys together.")
    client: Allowance = Field(default=Allowance(), description="Each anonymous client, by its id or address.")


class NamedLimit(Document):
    """A limit that requests ask to be counted against, by name, beside their tier's."""

    client: Allowance = Field(description="Each client id; callers without one count by their principal.")


class QuotaRules(Document):
    """The quotas file, checked whole."""

    version: Literal[1]
    tiers: dict[str, Tier] = Field(default={}, description="By the name that keys and users are given.")
    roles: dict[Role, str] = Field(default={}, description="Tier of callers that name none; absent: no limit.")
    tenants: dict[str, Allowance] = Field(
        default={}, description="What all of a tenant may use together; `*` holds for each that is not named."
    )
    named: dict[str, NamedLimit] = Field(default={}, description="Further limits, by the name that requests ask for.")
    answer_token_count_max: Count = Field(
        default=4096,
        description="Longest answer of a request that sets no max_tokens, where tokens or money are limited.",
    )
    unpriced: Literal["allow", "refuse"] = Field(
        default="allow", description="What becomes of a request of unknown price, where money is limited."
    )

    @model_validator(mode="after")
    def _tiers_exist(self) -> Self:
        for role, tier in self.roles.items():
            if tier not in self.tiers:
                raise ValueError(f"roles.{role}: tier {tier!r} is not under `tiers`")
        return self
