"""The catalogue: which models callers may name, and what stands behind each.

Read once from the models file (`models.yaml` beside this module is the embedded default and the commented example),
checked whole, and immutable from then on. It never opens a connection or loads a model.
"""

from __future__ import annotations

import fnmatch
from functools import cached_property
from typing import Any, Literal, Self, get_args

from pydantic import Field, HttpUrl, PrivateAttr, field_validator, model_validator

from kit import proxies
from kit.document import Document
from kit.errors import NotFound
from services.inference.generation import Usage
from services.inference.routing.rules import (
    BreakerRule,
    CacheRule,
    ComplexityRule,
    DeadlineRule,
    DegradeRule,
    HedgeRule,
    Policy,
    QueueRule,
    RetryRule,
    Rules,
    SafetyRule,
    Seconds,
)

Capability = Literal["tools", "vision", "audio", "files", "json_object", "json_schema", "logprobs"]
Extension = Literal["top_k", "min_p", "repetition_penalty", "min_tokens", "stop_token_ids", "regex", "choice"]
# Of the local engine; it refuses the rest by name, and tools where a model's template knows none.
LOCAL_ABILITIES = frozenset(
    {"tools", "json_object", "json_schema", "logprobs", "regex", "choice"}
    | {"top_k", "min_p", "repetition_penalty", "min_tokens", "stop_token_ids"}
)


class Upstream(Document):
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
    streams: bool = Field(default=True, description="Whether it streams; where not, its silence is noticed late.")
    ca_file: str | None = Field(default=None, description="PEM file of the authorities that sign its certificate.")

    proxy: str | None = Field(
        default=None, description="HTTP proxy before it, or `none`; when absent, as HTTPS_PROXY and NO_PROXY say."
    )

    @field_validator("proxy")
    @classmethod
    def _is_a_proxy(cls, proxy: str | None) -> str | None:
        if (url := proxies.parse(proxy) if proxy else None) and url.raw_user is not None:
            raise ValueError("must have no password in it: MILLRACE_INFERENCE_HTTPS_PROXY may")
        return proxy

    @model_validator(mode="after")
    def _one_key(self) -> Self:
        if self.api_key_env and self.api_key_file:
            raise ValueError("give api_key_env or api_key_file, not both")
        return self


class Price(Document):
    """US dollars per million tokens."""

    prompt: float = Field(ge=0)
    completion: float = Field(ge=0)
    cached_prompt: float | None = Field(default=None, ge=0)


class Target(Document):
    """One place where a model can be run."""

    engine: Literal["local", "openai"] = Field(description="Who runs it.")
    model: str = Field(default="*", min_length=1, description="Its name there; `*` passes the public name on.")
    upstream: str | None = Field(default=None, description="Which upstream; engine openai only.")
    name: str | None = Field(default=None, min_length=1, description="Name in receipts; default ENGINE:MODEL.")
    price: Price | None = Field(default=None, description="Price; unknown when absent.")
    weight: float = Field(default=1.0, ge=0, le=1_000_000, description="Share under `weighted`; 0: only a fallback.")
    context_token_count_max: int | None = Field(default=None, ge=1, description="Context; the model's when absent.")
    capabilities: frozenset[Capability] | None = Field(
        default=None, description="All that it can do beside text; when absent it is asked for anything."
    )
    breaker: BreakerRule = BreakerRule()
    queue: QueueRule = QueueRule()
    _settings: Upstream | None = PrivateAttr(default=None)

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

    @property
    def settings(self) -> Upstream | None:
        """What the file says of its upstream; None for a local model."""
        return self._settings

    @cached_property
    def engine_key(self) -> tuple[str, str, str]:
        """What tells its engine from others: targets of one key share one, and other settings are another engine."""
        settings = self._settings.model_dump_json() if self._settings else ""
        return (self.engine, self.upstream or self.model, settings)

    @cached_property
    def abilities(self) -> frozenset[str]:
        """What it can do beside plain text: capabilities, and parameters beyond OpenAI's."""
        known = frozenset[str](get_args(Capability))
        declared = known if self.capabilities is None else self.capabilities
        if self.engine == "local":
            return LOCAL_ABILITIES - (known - declared)
        return declared | (self._settings.extensions if self._settings else frozenset())

    def within(self, model: Model, upstream: Upstream | None, defaults: Defaults) -> Target:
        """Returns the target with all that the rest of the file says of it."""
        said = {
            "breaker": _merged(defaults.breaker, self.breaker),
            "queue": _merged(defaults.queue, self.queue),
            "context_token_count_max": self.context_token_count_max or model.context_token_count_max,
        }
        target = self.model_copy(update=said)
        target._settings = upstream
        return target

    def cost_micro_usd(self, used: Usage) -> int | None:
        """Millionths of a US dollar for these tokens; None where the price is unknown."""
        if self.price is None:
            return None
        cached = used.cached_prompt_token_count if self.price.cached_prompt is not None else 0
        # Dollars per million tokens are millionths of a dollar per token.
        prompt = (used.prompt_token_count - cached) * self.price.prompt + cached * (self.price.cached_prompt or 0)
        return round(prompt + used.completion_token_count * self.price.completion)


