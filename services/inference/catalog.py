"""The catalogue: which models callers may name, and what stands behind each.

Read once from the models file (`models.yaml` beside this module is the embedded default and the commented example),
checked whole, and immutable from then on. It never opens a connection or loads a model.
"""

from __future__ import annotations

import fnmatch
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, HttpUrl, field_validator, model_validator

from kit.errors import InvalidArgument, NotFound
from services.inference.generation import Usage

Seconds = Annotated[float, Field(gt=0, le=86_400)]
Extension = Literal["top_k", "min_p", "repetition_penalty", "min_tokens", "stop_token_ids", "regex", "choice"]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Upstream(_Part):
    """An OpenAI-compatible server."""

    base_url: HttpUrl = Field(description="Where the API lives, version path included: https://host/v1.")
    api_key_env: str | None = Field(default=None, description="Environment variable that holds the key.")
    api_key_file: str | None = Field(default=None, description="File that holds the key.")
    organization: str | None = Field(default=None, description="OpenAI organization.")
    project: str | None = Field(default=None, description="OpenAI project.")
    headers: dict[str, str] = Field(default={}, description="Headers sent with every request.")
    connect_timeout_s: Seconds = Field(default=5.0, description="Longest wait for a connection.")
    max_tokens_field: Literal["max_tokens", "max_completion_tokens"] = Field(
        default="max_tokens", description="What the upstream calls the bound on new tokens; OpenAI itself: the second."
    )
    extensions: frozenset[Extension] = Field(
        default=frozenset(), description="Parameters beyond OpenAI's that it honours; others are refused by name."
    )
    stream_usage: bool = Field(default=True, description="Whether it accepts stream_options.include_usage.")

    @model_validator(mode="after")
    def _one_key(self) -> Self:
        if self.api_key_env and self.api_key_file:
            raise ValueError("give api_key_env or api_key_file, not both")
        return self


class Price(_Part):
    """US dollars per million tokens."""

    prompt: float = Field(ge=0)
    completion: float = Field(ge=0)
    cached_prompt: float | None = Field(default=None, ge=0)


class Target(_Part):
    """One place where a model can be run."""

    engine: Literal["local", "openai"] = Field(description="Who runs it.")
    model: str = Field(default="*", min_length=1, description="Its name there; `*` passes the public name on.")
    upstream: str | None = Field(default=None, description="Which upstream; engine openai only.")
    name: str | None = Field(default=None, min_length=1, description="Name in receipts; default ENGINE:MODEL.")
    price: Price | None = Field(default=None, description="Price; unknown when absent.")

    @model_validator(mode="after")
    def _upstream_fits(self) -> Self:
        if self.engine == "openai" and not self.upstream:
            raise ValueError("engine openai needs an upstream")
        if self.engine == "local" and self.upstream:
            raise ValueError("engine local takes no upstream")
        if self.engine == "local" and self.model == "*":
            raise ValueError("engine local needs a model: a directory or a name on the hub")
        return self

    @property
    def label(self) -> str:
        """What receipts and spans call it."""
        return self.name or f"{self.upstream or self.engine}:{self.model}"

    def cost_micro_usd(self, used: Usage) -> int | None:
        """Millionths of a US dollar for these tokens; None where the price is unknown."""
        if self.price is None:
            return None
        cached = used.cached_prompt_token_count if self.price.cached_prompt is not None else 0
        # Dollars per million tokens are millionths of a dollar per token.
        prompt = (used.prompt_token_count - cached) * self.price.prompt + cached * (self.price.cached_prompt or 0)
        return round(prompt + used.completion_token_count * self.price.completion)


class CacheRule(_Part):
    """How the cache takes part by default; a caller's CachePolicy narrows it."""

    enabled: bool = True
    ttl_s: Seconds = 3600.0
    scope: Literal["tenant", "user"] = "tenant"
    sampled: bool = Field(
        default=False, description="Also cache answers that were asked to vary (temperature above 0, no seed)."
    )


