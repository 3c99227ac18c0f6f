"""The route table: what the gateway serves and the document describes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from starlette.routing import compile_path

from services.edge.body import BodyReader
from services.edge.exchange import Exchange
from services.edge.fault import Fault

# Answers a request: what it returns is sent as JSON; None means that it has answered by itself.
Handler = Callable[[Exchange, Any], Awaitable[Any]]


@dataclass(frozen=True)
class Route:
    """One endpoint.

    Attributes:
        path: Template in Starlette's form; parameters are in `Exchange.params`.
        body: Struct of the body; None for endpoints without one.
        answer: Struct of the JSON answer; None where there is only a stream or text.
        query: Struct of the URL's query, where the endpoint reads one.
        events: Structs of the data of server-sent events, where the endpoint can stream.
        text: Media type of an answer that is not JSON.
        refused: Known fields that are not supported, with what to do instead.
        hints: What to give in place of another type, for fields where many give it.
        errors: Statuses besides 200 that the endpoint itself gives.
        form: Schema of the multipart form that the endpoint reads by itself, where it takes one.
        empty: When the answer is 204, without a body; None where it never is.
        explains: Whether errors may carry keys beside OpenAI's four; only the suite's own endpoints do.
    """

    method: str
    path: str
    handle: Handler
    summary: str
    tag: str
    body: type | None = None
    answer: Any = None
    events: tuple[type, ...] = ()
    text: str | None = None
    refused: Mapping[str, str] = field(default_factory=dict)
    hints: Mapping[str, str] = field(default_factory=dict)
    errors: tuple[int, ...] = ()
    explains: bool = False
    query: type | None = None
    form: Mapping[str, Any] | None = None
    empty: str | None = None


class Router:
    """Finds the endpoint of a request: one dictionary look-up for a fixed path, a pattern for the others."""

    def __init__(self, routes: Iterable[Route]) -> None:
        self._fixed: dict[str, dict[str, Bound]] = {}
        self._patterns: list[tuple[Any, dict[str, Bound]]] = []
        for route in routes:
            pattern, template, convertors = compile_path(route.path)
            bound = Bound(route, template)
            if convertors:
                known = next((methods for same, methods in self._patterns if same.pattern == pattern.pattern), None)
                if known is None:
                    self._patterns.append((pattern, {route.method: bound}))
                else:
                    known[route.method] = bound
            else:
                self._fixed.setdefault(route.path, {})[route.method] = bound

    def find(self, exchange: Exchange) -> Bound:
        """Finds the endpoint and notes its template and parameters in the exchange.

        Raises:
            Fault: 404 for an unknown path, 405 (with Allow) for a wrong method.
        """
        methods = self.methods(exchange)
        method = "GET" if exchange.method == "HEAD" else exchange.method
        bound = methods.get(method)
        if bound is None:
            exchange.route = next(iter(methods.values())).template
            message = f"{exchange.method} is not possible here."
            raise Fault(405, message, code="method_not_allowed", headers=((b"allow", allow(methods)),))
        exchange.route = bound.template
        return bound

    def methods(self, exchange: Exchange) -> dict[str, Bound]:
        """The endpoints of a path by method; raises a 404 fault where there are none."""
        if methods := self._fixed.get(exchange.path):
            return methods
        for pattern, methods in self._patterns:
            if match := pattern.match(exchange.path):
                exchange.params = match.groupdict()
                return methods
        raise Fault(404, "There is no such path; /docs lists what there is.", code="path_not_found")


class Bound:
    """A route with what serving it needs."""

    __slots__ = ("reader", "route", "template")

    def __init__(self, route: Route, template: str) -> None:
        self.route = route
        self.template = template
        self.reader: BodyReader[Any] | None = BodyReader(route.body, route.refused, route.hints) if route.body else None


def allow(methods: Mapping[str, object]) -> bytes:
    """The value of an Allow header."""
    names = set(methods) | {"OPTIONS"} | ({"HEAD"} if "GET" in methods else set())
    return ", ".join(sorted(names)).encode()
