"""YAML files checked against a model, with complaints that name file, line and field.

    models.yaml:12: models[0].targets[1].engine: must be 'local' or 'openai'

Unknown fields and repeated keys are refused: each is a setting that somebody believes to be in force.
"""

from __future__ import annotations

import types
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from kit.errors import ConfigError

Location = tuple[int | str, ...]


class Document(BaseModel):
    """Base of the models of configuration files: frozen, and closed to fields that nobody declared."""

    model_config = ConfigDict(frozen=True, extra="forbid")


ModelT = TypeVar("ModelT", bound=BaseModel)


def load_yaml(path: str | Path, model: type[ModelT]) -> ModelT:
    """Reads a YAML file.

    Raises:
        ConfigError: The file cannot be read, is not YAML, or is not what the model says; every fault is named.
    """
    path = Path(path)
    try:
        return parse_yaml(path.read_text(encoding="utf-8"), model, path.name)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from None


def parse_yaml(text: str, model: type[ModelT], name: str) -> ModelT:
    """Reads YAML text; `name` stands for the file in complaints.

    Raises:
        ConfigError: As `load_yaml`.
    """
    loader = yaml.SafeLoader(text)
    try:
        root = loader.get_single_node()
        repeated = _repeated(root, set())
        faults = [f"{name}:{node.start_mark.line + 1}: {_path(at)}: repeated" for at, node in repeated]
        if faults:
            raise ConfigError("; ".join(faults))
        value = {} if root is None else loader.construct_document(root)
        return model.model_validate(value)
    except yaml.YAMLError as error:
        raise ConfigError(_syntax_complaint(error, name)) from None
    except ValidationError as error:
        faults = [_complaint(one, root, model, name) for one in _true_faults(error.errors())]
        raise ConfigError("; ".join(faults)) from None
    except RecursionError:
        raise ConfigError(f"{name}: is nested too deeply") from None
    finally:
        loader.dispose()


def place(path: str | Path, at: Location) -> str:
    """Says where a field stands, as complaints do: `models.yaml:12: models[0].name`.

    For what a model cannot check alone: a name that another file has, a file that must be there.

    Raises:
        ConfigError: The file cannot be read any more.
    """
    path = Path(path)
    try:
        root = yaml.SafeLoader(path.read_text(encoding="utf-8")).get_single_node()
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from None
    found, line = _locate(root, at)
    return f"{path.name}:{line}: {_path(found)}"


def _true_faults(errors: list[ErrorDetails]) -> list[ErrorDetails]:
    """Returns the errors without those that a list is too short because bad items of it were not counted."""

    def is_hollow(error: ErrorDetails) -> bool:
        at, least = error["loc"], error.get("ctx", {}).get("min_length", 0)
        has_bad_item = any(len(other["loc"]) > len(at) and other["loc"][: len(at)] == at for other in errors)
        return error["type"] == "too_short" and has_bad_item and len(error["input"]) >= least

    return [error for error in errors if not is_hollow(error)]


def _complaint(error: ErrorDetails, root: yaml.Node | None, model: type[BaseModel], name: str) -> str:
    location, line = _locate(root, error["loc"])
    message = error["msg"].removeprefix("Value error, ").replace("Input should be", "must be", 1)
    message = message.replace("String should", "must", 1)
    if error["type"] == "extra_forbidden":
        owner = _model_at(model, location[:-1])
        allowed = f" (allowed: {', '.join(sorted(_keys(owner)))})" if owner else ""
        message = f"there is no such field{allowed}"
    elif error["type"] == "missing":
        message = "is required"
    return f"{name}:{line}: {_path(location)}: {message}"


def _syntax_complaint(error: yaml.YAMLError, name: str) -> str:
    mark = getattr(error, "problem_mark", None)
    line = "" if mark is None else f"{mark.line + 1}:"
    problem = getattr(error, "problem", None) or str(error)
    return f"{name}:{line} not valid YAML: {problem}"


def _locate(root: yaml.Node | None, location: Location) -> tuple[Location, int]:
    """Returns the part of a location that exists in the file, with a field that is missing, and its line.

    Pydantic's locations also hold what is not in the file: the tag of a union's member, a validator's name.
    """
    found: Location = ()
    node, line = root, 1 if root is None else root.start_mark.line + 1
    for position, part in enumerate(location):
        key, child = _child(node, part)
        if child is not None:
            node, found = child, (*found, part)
            line = (key or child).start_mark.line + 1
        elif position == len(location) - 1 and (node is None or isinstance(node, yaml.MappingNode)):
            found = (*found, part)
    return found, line


def _child(node: yaml.Node | None, part: int | str) -> tuple[yaml.Node | None, yaml.Node | None]:
    if isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
        return None, node.value[part]
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value == str(part):
                return key, value
    return None, None


def _repeated(
    node: yaml.Node | None, looked_at: set[yaml.Node], at: Location = ()
) -> Iterator[tuple[Location, yaml.Node]]:
    """Yields each key that its mapping already has; what aliases name many times is looked at once."""
    if node is None or node in looked_at:
        return
    looked_at.add(node)
    if isinstance(node, yaml.SequenceNode):
        for index, child in enumerate(node.value):
            yield from _repeated(child, looked_at, (*at, index))
    elif isinstance(node, yaml.MappingNode):
        seen = set()
        for key, child in node.value:
            name = key.value if isinstance(key, yaml.ScalarNode) else str(key)
            if name in seen:
                yield (*at, name), key
            seen.add(name)
            yield from _repeated(child, looked_at, (*at, name))


def _path(location: Location) -> str:
    """Returns a location as `models[0].targets[1].engine`."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location)
    return text.removeprefix(".") or "the document"


def _model_at(model: type[BaseModel] | None, location: Location) -> type[BaseModel] | None:
    """Returns the model that a location is checked against; None where that is not one model only."""
    annotation: Any = model
    for part in location:
        if isinstance(part, int):
            annotation = next(iter(get_args(annotation)), None)
        elif get_origin(annotation) is dict:
            annotation = get_args(annotation)[1]
        else:
            owner = _only_model(annotation)
            field = next((f for n, f in owner.model_fields.items() if part in (n, f.alias)), None) if owner else None
            annotation = field.annotation if field else None
        annotation = _plain(annotation)
    return _only_model(annotation)


def _plain(annotation: Any) -> Any:
    """Returns an annotation without Annotated and without None."""
    if get_origin(annotation) is Annotated:
        return _plain(get_args(annotation)[0])
    if get_origin(annotation) in (Union, types.UnionType):
        others = [arg for arg in get_args(annotation) if arg is not type(None)]
        return _plain(others[0]) if len(others) == 1 else None
    return annotation


def _only_model(annotation: Any) -> type[BaseModel] | None:
    return annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else None


def _keys(model: type[BaseModel]) -> list[str]:
    return [field.alias or name for name, field in model.model_fields.items()]
