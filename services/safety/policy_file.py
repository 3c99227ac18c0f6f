"""The policy file: its shape, and how it becomes policies.

Whatever it says that cannot be in force is refused with line and field: a name that nothing has is a text that nobody
screens.
"""

from __future__ import annotations

import dataclasses
import hashlib
import pathlib
from collections.abc import Iterator, Mapping
from typing import Annotated, Literal

import pydantic

from kit.document import Document, load_yaml, place
from kit.errors import ConfigError
from services.safety.backends.document import MODERATION_CATEGORIES, BackendDocument, Category
from services.safety.detectors.lexicon import parse
from services.safety.detectors.pii import PiiCategory
from services.safety.policy import HOLD_S, Backend, Direction, Policies, Profile, Rule, Term, Verdict

_HERE = pathlib.Path(__file__).parent
EMBEDDED_POLICIES = _HERE / "policies.yaml"
EMBEDDED_TERMS = _HERE / "terms.yaml"
EMBEDDED_INJECTIONS = _HERE / "injections.yaml"


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
        _check_says_something(operator_file, documents[-1])
        _check_names(operator_file, documents[-1])
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
    backends = {
        name: Backend(spec, place(operator_file, ("detectors", name)))
        for document in documents
        for name, spec in document.detectors.items()
        if operator_file is not None
    }
    return Policies(f"sha256:{digest[:16]}", by_name, tuple(terms), tuple(injections), backends)


_ActionName = Literal["allow", "flag", "redact", "block"]
_ANONYMISE = "anonymise"  # redacts, with a way back
_InputActionName = Literal["allow", "flag", "redact", "anonymise", "block"]
_Name = Annotated[str, pydantic.StringConstraints(pattern=r"^[a-z][a-z0-9_-]{0,63}$")]


def _check_phrase(phrase: str) -> str:
    parse(phrase)
    return phrase


class TermGroup(Document):
    """Forbidden phrases of one category, in the policy file."""

    category: Category
    score: float = pydantic.Field(default=1.0, gt=0, le=1)
    phrases: list[Annotated[str, pydantic.AfterValidator(_check_phrase)]] = pydantic.Field(min_length=1)

    def read(self) -> Iterator[Term]:
        """Lists the terms."""
        return (Term(self.category, self.score, phrase) for phrase in self.phrases)


class TermsDocument(Document):
    """A file of embedded terms."""

    terms: list[TermGroup] = pydantic.Field(min_length=1)

    def read(self) -> list[Term]:
        """Lists the terms."""
        return [term for group in self.terms for term in group.read()]


class ActionsDocument(Document):
    """What is done about findings, in the policy file; what is None is as the rule around it says."""

    action: _ActionName | None = None
    threshold: float | None = pydantic.Field(default=None, ge=0, le=1)
    actions: dict[Category, _ActionName] | None = None


class RuleDocument(Document):
    """One rule of the policy file."""

    action: _ActionName
    threshold: float = pydantic.Field(default=0.4, ge=0, le=1)
    actions: dict[Category, _ActionName] = pydantic.Field(default={})
    retrieved: ActionsDocument | None = None
    on_failure: Literal["open", "closed"] = "closed"
    deadline_ms: int = pydantic.Field(default=2000, ge=1, le=60_000)

    @property
    def anonymises(self) -> bool:
        """Whether anything is to be replaced with a way back."""
        return _ANONYMISE in (self.action, *self.actions.values())

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


class InputActionsDocument(ActionsDocument):
    """What is done about findings in prompts, where they may also be anonymised."""

    action: _InputActionName | None = None  # type: ignore[assignment]
    actions: dict[Category, _InputActionName] | None = None  # type: ignore[assignment]


