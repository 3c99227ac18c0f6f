"""Route choice: from the model that a caller names to the targets that may serve it, with the reason.

Pure decisions over the catalogue; it never talks to a target.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from kit.errors import FailedPrecondition, InvalidArgument, NotFound
from services.inference.generation import Role
from services.inference.request import Request
from services.inference.routing import complexity
from services.inference.routing.catalog import Catalog, Model, Target
from services.inference.routing.rules import Rules

AUTO = "auto"


@dataclass(frozen=True, slots=True)
class RouteTarget:
    """One target with the name of the model there."""

    target: Target
    target_model: str

    @property
    def identity(self) -> str:
        """What answers: two targets of one identity give the same answers."""
        return f"{self.target.engine} {self.target.upstream or ''} {self.target_model}"


@dataclass(frozen=True, slots=True)
class Route:
    """Where a request goes: the model's targets in the order of the file, and the models that the caller falls back to.

    `rules` are the model's; a fallback's own count for nothing but the order of its targets.
    """

    model_name: str
    kind: str
    reason: str
    own: tuple[RouteTarget, ...]
    rules: Rules
    fallbacks: tuple[Route, ...] = ()

    @property
    def targets(self) -> tuple[RouteTarget, ...]:
        """Every target, the model's own first."""
        if not self.fallbacks:
            return self.own
        return self.own + tuple(target for other in self.fallbacks for target in other.own)


class Snapshot:
    """One reading of the models file, the routes over it, and how many calls go by it.

    As a context it counts a call: until that ends, what the file names stays open, whatever is read meanwhile.
    """

    __slots__ = ("call_count", "catalog", "routes", "rules")

    def __init__(self, catalog: Catalog) -> None:
        self.catalog = catalog
        self.rules = {model.name: catalog.rules_of(model) for model in catalog.models}
        self.routes: dict[str, Route] = {}
        self.call_count = 0

    def __enter__(self) -> Snapshot:
        self.call_count += 1
        return self

    def __exit__(self, *_: object) -> None:
        self.call_count -= 1


class Router:
    """Chooses routes over an immutable catalogue, which is swapped whole for another one."""

    def __init__(self, catalog: Catalog) -> None:
        self._now = Snapshot(catalog)

    @property
    def catalog(self) -> Catalog:
        """The catalogue in force."""
        return self._now.catalog

    def hold(self) -> Snapshot:
        """The snapshot in force, to be held as a context by each call for as long as it goes by a route of it."""
        return self._now

    def swap(self, catalog: Catalog) -> Snapshot:
        """Puts another catalogue in force; returns the snapshot that was, which calls may still hold."""
        before, self._now = self._now, Snapshot(catalog)
        return before

    def choose(self, request: Request) -> Route:
        """Chooses the route of a generation.

        Raises:
            NotFound: No model has this name.
            InvalidArgument: The model does not generate text.
            FailedPrecondition: `auto` is not described in the models file.
        """
        if request.model != AUTO and not request.fallbacks:
            return self._route(request.model, "chat", "spec.model")
        name, reason = self._auto(request) if request.model == AUTO else (request.model, "")
        route = self._route(name, "chat", "spec.model")
        others = tuple(self._fallback(index, other) for index, other in enumerate(request.fallbacks))
        return replace(route, reason=reason, fallbacks=others)

    def choose_embedding(self, name: str) -> Route:
        """Chooses the route of an embedding; raises as `choose` does."""
        return self._route(name, "embedding", "model")

    def _route(self, name: str, kind: str, field: str) -> Route:
        route = self._now.routes.get(name) or self._make(name, self.catalog.find(name))
        if route.kind != kind:
            raise InvalidArgument(field, f"model {name!r} is no {kind} model; it is for {route.kind}")
        return route

    def _make(self, name: str, model: Model) -> Route:
        targets = tuple(RouteTarget(one, name if one.model == "*" else one.model) for one in model.targets)
        route = Route(name, model.kind, "", targets, self._now.rules[model.name])
        if not model.is_pattern:  # names behind a pattern are the callers' to invent: they must not pile up here
            self._now.routes[name] = route
        return route

    def _fallback(self, index: int, name: str) -> Route:
        field = f"spec.routing.fallbacks[{index}]"
        try:
            return self._route(name, "chat", field)
        except NotFound as error:
            raise InvalidArgument(field, error.message) from error

    def _auto(self, request: Request) -> tuple[str, str]:
        auto = self.catalog.auto
        if auto is None:
            raise FailedPrecondition("AUTO_NOT_CONFIGURED", "model `auto` needs an `auto:` section in the models file")
        said = complexity.judge(_last_user_text(request), auto)
        return (auto.complex if said.is_complex else auto.simple), said.reason


def _last_user_text(request: Request) -> str:
    if request.prompt.raw_prompt is not None:
        return request.prompt.raw_prompt
    return next((message.text for message in reversed(request.prompt.messages) if message.role is Role.USER), "")
