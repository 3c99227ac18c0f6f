"""Holds an answer to an output format: JSON, a JSON schema, a regular expression, or one of some texts.

llguidance compiles the format, and tells before each draw which tokens may come next; the others cannot be drawn. An
answer ends where the format leaves nothing more to say. One that is cut short by its length may be incomplete.
"""

from __future__ import annotations

import json
import threading
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from llguidance import LLMatcher, LLTokenizer
from llguidance.hf import from_tokenizer
from llguidance.numpy import fill_next_token_bitmask

from kit.errors import FailedPrecondition, InvalidArgument
from services.inference.engines.local.conversation import offered
from services.inference.generation import OutputFormat, Prompt

if TYPE_CHECKING:
    from llguidance._lib import JsonCompileOptions  # exists for type checkers only

    from services.inference.engines.local.model import LocalModel

# Models like to set JSON in lines, and some never stop: so much space may stand between two of its signs.
JSON_OPTIONS: JsonCompileOptions = {"whitespace_pattern": r"[ \n]{0,8}"}


class Grammars:
    """The formats of one model."""

    def __init__(self, model: LocalModel) -> None:
        self._model = model
        self._tokenizer: LLTokenizer | None = None
        self._making = threading.Lock()

    def compile(self, output_format: OutputFormat) -> Grammar:
        """Compiles a format; slow at first, for the tokenizer is prepared then. Any thread may call it.

        Raises:
            InvalidArgument: The format is none, or uses what cannot be enforced.
        """
        field = f"spec.output_format.{output_format.kind}"
        try:
            text = _grammar(output_format)
        except ValueError as error:
            raise InvalidArgument(field, f"cannot be read: {error}") from error
        return self._compiled(text, field)

    def compile_calls(self, prompt: Prompt) -> Grammar | None:
        """Compiles what calls of tools must look like, where the request insists; None: the model is free.

        Raises:
            InvalidArgument: The parameters of a tool use what cannot be enforced.
        """
        tool_format, tools, choice = self._model.tool_format, offered(prompt), prompt.tool_choice
        if tool_format is None or not tools:
            return None
        said: dict[str, Any] = {"literal": self._model.marker, "options": JSON_OPTIONS}
        if choice is not None and choice.mode in ("required", "named"):
            is_single = choice.mode == "named" or prompt.parallel_tool_calls is False
            text = tool_format.required(tools, is_single=is_single, **said)
        elif any(tool.strict for tool in tools):
            text = tool_format.free(tools, **said)
        else:
            return None
        return self._compiled(text, "spec.tools")

    def _compiled(self, text: str, field: str) -> Grammar:
        tokenizer = self._prepared()
        matcher = LLMatcher(tokenizer, text, log_level=0)
        if matcher.is_error():
            raise InvalidArgument(field, f"cannot be enforced: {_first_line(matcher.get_error())}")
        return Grammar(matcher, tokenizer.vocab_size, self._model.vocab_size)

    def _prepared(self) -> LLTokenizer:
        with self._making:
            if self._tokenizer is None:
                ends, tokenizer = sorted(self._model.end_ids), self._model.tokenizer
                # Some tokenizers know tokens for which their model has no logits.
                token_count = max(self._model.vocab_size, len(tokenizer))
                self._tokenizer = from_tokenizer(tokenizer, token_count, ends or None)
            return self._tokenizer


class Grammar:
    """A compiled format, from which each choice gets its own constraint."""

    def __init__(self, matcher: LLMatcher, token_count: int, vocab_size: int) -> None:
        self._matcher, self._token_count, self._vocab_size = matcher, token_count, vocab_size

    def constraint(self) -> GrammarConstraint:
        """What holds one choice, at its beginning."""
        return GrammarConstraint(self._matcher.deep_copy(), self._token_count, self._vocab_size)


class GrammarConstraint:
    """The format as far as one choice has come in it."""

    def __init__(self, matcher: LLMatcher, token_count: int, vocab_size: int) -> None:
        """`token_count` are the tokenizer's, `vocab_size` those that have logits."""
        self._matcher = matcher
        self._allowed = np.zeros((1, (token_count + 31) // 32), dtype=np.int32)
        self._vocab_size = vocab_size

    def restrict(self, logits: torch.Tensor) -> None:
        """Sets to minus infinity what may not come next, in place, shape (vocabulary,)."""
        if self._matcher.is_error():
            return
        fill_next_token_bitmask(self._matcher, self._allowed)
        bits = np.unpackbits(self._allowed.view(np.uint8)[0], bitorder="little")[: self._vocab_size]
        logits.masked_fill_(torch.from_numpy(bits == 0).to(logits.device), -torch.inf)

    def accept(self, token_id: int) -> None:
        """Takes the token that was drawn."""
        self._matcher.consume_token(token_id)

    @property
    def is_complete(self) -> bool:
        """Whether nothing more may be said.

        Raises:
            FailedPrecondition: FORMAT_TOO_COMPLEX; the format needs more work per token than its library is allowed.
        """
        if self._matcher.is_error():
            problem = f"the output format cannot be followed further: {_first_line(self._matcher.get_error())}"
            raise FailedPrecondition("FORMAT_TOO_COMPLEX", problem)
        return self._matcher.is_stopped()


def _grammar(output_format: OutputFormat) -> str:
    match output_format.kind:
        case "json_object":
            return LLMatcher.grammar_from_json_schema({"type": "object"}, defaults=JSON_OPTIONS)
        case "json_schema":
            return LLMatcher.grammar_from_json_schema(json.loads(output_format.schema_json), defaults=JSON_OPTIONS)
        case "regex":
            return LLMatcher.grammar_from_regex(output_format.regex)
        case "choice":
            return "start: " + " | ".join(json.dumps(text) for text in output_format.choices)
    raise ValueError(f"{output_format.kind} is no format")


def _first_line(text: str) -> str:
    return text.strip().partition("\n")[0][:300]
