"""OpenAI's published schemas, and what its streams are made of."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema

SCHEMAS = Path(__file__).parents[1] / "data" / "openai-schemas.json"


@cache
def validator() -> Callable[[str, Any], None]:
    """Returns a function that validates a value against a schema by name."""
    document = json.loads(SCHEMAS.read_text())
    _mark_nullable(document)

    def validate(name: str, value: Any) -> None:
        schema = {"$ref": f"#/components/schemas/{name}", "components": document["components"]}
        jsonschema.validate(value, schema, jsonschema.Draft202012Validator)

    return validate


def _mark_nullable(node: Any) -> None:
    """Rewrites OpenAPI 3.0's `nullable`, which JSON Schema does not know."""
    if isinstance(node, list):
        for item in node:
            _mark_nullable(item)
    elif isinstance(node, dict):
        for item in node.values():
            _mark_nullable(item)
        if node.pop("nullable", False) is True:
            if isinstance(node.get("type"), str):
                node["type"] = [node["type"], "null"]
            if "enum" in node:
                node["enum"] = [*node["enum"], None]
            if "$ref" in node:
                node["anyOf"] = [{"$ref": node.pop("$ref")}, {"type": "null"}]


def fields_of(name: str) -> set[str]:
    """Names of a schema's fields, of those that it is made of too."""
    schemas = json.loads(SCHEMAS.read_text())["components"]["schemas"]

    def collect(schema: dict[str, Any]) -> set[str]:
        if "$ref" in schema:
            schema = schemas[schema["$ref"].rpartition("/")[2]]
        return set(schema.get("properties", ())).union(*(collect(part) for part in schema.get("allOf", ())))

    return collect({"$ref": name})


def events_of(text: str) -> list[Any]:
    """The data objects of a stream, without its terminal event."""
    frames = [frame.removeprefix("data: ") for frame in text.split("\n\n") if frame.startswith("data: ")]
    return [json.loads(frame) for frame in frames if frame != "[DONE]"]
