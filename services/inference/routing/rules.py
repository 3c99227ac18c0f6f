"""The rules of a model: what it may cost in time, tries and money, and what protects it.

Read from the models file, where `defaults` says what applies to every model and a model's own section what applies to
it instead. Only data with bounds: the nouns beside it (breaker, retry budget, queue, hedging) do what a rule says.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from kit.document import Document
from kit.errors import InvalidArgument

Seconds = Annotated[float, Field(gt=0, le=86_400)]
Share = Annotated[float, Field(ge=0, le=1)]
Policy = Literal["ordered", "weighted", "least_busy", "cheapest"]


class SemanticRule(Document):
    """Whether answers to similar questions will do; a caller may be stricter, never laxer."""

    enabled: bool = False
    error_max: Annotated[float, Field(gt=0, le=1)] | None = Field(
        default=None, description="Most wrong answers over such hits; absent: the cache service's own bound."
    )
    similarity_min: Share | None = Field(
        default=None, description="Least cosine similarity, whatever else speaks for a hit; absent: none."
    )


class CacheRule(Document):
    """How the cache takes part by default; a caller's CachePolicy narrows it."""

    enabled: bool = True
    ttl_s: Seconds = 3600.0
    scope: Literal["tenant", "user"] = "tenant"
    sampled: bool = Field(
        default=False, description="Also cache answers that were asked to vary (temperature above 0, no seed)."
    )
    single_flight: bool = Field(
        default=True, description="Calls that ask the same at the same time share the answer that one of them makes."
    )
    refresh_ahead: bool = Field(
        default=True, description="Answers that are asked for often are made anew shortly before they expire."
    )
    semantic: SemanticRule = SemanticRule()
    replay_interval_s: Annotated[float, Field(ge=0, le=10)] = Field(
        default=0.0, description="Pause between the pieces of a kept answer that is streamed; 0: all at once."
    )


class SafetyRule(Document):
    """How safety takes part by default."""

    profile: str = Field(default="default", min_length=1, max_length=64, description="`off` skips the hop altogether.")
    choices: tuple[str, ...] = Field(
        default=("default", "private", "strict"),
        description="Profiles that a caller may choose instead, from the most lenient; those before the rule's own "
        "are not offered.",
    )
    on_unavailable: Literal["closed", "open"] = Field(
        default="closed",
        description="What happens while the safety service cannot be reached: refuse, or go on and say so.",
    )

    def chosen(self, asked: str) -> str:
        """The profile that applies: the rule's own, or a stricter one that the caller asks for.

        Raises:
            InvalidArgument: The rule does not offer it.
        """
        if not asked or asked == self.profile:
            return self.profile
        if self.profile in self.choices:
            offered = self.choices[self.choices.index(self.profile) + 1 :]
        else:  # of a profile of the operator's own only the strictest is surely stricter
            offered = self.choices if self.profile == "off" else self.choices[-1:]
        if asked not in offered:
            known = ", ".join((self.profile, *offered))
            raise InvalidArgument("spec.safety.profile", f"must be one of {known} for this model; it is {asked[:64]!r}")
        return asked


class DeadlineRule(Document):
    """Longest waits; each is also cut from the call's own deadline, and a call's attempts share them."""

    ttft_s: Seconds = Field(default=10.0, description="To the first delta.")
    inter_token_s: Seconds = Field(default=30.0, description="Between two deltas.")
    total_s: Seconds = Field(default=600.0, description="To the end.")


class RetryRule(Document):
    """How often a target is asked again; going on to another target is no retry, and free."""

    retries_max: int = Field(default=2, ge=0, le=10, description="Most repeated tries of a call.")
    backoff_s: Seconds = Field(default=0.25, description="Upper bound of the first wait; it doubles with each try.")
    backoff_s_max: Seconds = Field(default=5.0, description="Upper bound of every wait.")
    retry_after_s_max: Seconds = Field(
        default=10.0, description="Longest wait that a target may ask for; it is not asked again where it wants more."
    )
    budget_share: Share = Field(default=0.2, description="Most retries of a target, as a share of its recent calls.")
    budget_count_min: int = Field(
        default=10, ge=0, le=10_000, description="Retries that it gets in 10 s however few the calls are."
    )


class BreakerRule(Document):
    """When a target is left alone, and for how long."""

    failures_in_a_row: int = Field(default=5, ge=1, le=1_000, description="Failures in a row that open it.")
    failure_share: Annotated[float, Field(gt=0, le=1)] = Field(
        default=0.5, description="Share of failed calls in the window that opens it."
    )
    call_count_min: int = Field(default=20, ge=1, le=100_000, description="Fewer calls in the window have no share.")
    window_s: Seconds = Field(default=30.0, description="How far back the share looks.")
    open_s: Seconds = Field(default=30.0, description="How long it stays open before one call may probe.")


class HedgeRule(Document):
    """Whether a slow first delta is raced by a second attempt."""

    enabled: bool = False
    delay_s: Seconds | None = Field(
        default=None, description="Wait before the second; absent: the 95th percentile of recent first deltas."
    )
    share_max: Share = Field(default=0.05, description="Most hedged calls in the window, as a share of all.")
    cost_usd_max: Annotated[float, Field(ge=0)] | None = Field(
        default=None, description="Most dollars that second attempts may cost in the window; absent: no bound."
    )
    window_s: Seconds = 60.0


class QueueRule(Document):
    """How many calls a target serves at once, and how many may wait for it."""

    running_count_max: int = Field(default=4096, ge=1, le=100_000, description="Most calls at once.")
    queue_count_max: int = Field(default=1024, ge=0, le=100_000, description="Most calls that wait.")
    wait_s_max: Seconds = Field(default=5.0, description="Longest wait; who would wait longer is refused at once.")


class DegradeRule(Document):
    """What may be answered when every target has failed."""

    stale: bool = Field(default=False, description="A cached answer that is past its time, marked as such.")
    similar: bool = Field(
        default=False, description="A cached answer to a similar question, as sure to fit as any semantic hit must be."
    )
    stale_for_s: Annotated[float, Field(gt=0, le=2_592_000)] = Field(
        default=86_400.0, description="How long past its time; answers are kept for so much longer."
    )


class ComplexityWeights(Document):
    """What each thing that is seen in a prompt adds to its score."""

    signal: float = Field(default=1.0, description="Each different signal word: compare, why, design, ...")
    code: float = Field(default=1.0, description="Code.")
    open_question: float = Field(default=0.5, description="A question that asks how, or what if.")
    several_questions: float = Field(default=0.5, description="More than one question mark.")
    length: float = Field(default=0.5, description="A prompt as long as `complex_words_min`; shorter ones add a part.")


class ComplexityRule(Document):
    """From when on a prompt is complex."""

    simple_words_max: int = Field(default=5, ge=1, description="At most so many words are simple.")
    complex_words_min: int = Field(default=50, ge=1, description="More words than this are complex.")
    score_min: float = Field(default=1.0, ge=0, description="Score from which a prompt in between is complex.")
    weights: ComplexityWeights = ComplexityWeights()


class Rules(Document):
    """What applies to every model that does not say otherwise."""

    cache: CacheRule = CacheRule()
    safety: SafetyRule = SafetyRule()
    deadlines: DeadlineRule = DeadlineRule()
    retries: RetryRule = RetryRule()
    hedging: HedgeRule = HedgeRule()
    degrade: DegradeRule = DegradeRule()
    policy: Policy = Field(default="ordered", description="In which order targets are asked.")
    on_refusal: Literal["return", "next"] = Field(
        default="return", description="Where an upstream refuses the content: say so, or ask the next target."
    )