class SafetyRule(_Part):
    """How safety takes part by default."""

    profile: str = Field(default="default", min_length=1, max_length=64, description="`off` skips the hop altogether.")
    choices: tuple[str, ...] = Field(
        default=("default", "strict"),
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


class DeadlineRule(_Part):
    """Longest waits; each is also cut from the call's own deadline."""

    ttft_s: Seconds = Field(default=10.0, description="To the first delta.")
    inter_token_s: Seconds = Field(default=30.0, description="Between two deltas.")
    total_s: Seconds = Field(default=600.0, description="To the end.")


class Rules(_Part):
    """What applies to every model that does not say otherwise."""

    cache: CacheRule = CacheRule()
    safety: SafetyRule = SafetyRule()
    deadlines: DeadlineRule = DeadlineRule()


class Model(_Part):
    """A public model: targets in the order in which they are tried."""

    name: str = Field(min_length=1, max_length=256, description="Public name; may hold `*` to stand for many.")
    description: str = ""
    kind: Literal["chat", "embedding"] = "chat"
    targets: tuple[Target, ...] = Field(min_length=1, max_length=16)
    context_token_count_max: int | None = Field(default=None, ge=1)
    tools: bool | None = Field(default=None, description="Whether it calls tools; for the catalogue only.")
    cache: CacheRule | None = None
    safety: SafetyRule | None = None
    deadlines: DeadlineRule | None = None

    @property
    def is_pattern(self) -> bool:
        """Whether the name stands for many."""
        return "*" in self.name

    @field_validator("name")
    @classmethod
    def _not_auto(cls, name: str) -> str:
        if name == "auto":
            raise ValueError("`auto` is the router's; describe it under `auto:`")
        return name


class Auto(_Part):
    """What `auto` chooses between, by how complex the prompt looks."""

    simple: str = Field(description="Model for simple prompts.")
    complex: str = Field(description="Model for complex prompts.")
    simple_words_max: int = Field(default=5, ge=1, description="At most so many words are simple.")
    complex_words_min: int = Field(default=50, ge=1, description="More words than this are complex.")
    score_min: float = Field(default=1.0, ge=0, description="Score from which a prompt in between is complex.")


class Catalog(_Part):
    """The models file, checked whole."""

    version: Literal[1]
    upstreams: dict[str, Upstream] = {}
    models: tuple[Model, ...] = Field(min_length=1)
    auto: Auto | None = None
    defaults: Rules = Rules()

    @model_validator(mode="after")
    def _names_resolve(self) -> Self:
        names = [model.name for model in self.models]
        twice = {name for name in names if names.count(name) > 1}
        if twice:
            raise ValueError(f"models named twice: {', '.join(sorted(twice))}")
        for model in self.models:
            for target in model.targets:
                if target.upstream and target.upstream not in self.upstreams:
                    raise ValueError(f"model {model.name}: upstream {target.upstream!r} is not under `upstreams`")
        for choice in (self.auto.simple, self.auto.complex) if self.auto else ():
            found = self._find(choice)
            if found is None:
                raise ValueError(f"auto: model {choice!r} is not under `models`")
            if found.kind != "chat":
                raise ValueError(f"auto: model {choice!r} does not chat")
        return self

    def find(self, name: str) -> Model:
        """Finds a model by its public name; exact names come before patterns, patterns in file order.

        Raises:
            NotFound: No model has this name (MODEL_NOT_FOUND).
        """
        if found := self._find(name):
            return found
        known = ", ".join(self.listed_names()[:10])
        raise NotFound("MODEL_NOT_FOUND", f"model {name[:256]!r} does not exist; known models: {known}")

    def _find(self, name: str) -> Model | None:
        for model in self.models:
            if model.name == name:
                return model
        patterns = (model for model in self.models if model.is_pattern)
        return next((model for model in patterns if fnmatch.fnmatchcase(name, model.name)), None)

    @property
    def needs_safety(self) -> bool:
        """Whether some model refuses while the safety service is away."""
        rules = [self.rules_of(model).safety for model in self.models if model.kind == "chat"]
        return any(rule.profile != "off" and rule.on_unavailable == "closed" for rule in rules)

    def listed_names(self) -> list[str]:
        """Names that a caller can use as they stand, sorted."""
        return sorted(model.name for model in self.models if not model.is_pattern)

    def rules_of(self, model: Model) -> Rules:
        """The rules that apply to a model: its own, else the defaults."""
        return Rules(
            cache=model.cache or self.defaults.cache,
            safety=model.safety or self.defaults.safety,
            deadlines=model.deadlines or self.defaults.deadlines,
        )