class InputRuleDocument(RuleDocument):
    """A rule for a detector that the file brings; only one that finds spans may anonymise, and only in prompts."""

    action: _InputActionName  # type: ignore[assignment]
    actions: dict[Category, _InputActionName] = pydantic.Field(default={})  # type: ignore[assignment]
    retrieved: InputActionsDocument | None = None


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
    """The rules for one direction in the policy file, by detector; one that is left out does not run.

    Further names are those of the file's own detectors, which `_check_names` sees to.
    """

    model_config = pydantic.ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, InputRuleDocument] = pydantic.Field(init=False)

    forbidden_terms: RuleDocument | None = None
    pii: PiiRuleDocument | None = None
    names: RuleDocument | None = None
    injection_phrases: RuleDocument | None = None
    moderation: RuleDocument | None = None
    injection: RuleDocument | None = None

    def read(self) -> tuple[Rule, ...]:
        """Makes the rules."""
        return tuple(rule.read(name) for name, rule in self.rules())

    def rules(self) -> Iterator[tuple[str, RuleDocument]]:
        """Lists the rules that are given, by detector."""
        named = ((name, getattr(self, name)) for name in type(self).model_fields)
        yield from ((name, rule) for name, rule in named if rule is not None)
        yield from (self.__pydantic_extra__ or {}).items()


class InputDocument(DirectionDocument):
    """The rules for prompts in the policy file."""

    pii: PiiInputRuleDocument | None = None  # type: ignore[assignment]
    names: InputRuleDocument | None = None


class ProfileDocument(Document):
    """One profile of the policy file."""

    description: str = pydantic.Field(min_length=1, max_length=400)
    strictness: int = pydantic.Field(ge=0, le=1000)
    input: InputDocument = InputDocument()
    output: DirectionDocument = DirectionDocument()
    hold_ms: int = pydantic.Field(default=int(HOLD_S * 1000), ge=100, le=600_000)

    def read(self, name: str) -> Profile:
        """Makes the profile."""
        rules = {Direction.INPUT: self.input.read(), Direction.OUTPUT: self.output.read()}
        return Profile(name, self.description, self.strictness, rules, self.hold_ms / 1000)


class PolicyDocument(Document):
    """The policy file."""

    embedded_terms: bool = True
    terms: list[TermGroup] = pydantic.Field(default=[])
    detectors: dict[_Name, BackendDocument] = pydantic.Field(default={})
    profiles: dict[_Name, ProfileDocument] = pydantic.Field(default={})


def _check_says_something(path: pathlib.Path, document: PolicyDocument) -> None:
    """Refuses an empty file: more likely half of a write, or a full disk, than a wish to drop every term.

    Raises:
        ConfigError: It says nothing.
    """
    if not document.model_fields_set:
        raise ConfigError(f"{path}: is empty; to have the embedded policies only, say `embedded_terms: true`")


INJECTION_CATEGORIES = ("injection/direct", "injection/indirect")


def _check_names(path: pathlib.Path, document: PolicyDocument) -> None:
    """Sees to what a rule names: its detector, the categories of that, and whether it finds what can be anonymised.

    Raises:
        ConfigError: Names line and field.
    """
    known = {
        "forbidden_terms": {*MODERATION_CATEGORIES, *(group.category for group in document.terms)},
        "moderation": set(MODERATION_CATEGORIES),
        "names": {"LOCATION", "PERSON"},
        "injection_phrases": set(INJECTION_CATEGORIES),
        "injection": set(INJECTION_CATEGORIES),
    } | {name: set(spec.categories) for name, spec in document.detectors.items()}
    finds_spans = {name for name, spec in document.detectors.items() if spec.finds_spans} | {"pii", "names"}
    allowed = sorted({*DirectionDocument.model_fields, *document.detectors})
    for name, profile in document.profiles.items():
        for side, rules in (("input", profile.input), ("output", profile.output)):
            for detector, rule in rules.rules():
                at = place(path, ("profiles", name, side, detector))
                if detector not in allowed:
                    raise ConfigError(f"{at}: there is no such detector (allowed: {', '.join(allowed)})")
                if rule.anonymises and (side == "output" or detector not in finds_spans):
                    raise ConfigError(f"{at}: only prompts are anonymised, and only by detectors that find spans")
                _check_categories(path, ("profiles", name, side, detector), rule, known.get(detector))


def _check_categories(path: pathlib.Path, at: tuple[str, ...], rule: RuleDocument, known: set[str] | None) -> None:
    named = [("actions", category) for category in rule.actions]
    retrieved = rule.retrieved.actions if rule.retrieved else None
    for where in [*named, *(("retrieved", "actions", category) for category in retrieved or ())]:
        if known is not None and where[-1] not in known:
            message = f"the detector finds no such category (allowed: {', '.join(sorted(known))})"
            raise ConfigError(f"{place(path, (*at, *where))}: {message}")
