"""Policies: which detectors run on which texts, and what is done about what they find.

Policies are data, read once at start from YAML. This module is the shape of that file and the plain objects that it
becomes; it never looks at a text.
"""

from __future__ import annotations

import dataclasses
import enum
import hashlib
import pathlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Literal, NamedTuple, Self

import pydantic

from kit.document import Document, load_yaml
from kit.errors import InvalidArgument
from services.safety.detectors.lexicon import parse
from services.safety.detectors.pii import PiiCategory

_HERE = pathlib.Path(__file__).parent
EMBEDDED_POLICIES = _HERE / "policies.yaml"
EMBEDDED_TERMS = _HERE / "terms.yaml"
EMBEDDED_INJECTIONS = _HERE / "injections.yaml"
DEFAULT_PROFILE = "default"

# OpenAI's moderation categories: https://platform.openai.com/docs/guides/moderation
MODERATION_CATEGORIES = (
    "harassment",
    "harassment/threatening",
    "hate",
    "hate/threatening",
    "illicit",
    "illicit/violent",
    "self-harm",
    "self-harm/instructions",
    "self-harm/intent",
    "sexual",
    "sexual/minors",
    "violence",
    "violence/graphic",
)


class Verdict(enum.IntEnum):
    """What is to happen to a text, by severity; numbered as in the contract."""

    ALLOW = 1
    FLAG = 2
    REDACT = 3
    BLOCK = 4


class Direction(enum.IntEnum):
    """Which way a text flows; numbered as in the contract."""

    INPUT = 1
    OUTPUT = 2


class Term(NamedTuple):
    """One forbidden phrase."""

    category: str
    score: float
    phrase: str


@dataclass(frozen=True, slots=True)
class Rule:
    """How one detector is used in one direction.

    `anonymises` says whether REDACT in `action` has a way back, `anonymised` names the categories of `actions` where it
    has. `retrieved` is the rule for what nobody at the keyboard wrote, where that differs: tool results and documents.
    """

    detector: str
    threshold: float
    action: Verdict
    actions: Mapping[str, Verdict]
    fails_open: bool
    deadline_s: float
    anonymises: bool = False
    anonymised: frozenset[str] = frozenset()
    retrieved: Rule | None = None

    def action_for(self, category: str) -> Verdict:
        """What to do about a finding of a category."""
        return self.actions.get(category, self.action)

    def is_reversible(self, category: str) -> bool:
        """Whether a finding of a category is replaced by a placeholder that leads back."""
        return category in self.anonymised if category in self.actions else self.anonymises

    def for_text(self, retrieved: bool) -> Rule:
        """The rule for a text, by whether it was retrieved."""
        return self.retrieved or self if retrieved else self


@dataclass(frozen=True, slots=True)
class Profile:
    """A named set of rules."""

    name: str
    description: str
    strictness: int
    rules: Mapping[Direction, tuple[Rule, ...]]


@dataclass(frozen=True, slots=True)
class Policies:
    """Everything that one reading of the policy file gave."""

    version: str
    profiles: Mapping[str, Profile]
    terms: tuple[Term, ...]
    injections: tuple[Term, ...]

    def profile(self, name: str) -> Profile:
        """Finds a profile; an empty name means the default one.

        Raises:
            InvalidArgument: There is none of that name.
        """
        try:
            return self.profiles[name or DEFAULT_PROFILE]
        except KeyError:
            known = ", ".join(self.profiles)
            message = f"unknown profile {name[:64]!r}; choose one of: {known}"
            raise InvalidArgument("profile", message, reason="UNKNOWN_PROFILE") from None

    def fail_open_rules(self) -> Iterator[tuple[str, Direction, str]]:
        """Lists profile, direction and detector wherever a text may pass unscreened."""
        for profile in self.profiles.values():
            for direction, rules in profile.rules.items():
                yield from ((profile.name, direction, rule.detector) for rule in rules if rule.fails_open)


def load_policies(operator_file: pathlib.Path | None = None) -> Policies:
    """Reads the embedded policies, and over them the operator's.

    Args:
        operator_file: Its profiles replace embedded ones of the same name, its terms add to the embedded ones unless it
            says `embedded_terms: false`.

    Raises:
        kit.config.ConfigError: A file cannot be read or says something that it may not; names line and field.
    """
    documents = [load_yaml(EMBEDDED_POLICIES, PolicyDocument)]
    sources = [EMBEDDED_POLICIES, EMBEDDED_INJECTIONS]
    if operator_file is not None:
        documents.append(load_yaml(operator_file, PolicyDocument))
        sources.append(operator_file)
    terms = [term for document in documents for group in document.terms for term in group.read()]
    if documents[-1].embedded_terms:
        sources.append(EMBEDDED_TERMS)
        terms += load_yaml(EMBEDDED_TERMS, TermsDocument).read()
    profiles = {name: profile.read(name) for document in documents for name, profile in document.profiles.items()}
    ordered = sorted(profiles.values(), key=lambda profile: profile.strictness)
    digest = hashlib.sha256(b"\0".join(source.read_bytes() for source in sources)).hexdigest()
    by_name = {profile.name: profile for profile in ordered}
    injections = load_yaml(EMBEDDED_INJECTIONS, TermsDocument).read()
    return Policies(f"sha256:{digest[:16]}", by_name, tuple(terms), tuple(injections))


