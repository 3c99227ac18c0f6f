"""How models write that they want tools to be called: recognised from their chat template, and enforced where asked.

Three families cover the models that this engine is for; each writes a call as JSON, between markers of its own. What
reads the calls out of an answer is beside it. It knows neither tokenizers nor torch.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from services.inference.generation import Tool

Literal = Callable[[str], str]
"""Writes a text as the grammar wants it: a marker that is a token of its own is named by its id."""


@dataclass(frozen=True, slots=True)
class ToolFormat:
    """How one family writes calls.

    Attributes:
        begin: What stands before a call.
        end: What stands after it; empty where nothing does.
        opening: What follows `begin` when calls are written as the template shows them; a list begins with it.
        closing: What ends the list.
        separator: What stands between calls of one list; None: each has its own markers.
        arguments_key: What the arguments are called.
        is_bare: Whether an answer may be a call without `begin`.
        id_length: Characters of a call's id, where templates insist on a number.
    """

    begin: str
    end: str = ""
    opening: str = ""
    closing: str = ""
    separator: str | None = None
    arguments_key: str = "arguments"
    is_bare: bool = False
    id_length: int | None = None

    @property
    def markers(self) -> tuple[str, ...]:
        """Texts that may be tokens of their own, which decoding must not drop."""
        return tuple(marker for marker in (self.begin, self.end, MISTRAL_ARGUMENTS, MISTRAL_ID) if marker)

    def required(self, tools: Sequence[Tool], *, is_single: bool, literal: Literal, options: Mapping[str, Any]) -> str:
        """A grammar of answers that are calls of these tools, and nothing else.

        Args:
            tools: What may be called.
            is_single: Whether exactly one is.
            literal: Writes a marker.
            options: Of the JSON that the arguments are.
        """
        begin = "" if self.is_bare else literal(self.begin)
        if self.separator is None:
            blocks = "block" if is_single else 'block ("\\n" block)*'
            body = f"start: {blocks}\nblock: {self._block(begin, 'any', literal)}"
        else:
            body = f"start: {self._block(begin, 'any' if is_single else self._list(), literal)}"
        return f"{body}\n{self._calls(tools, options)}"

    def free(self, tools: Sequence[Tool], *, literal: Literal, options: Mapping[str, Any]) -> str:
        """A grammar of answers that say anything, and whose calls fit the tools."""
        begin = literal(self.begin)
        head = "head" if begin.startswith("<") else "head[lazy]"  # a token ends a text as it stands
        calls = "any" if self.separator is None else self._list()
        body = f"start: block* TEXT\nTEXT: /(.|\\n)*/\n{head}: TEXT {begin}"
        return f"{body}\nblock: {self._block('head', calls, literal)}\n{self._calls(tools, options)}"

    def _list(self) -> str:
        return f"any ({_text(self.separator or '')} any)*"

    def _block(self, begin: str, calls: str, literal: Literal) -> str:
        end = literal(self.end) if self.end else ""
        return f"{begin} {_text(self.opening)} {calls} {_text(self.closing)} {end}"

    def _calls(self, tools: Sequence[Tool], options: Mapping[str, Any]) -> str:
        rules = [f"any: {' | '.join(f'call_{at}' for at in range(len(tools)))}"]
        for at, tool in enumerate(tools):
            head = f'{{"name": {json.dumps(tool.name)}, "{self.arguments_key}": '
            schema = json.loads(tool.parameters_json or "{}")
            schema = {"type": "object", **schema, "x-guidance": dict(options)}
            rules.append(f"call_{at}: {_text(head)} %json {json.dumps(schema)} {_text('}')}")
        return "\n".join(rules) + "\n"


MISTRAL_ARGUMENTS, MISTRAL_ID = "[ARGS]", "[CALL_ID]"  # of its newer models: [TOOL_CALLS]name[CALL_ID]id[ARGS]{...}
HERMES = ToolFormat("<tool_call>", "</tool_call>", opening="\n", closing="\n")  # Hermes, Qwen 2.5 and 3
MISTRAL = ToolFormat("[TOOL_CALLS]", opening="[", closing="]", separator=", ", id_length=9)
LLAMA = ToolFormat("<|python_tag|>", arguments_key="parameters", separator="; ", is_bare=True)  # Llama 3.1 and later


def recognise(template: str | Mapping[str, str] | None) -> ToolFormat | None:
    """Tells the format from a chat template, or from several by name; None: it knows no tools, or another format."""
    if isinstance(template, Mapping):
        template = template.get("tool_use") or template.get("default")
    if not template or "tools" not in template:
        return None
    known = (each for each in (HERMES, MISTRAL, LLAMA) if each.begin in template)
    return next(known, LLAMA if '"parameters": ' in template and "ipython" in template else None)


def _text(text: str) -> str:
    return json.dumps(text) if text else ""
