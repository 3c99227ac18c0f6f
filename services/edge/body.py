"""Reads JSON bodies into typed structs and says exactly what is wrong with a bad one.

The fast path is one msgspec call. Only a body that it refuses is looked at again, slowly: to name the field, because
msgspec reports malformed text (a lone surrogate, NaN) without saying where, and to take what is right after all, such
as 10.0 for an integer. It never repairs a value.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from typing import Any, Generic, TypeVar

import msgspec

from services.edge.choices import allowed
from services.edge.fault import Fault

T = TypeVar("T")

_WHERE = re.compile(r"(?s)(?P<what>.*?)(?: - at (?:`key` in )?`\$(?P<path>.*?)(?:\[\.\.\.\])*`)?$")
_UNKNOWN = re.compile(r"Object contains unknown field `(?P<name>.*)`$", re.DOTALL)
_MISSING = re.compile(r"Object missing required field `(?P<name>.*)`$", re.DOTALL)
_VALUE = re.compile(r"Invalid (?:enum )?value (?P<value>.*)$", re.DOTALL)
_VALUE_CHARS_MAX = 80
_EXACT_MAX = 2**53
_TOO_DEEP = "The body is nested too deeply."


class BodyReader(Generic[T]):
    """Decodes the bodies of one endpoint.

    Args:
        model: The struct to read; it forbids unknown fields.
        refused: Known fields that are not supported, each with what to do instead. Null counts as not given.
        hints: What to do instead of giving a field another type, for those where many do.
    """

    def __init__(
        self, model: type[T], refused: Mapping[str, str] | None = None, hints: Mapping[str, str] | None = None
    ) -> None:
        self._decode = msgspec.json.Decoder(model).decode
        self._model = model
        self._refused, self._hints = refused or {}, hints or {}

    def read(self, raw: bytes) -> T:
        """Decodes a body.

        Raises:
            Fault: 400, naming the field where there is one.
        """
        try:
            return self._decode(raw)
        except RecursionError:
            raise Fault.invalid(_TOO_DEEP) from None
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            return self._read_slowly(raw, error)

    def _read_slowly(self, raw: bytes, error: Exception) -> T:
        """Reads the body again without refused fields that are null and with 10.0 as 10; else names the field at fault.

        It must be sound JSON for that: what JSON cannot hold would come out as null.
        """
        _find_bad_text(raw)
        if not isinstance(error, msgspec.ValidationError):
            raise Fault.invalid(f"The body is not valid JSON: {error}.")
        document = None
        try:
            document = _decode_plain(raw)
            return self._decode(msgspec.json.encode(self._without_refused(document)))
        except msgspec.ValidationError as second:
            raise fault_of(second, self._model, document, self._hints) from None
        except RecursionError:
            raise Fault.invalid(_TOO_DEEP) from None

    def _without_refused(self, document: Any) -> Any:
        """The body without its refused fields, all of which must be null."""
        if not isinstance(document, dict):
            return document
        for name, instead in self._refused.items():
            if document.get(name) is not None:
                raise Fault.invalid(f"Not supported: {instead}", name, "unsupported_parameter")
        return {key: value for key, value in document.items() if key not in self._refused}


def fault_of(
    error: msgspec.ValidationError, model: type, document: Any, hints: Mapping[str, str] | None = None
) -> Fault:
    """The fault that a validation error stands for.

    Args:
        error: What msgspec says.
        model: The struct that was to be read.
        document: What it was to be read from.
        hints: What to do instead of giving a field another type.
    """
    match = _WHERE.match(str(error))
    assert match is not None
    what, path = match["what"], (match["path"] or "").lstrip(".")
    if unknown := _UNKNOWN.match(what):
        return Fault.invalid("Unknown field.", _join(path, unknown["name"]), "unknown_parameter")
    if missing := _MISSING.match(what):
        return Fault.invalid("This field is required.", _join(path, missing["name"]), "missing_required_parameter")
    if value := _VALUE.match(what):
        what = f"Invalid value {_shortened(value['value'])}"
        if choices := allowed(model, path, document):
            what += f"; expected one of {', '.join(choices)}"
    hint = (hints or {}).get(path.partition("[")[0]) if ", got `" in what else None
    return Fault.invalid(f"{what}. {hint}" if hint else f"{what}.", path or None, "invalid_value")


def _number(literal: str) -> int | float:
    """A number with a fraction or an exponent; JSON Schema's integers may be written so, as far as they are exact."""
    value = float(literal)
    return int(value) if value.is_integer() and abs(value) <= _EXACT_MAX else value


_decode_plain = msgspec.json.Decoder(float_hook=_number).decode


def _shortened(value: str) -> str:
    """A value in quotation marks, short enough to be read."""
    return value if len(value) <= _VALUE_CHARS_MAX else f"{value[:_VALUE_CHARS_MAX]}..."


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _find_bad_text(raw: bytes) -> None:
    """Raises a fault for the first value that JSON, UTF-8 or a protobuf string cannot hold.

    The standard library reads more than JSON: what it can read and msgspec cannot is one of these.
    """
    try:
        document = json.loads(raw.decode(), parse_int=float)
    except UnicodeDecodeError as error:
        raise Fault.invalid(f"The body is not UTF-8: byte {error.start} is not text.") from None
    except RecursionError:
        raise Fault.invalid(_TOO_DEEP) from None
    except ValueError as error:
        raise Fault.invalid(f"The body is not valid JSON: {error}.") from None
    for path, value in _leaves(document):
        if isinstance(value, float) and not math.isfinite(value):
            raise Fault.invalid("NaN and infinite numbers are not JSON.", path or None)
        if isinstance(value, str) and not _is_text(value):
            raise Fault.invalid("The text has a lone surrogate, which is not a character.", path or None)


def _leaves(document: Any) -> Iterator[tuple[str, Any]]:
    """Yields every scalar, and every key as a scalar of its own, with its path."""
    pending = [("", document)]
    while pending:
        path, value = pending.pop()
        if isinstance(value, dict):
            yield from ((path, key) for key in value)
            pending.extend((_join(path, key), item) for key, item in value.items())
        elif isinstance(value, list):
            pending.extend((f"{path}[{index}]", item) for index, item in enumerate(value))
        else:
            yield path, value


def _is_text(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True
