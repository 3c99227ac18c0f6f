"""Field types that several bodies share, with the limits that the contract and its number types set."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

INT32_MAX = 2**31 - 1

ModelName = Annotated[str, Meta(min_length=1, max_length=256, description="Public name of a model, or `auto`.")]
Temperature = Annotated[float, Meta(ge=0, le=2)]
TopP = Annotated[float, Meta(ge=0, le=1)]
Penalty = Annotated[float, Meta(ge=-2, le=2)]
RepetitionPenalty = Annotated[float, Meta(gt=0, le=2)]
TokenCount = Annotated[int, Meta(ge=1, le=10_000_000)]  # as inference has it, which knows one name for all of them
TopK = Annotated[int, Meta(ge=0, le=INT32_MAX)]
Probability = Annotated[float, Meta(ge=0, le=1)]
Seed = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
ChoiceCount = Annotated[int, Meta(ge=1, le=16)]
StopString = Annotated[str, Meta(min_length=1)]
Stop = StopString | Annotated[list[StopString], Meta(max_length=4)]
TokenId = Annotated[str, Meta(pattern=r"^[0-9]{1,9}$")]
LogitBias = Annotated[dict[TokenId, Annotated[float, Meta(ge=-100, le=100)]], Meta(max_length=1024)]
EndUser = Annotated[str, Meta(max_length=256)]
ReasoningEffort = Literal["none", "minimal", "low", "medium", "high"]


class StreamOptions(msgspec.Struct, forbid_unknown_fields=True):
    """What a stream carries besides the answer."""

    include_usage: bool | None = None
    include_obfuscation: bool | None = None
