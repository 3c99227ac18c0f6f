"""The OpenAPI 3.1 document, made of the route table and the structs that read the bodies: it cannot drift from them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import msgspec

from services.edge import provenance, rate_limits
from services.edge.fault import ErrorEnvelope
from services.edge.routes import Route

_REF = "#/components/schemas/{name}"
_ABOUT = "LLM serving as gRPC microservices: the REST edge. Every failure is answered in OpenAI's error envelope."
# What the edge itself or inference may answer to any request, besides what a route names.
_ERRORS = {
    400: "The request is wrong; `param` names the field. Also what the safety policy refuses.",
    401: "The caller is not known.",
    403: "The caller may not do this.",
    404: "No such model.",
    408: "The body was not complete in time.",
    413: "The body is too large.",
    415: "The body is not JSON.",
    429: "A limit is reached; `Retry-After` says when to come back.",
    431: "A header is too large.",
    500: "Internal error.",
    501: "Not served yet.",
    503: "Inference cannot answer now.",
    504: "The request's time is over.",
}
_GET_ERRORS = (400, 401, 403, 404, 429, 431, 500, 501, 503, 504)
_HEADERS = {
    "X-Request-ID": {"$ref": "#/components/headers/RequestId"},
    "X-Process-Time": {"$ref": "#/components/headers/ProcessTime"},
}
_ANSWER_HEADERS = _HEADERS | {
    name: {"description": description, "schema": {"type": "string"}}
    for name, description in (provenance.HEADERS | rate_limits.HEADERS).items()
}
_SHARED_HEADERS = {
    "RequestId": {"description": "The caller's id, or one made here.", "schema": {"type": "string"}, "required": True},
    "ProcessTime": {
        "description": "Seconds until the answer began.",
        "schema": {"type": "string", "pattern": r"^[0-9]+\.[0-9]{6}$"},
        "required": True,
    },
}
_SCHEMES = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "An API key, or a token that a login gave."},
    "key": {"type": "apiKey", "in": "header", "name": "X-API-Key", "description": "An API key."},
}
_PARAMETERS = [
    {
        "name": "X-Request-ID",
        "in": "header",
        "description": "Echoed where it is 1 to 128 of letters, digits and `._:-`.",
        "schema": {"type": "string"},
    },
    {
        "name": "X-Request-Timeout-Ms",
        "in": "header",
        "description": "Time that the request may take.",
        "schema": {"type": "integer", "minimum": 1, "maximum": 3600000},
    },
]
_CONTROLS = [
    {
        "name": "Cache-Control",
        "in": "header",
        "description": "`no-cache` asks for a fresh answer, `no-store` keeps the cache out, `max-age=N` takes one of "
        "at most N seconds, `only-if-cached` nothing but a stored one (else 504).",
        "schema": {"type": "string"},
    },
    {
        "name": "X-Millrace-Safety-Profile",
        "in": "header",
        "description": "Name of a safety profile.",
        "schema": {"type": "string", "maxLength": 64, "pattern": "^[a-z0-9_-]+$"},
    },
]


def document(routes: Sequence[Route], version: str) -> bytes:
    """The document of these routes, as JSON."""
    structs = [kind for route in routes for kind in (route.body, route.answer, *route.events) if kind is not None]
    schemas, components = msgspec.json.schema_components([*structs, ErrorEnvelope], ref_template=_REF)
    refs = {_key(kind): schema for kind, schema in zip([*structs, ErrorEnvelope], schemas, strict=True)}
    paths: dict[str, Any] = {}
    for route in routes:
        path = route.path.replace(":path}", "}")
        paths.setdefault(path, {})[route.method.lower()] = _operation(route, refs)
    return json.dumps(
        {
            "openapi": "3.1.0",
            "info": {"title": "Millrace", "version": version, "description": _ABOUT, "license": {"name": "Apache-2.0"}},
            "paths": paths,
            # None at all where inference lets anybody in.
            "security": [{"bearer": []}, {"key": []}, {}],
            "components": {"schemas": components, "headers": _SHARED_HEADERS, "securitySchemes": _SCHEMES},
        },
        separators=(",", ":"),
    ).encode()


def _key(kind: Any) -> str:
    return str(kind)


def _operation(route: Route, refs: dict[str, Any]) -> dict[str, Any]:
    parameters = [*_path_parameters(route), *_query(route), *_PARAMETERS, *(_CONTROLS if route.body else ())]
    operation: dict[str, Any] = {
        "operationId": f"{route.method.lower()}{route.path.title().translate(_NAME)}",
        "summary": route.summary,
        "tags": [route.tag],
        "parameters": parameters,
        "responses": {"200": _success(route, refs), **_empty(route), **_failures(route, refs)},
    }
    if route.body is not None:
        content = {"application/json": {"schema": refs[_key(route.body)]}}
        operation["requestBody"] = {"required": True, "content": content}
    if route.form is not None:
        operation["requestBody"] = {"required": True, "content": {"multipart/form-data": {"schema": route.form}}}
    return operation


_NAME = str.maketrans("", "", "/_-{}:.")


def _path_parameters(route: Route) -> list[dict[str, Any]]:
    names = [part[1:].partition(":")[0].rstrip("}") for part in route.path.split("/") if part.startswith("{")]
    schema = {"type": "string", "minLength": 1}
    return [{"name": name, "in": "path", "required": True, "schema": schema} for name in names]


def _query(route: Route) -> list[dict[str, Any]]:
    if route.query is None:
        return []
    schema = msgspec.json.schema(route.query)["$defs"][route.query.__name__]
    needed = schema.get("required", ())
    return [
        {"name": name, "in": "query", "required": name in needed, "schema": kind}
        for name, kind in schema["properties"].items()
    ]


def _success(route: Route, refs: dict[str, Any]) -> dict[str, Any]:
    content: dict[str, Any] = {}
    if route.answer is not None:
        content["application/json"] = {"schema": refs[_key(route.answer)]}
    if route.events:
        content["text/event-stream"] = {"schema": _event([refs[_key(one)] for one in (*route.events, ErrorEnvelope)])}
    if route.text is not None:
        content[route.text] = {"schema": {} if route.text == "application/json" else {"type": "string"}}
    headers = _ANSWER_HEADERS if route.body else _HEADERS
    return {"description": "The answer.", "headers": headers, "content": content}


def _empty(route: Route) -> dict[str, Any]:
    return {"204": {"description": route.empty, "headers": _HEADERS}} if route.empty else {}


def _event(kinds: list[dict[str, Any]]) -> dict[str, Any]:
    """One server-sent event, as OpenAPI 3.2 describes the items of a stream; the OpenAI ones end with `[DONE]`."""
    data = {"type": "string", "contentMediaType": "application/json", "contentSchema": {"anyOf": kinds}}
    return {"type": "object", "required": ["data"], "properties": {"event": {"type": "string"}, "data": data}}


def _failures(route: Route, refs: dict[str, Any]) -> dict[str, Any]:
    envelope = {"application/json": {"schema": refs[_key(ErrorEnvelope)]}}
    statuses = _ERRORS if route.body or route.form else _GET_ERRORS
    failures = {
        str(status): {"description": _ERRORS[status], "headers": _HEADERS, "content": envelope} for status in statuses
    }
    for status in route.errors:
        content = {"application/json": {"schema": refs[_key(route.answer)]}}
        failures[str(status)] = {"description": "The same, while that is so.", "headers": _HEADERS, "content": content}
    return failures