class Model(Document):
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
    retries: RetryRule | None = None
    hedging: HedgeRule | None = None
    degrade: DegradeRule | None = None
    policy: Policy | None = None
    on_refusal: Literal["return", "next"] | None = None

    @property
    def is_pattern(self) -> bool:
        """Whether the name stands for many."""
        return "*" in self.name

    @property
    def abilities(self) -> frozenset[str]:
        """What some target of it is said to be able to; nothing is said of targets that declare nothing."""
        declared = frozenset(one for target in self.targets for one in target.capabilities or ())
        return declared | {"tools"} if self.tools else declared

    @field_validator("name")
    @classmethod
    def _not_auto(cls, name: str) -> str:
        if name == "auto":
            raise ValueError("`auto` is the router's; describe it under `auto:`")
        return name


class Defaults(Rules):
    """What applies to every model and target that says nothing else."""

    breaker: BreakerRule = BreakerRule()
    queue: QueueRule = QueueRule()


class Auto(ComplexityRule):
    """What `auto` chooses between, by how complex the prompt looks."""

    simple: str = Field(description="Model for simple prompts.")
    complex: str = Field(description="Model for complex prompts.")


class Catalog(Document):
    """The models file, checked whole."""

    version: Literal[1]
    upstreams: dict[str, Upstream] = Field(default={})
    models: tuple[Model, ...] = Field(min_length=1)
    auto: Auto | None = None
    defaults: Defaults = Defaults()

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
            found = self.match(choice)
            if found is None:
                raise ValueError(f"auto: model {choice!r} is not under `models`")
            if found.kind != "chat":
                raise ValueError(f"auto: model {choice!r} does not chat")
        return self

    @model_validator(mode="after")
    def _targets_filled(self) -> Self:
        def filled(model: Model) -> Model:
            whole = (
                one.within(model, self.upstreams[one.upstream] if one.upstream else None, self.defaults)
                for one in model.targets
            )
            return model.model_copy(update={"targets": tuple(whole)})

        return self.model_copy(update={"models": tuple(filled(model) for model in self.models)})

    def find(self, name: str) -> Model:
        """Finds a model by its public name; exact names come before patterns, patterns in file order.

        Raises:
            NotFound: No model has this name (MODEL_NOT_FOUND).
        """
        if found := self.match(name):
            return found
        raise NotFound(
            "MODEL_NOT_FOUND", f"model {name[:256]!r} does not exist; ListModels (GET /v1/models) names those that do"
        )

    def match(self, name: str) -> Model | None:
        """Finds a model as `find` does; None where there is none."""
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
        parts = {name: _merged(getattr(self.defaults, name), getattr(model, name)) for name in Rules.model_fields}
        return Rules(**parts)


def _merged(default: Any, own: Any) -> Any:
    """What is said of one's own, over what applies by default: rules field by field, anything else whole."""
    if own is None:
        return default
    if not isinstance(own, Document):
        return own
    return default.model_copy(update={name: getattr(own, name) for name in own.model_fields_set})
