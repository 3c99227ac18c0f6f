"""What a field of a body may be where it has a few fixed values: so that a refusal can name them.

Only asked about a body that was refused already. It reads the types that msgspec reads the body with, nothing else.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import msgspec
from msgspec import inspect

_STEP = re.compile(r"\[(?:\d+|\.\.\.)\]|[^.\[\]]+")


def allowed(model: type, path: str, document: Any) -> list[str]:
    """Returns the fixed values that a place of a body may have, sorted; empty where it is free.

    Args:
        model: The struct that the body is read into.
        path: Where in the body, as msgspec says it: messages[0].role.
        document: The body, by whose tags it is told which of several structs is meant.
    """
    steps: list[str] = _STEP.findall(path)
    kinds, here = [inspect.type_info(model)], document
    for depth, step in enumerate(steps, start=1):
        structs = [kind for kind in _flat(kinds) if isinstance(kind, inspect.StructType)]
        if depth == len(steps) and (tags := [str(kind.tag) for kind in structs if kind.tag_field == step]):
            return sorted(tags)
        kinds = [inner for kind in _meant(_flat(kinds), here) for inner in _within(kind, step)]
        here = _part(here, step)
    return sorted({str(value) for kind in _flat(kinds) for value in _values(kind)})


def _flat(kinds: list[inspect.Type]) -> list[inspect.Type]:
    """The alternatives of types that have several, without what is said about them besides."""
    flat: list[inspect.Type] = []
    for kind in kinds:
        if isinstance(kind, inspect.Metadata):
            flat += _flat([kind.type])
        elif isinstance(kind, inspect.UnionType):
            flat += _flat(list(kind.types))
        else:
            flat.append(kind)
    return flat


def _meant(kinds: list[inspect.Type], here: Any) -> list[inspect.Type]:
    """Those that the tag in the body chooses; all where none does."""

    def is_chosen(kind: inspect.Type) -> bool:
        return isinstance(kind, inspect.StructType) and bool(kind.tag_field) and here.get(kind.tag_field) == kind.tag

    return [kind for kind in kinds if isinstance(here, dict) and is_chosen(kind)] or kinds


def _within(kind: inspect.Type, step: str) -> Iterator[inspect.Type]:
    if isinstance(kind, inspect.StructType):
        yield from (field.type for field in kind.fields if field.encode_name == step)
    elif isinstance(kind, inspect.ListType) and step.startswith("["):
        yield kind.item_type
    elif isinstance(kind, inspect.DictType):
        yield kind.value_type


def _part(here: Any, step: str) -> Any:
    if isinstance(here, dict):
        return here.get(step)
    if isinstance(here, list) and step[1:-1].isdecimal() and int(step[1:-1]) < len(here):
        return here[int(step[1:-1])]
    return None


def _values(kind: inspect.Type) -> list[Any]:
    if isinstance(kind, inspect.LiteralType):
        return list(kind.values)
    if isinstance(kind, inspect.EnumType):
        return [msgspec.to_builtins(one) for one in kind.cls]
    return []
