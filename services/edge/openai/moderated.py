"""What safety said of a chat, in the shape in which OpenAI's answers carry moderation: one result a direction.

It is there when safety has something to say, and absent where every text passed unmarked. Categories beside OpenAI's
own, such as kinds of personal data, are further keys; scores are of what was found. What was let through unscreened,
because safety was away and the policy allows that, is an error there, never a clean result.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

from msgspec import UNSET, Struct, UnsetType

from millrace.inference.v1 import event_pb2 as pb
from services.edge.openai.moderations import CATEGORIES

UNSCREENED = "unscreened"
# Where the service itself was away, nobody knows which policy would have judged.
_NOBODY = "none"


class ChatModerationResult(Struct):
    """The judgement of one direction."""

    flagged: bool
    categories: dict[str, bool]
    category_scores: dict[str, float]
    category_applied_input_types: dict[str, list[Literal["text"]]]
    model: str
    type: Literal["moderation_result"] = "moderation_result"


class ChatModerationResults(Struct, tag_field="type", tag="moderation_results"):
    """The judgements of one direction; `model` is the profile with the version of the policy."""

    model: str
    results: list[ChatModerationResult]


class ChatModerationError(Struct, tag_field="type", tag="error"):
    """One direction was not judged."""

    code: str
    message: str


class ChatModeration(Struct):
    """What safety said of the prompt and of the answer."""

    input: ChatModerationResults | ChatModerationError
    output: ChatModerationResults | ChatModerationError


def moderated(events: Sequence[pb.SafetyEvent]) -> ChatModeration | UnsetType:
    """The shape for these events; unset where there are none."""
    if not events:
        return UNSET
    profile, version = events[-1].profile, next((e.policy_version for e in events if e.policy_version), _NOBODY)
    model = f"{profile}@{version}"
    prompt, answer = (
        [event for event in events if event.direction == direction]
        for direction in (pb.SAFETY_DIRECTION_INPUT, pb.SAFETY_DIRECTION_OUTPUT)
    )
    return ChatModeration(_side(prompt, model), _side(answer, model))


def _side(events: Iterable[pb.SafetyEvent], model: str) -> ChatModerationResults | ChatModerationError:
    scores = dict.fromkeys(CATEGORIES, 0.0)
    found: set[str] = set()
    for event in events:
        if event.unscreened:
            return ChatModerationError(
                UNSCREENED, "Safety did not judge this text in full, and the policy lets it pass."
            )
        for finding in event.findings:
            found.add(finding.category)
            scores[finding.category] = max(scores.get(finding.category, 0.0), finding.score)
    result = ChatModerationResult(
        flagged=bool(found),
        categories={category: category in found for category in scores},
        category_scores=scores,
        category_applied_input_types={category: ["text"] for category in scores},
        model=model,
    )
    return ChatModerationResults(model, [result])