_ActionName = Literal["allow", "flag", "redact", "block"]
_ANONYMISE = "anonymise"  # redacts, with a way back
_InputActionName = Literal["allow", "flag", "redact", "anonymise", "block"]
_Category = Annotated[str, pydantic.StringConstraints(pattern=r"^[A-Za-z][A-Za-z0-9_/-]{0,63}$")]
_Name = Annotated[str, pydantic.StringConstraints(pattern=r"^[a-z][a-z0-9_-]{0,63}$")]


def _check_phrase(phrase: str) -> str:
    parse(phrase)
    return phrase


class TermGroup(Document):
    """Forbidden phrases of one category, in the policy file."""

    category: _Category
    score: float = pydantic.Field(default=1.0, gt=0, le=1)
    phrases: list[Annotated[str, pydantic.AfterValidator(_check_phrase)]] = pydantic.Field(min_length=1)

    def read(self) -> Iterator[Term]:
        """Lists the terms."""
        return (Term(self.category, self.score, phrase) for phrase in self.phrases)


class TermsDocument(Document):
    """A file of embedded terms."""

    terms: list[TermGroup]

    def read(self) -> list[Term]:
        """Lists the terms."""
        return [term for group in self.terms for term in group.read()]


class ActionsDocument(Document):
    """What is done about findings, in the policy file; what is None is as the rule around it says."""

    action: _ActionName | None = None
    threshold: float | None = pydantic.Field(default=None, ge=0, le=1)
    actions: dict[_Category, _ActionName] | None = None


class RuleDocument(Document):
    """One rule of the policy file."""

    action: _ActionName
    threshold: float = pydantic.Field(default=0.4, ge=0, le=1)
    actions: dict[_Category, _ActionName] = pydantic.Field(default={})
    retrieved: ActionsDocument | None = None
    on_failure: Literal["open", "closed"] = "closed"
    deadline_ms: int = pydantic.Field(default=2000, ge=1, le=60_000)

    def read(self, detector: str) -> Rule:
        """Makes the rule."""
        rule = self._rule(detector, self.action, self.threshold, self.actions)
        if (other := self.retrieved) is None:
            return rule
        threshold = self.threshold if other.threshold is None else other.threshold
        actions = self.actions if other.actions is None else other.actions
        retrieved = self._rule(detector, other.action or self.action, threshold, actions)
        return dataclasses.replace(rule, retrieved=retrieved)

    def _rule(self, detector: str, action: str, threshold: float, actions: Mapping[str, str]) -> Rule:
        return Rule(
            detector,
            threshold,
            _verdict(action),
            {category: _verdict(name) for category, name in actions.items()},
            self.on_failure == "open",
            self.deadline_ms / 1000,
            action == _ANONYMISE,
            frozenset(category for category, name in actions.items() if name == _ANONYMISE),
        )


def _verdict(action: str) -> Verdict:
    return Verdict.REDACT if action == _ANONYMISE else Verdict[action.upper()]


class PiiActionsDocument(ActionsDocument):
    """What is done about personal data in prompts, where that may also be anonymised."""

    action: _InputActionName | None = None  # type: ignore[assignment]
    actions: dict[PiiCategory, _InputActionName] | None = None  # type: ignore[assignment]


class PiiRuleDocument(RuleDocument):
    """A rule for personal data: its categories are known in advance, so a misspelt one is an error."""

    actions: dict[PiiCategory, _ActionName] = pydantic.Field(default={})  # type: ignore[assignment]


class PiiInputRuleDocument(RuleDocument):
    """A rule for personal data in prompts. Answers have no way back: what a model makes up is nobody's original."""

    action: _InputActionName  # type: ignore[assignment]
    actions: dict[PiiCategory, _InputActionName] = pydantic.Field(default={})  # type: ignore[assignment]
    retrieved: PiiActionsDocument | None = None


class DirectionDocument(Document):
    """The rules for one direction in the policy file, by detector; one that is left out does not run."""

    forbidden_terms: RuleDocument | None = None
    pii: PiiRuleDocument | None = None
    injection_phrases: RuleDocument | None = None
    moderation: RuleDocument | None = None
    injection: RuleDocument | None = None

    def read(self) -> tuple[Rule, ...]:
        """Makes the rules."""
        named = ((name, getattr(self, name)) for name in type(self).model_fields)
        return tuple(rule.read(name) for name, rule in named if rule is not None)


class InputDocument(DirectionDocument):
    """The rules for prompts in the policy file."""

    pii: PiiInputRuleDocument | None = None  # type: ignore[assignment]


class ProfileDocument(Document):
    """One profile of the policy file."""

    description: str = pydantic.Field(min_length=1, max_length=400)
    strictness: int = pydantic.Field(ge=0, le=1000)
    input: InputDocument = InputDocument()
    output: DirectionDocument = DirectionDocument()

    def read(self, name: str) -> Profile:
        """Makes the profile."""
        rules = {Direction.INPUT: self.input.read(), Direction.OUTPUT: self.output.read()}
        return Profile(name, self.description, self.strictness, rules)


class PolicyDocument(Document):
    """The policy file."""

    embedded_terms: bool = True
    terms: list[TermGroup] = pydantic.Field(default=[])
    profiles: dict[_Name, ProfileDocument] = pydantic.Field(default={})

    @pydantic.model_validator(mode="after")
    def _check_categories(self) -> Self:
        known = {*MODERATION_CATEGORIES, *(group.category for group in self.terms)}
        for name, profile in self.profiles.items():
            for side in ("input", "output"):
                rule = getattr(profile, side).forbidden_terms
                for category in rule.actions if rule else ():
                    if category not in known:
                        where = f"profiles.{name}.{side}.forbidden_terms.actions"
                        raise ValueError(f"{where}: no term has the category {category!r}")
        return self
