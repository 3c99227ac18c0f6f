"""What a node of torch's export says: its operation, its arguments, and the shapes that the trace saw."""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch.fx import Node


class UnknownOperation(Exception):
    """The model does something that is not known here."""


def operation(node: Node) -> str:
    """What a node does, by torch's name for it."""
    return str(getattr(node.target, "__name__", "")) if node.target is operator.getitem else str(node.target)


def given(node: Node) -> Any:
    """Its arguments; torch's type for them promises nothing."""
    return node.args


def arguments_of(node: Node, *defaults: Any) -> Any:
    """Its arguments, of which so many are read, with defaults for those that it was not given; no others."""
    refuse(node, bool(node.kwargs) or len(node.args) > len(defaults))
    return (*node.args, *defaults[len(node.args) :])


def refuse(node: Node, is_unknown: bool) -> None:
    """Raises UnknownOperation where a node does what is not known."""
    if is_unknown:
        raise UnknownOperation(f"{operation(node)} with such arguments is not known")


def kind_of(value: Any) -> torch.dtype:
    """Of the numbers that a value has."""
    return value.meta["val"].dtype  # type: ignore[no-any-return]


def shape_of(node: Node) -> list[int]:
    """Of a value, -1 where it depends on the step."""
    sizes = [size if isinstance(size, int) else -1 for size in node.meta["val"].shape]
    refuse(node, sizes.count(-1) > 1)
    return sizes


def heads_of(node: Node) -> tuple[int, int]:
    """How many heads, and how wide, of shape (1, heads, tokens, width)."""
    _, count, _, width = node.meta["val"].shape
    return count, width
