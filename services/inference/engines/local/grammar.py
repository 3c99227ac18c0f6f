"""Holds an answer to an output format: JSON, a JSON schema, a regular expression, or one of some texts.

llguidance compiles the format, and tells before each draw which tokens may come next; the others cannot be drawn. An
answer ends where the format leaves nothing more to say. A model that would end within JSON closes what it says, and
says only what the format still asks for: a small one goes on for ever otherwise. One that is cut short by its length
may be incomplete.
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
from services.inference.engines.local.sampler import likeliest
from services.inference.generation import OutputFormat, Prompt

if TYPE_CHECKING:
    from llguidance._lib import JsonCompileOptions  # exists for type checkers only

    from services.inference.engines.local.model import LocalModel

# Models like to set JSON in lines, and some never stop: so much space may stand between two of its signs.
JSON_OPTIONS: JsonCompileOptions = {"whitespace_pattern": r"[ \n]{0,8}"}
# What closes a string, and what closes objects and lists, as tokens may have it.
QUOTES = [b'"' + rest for rest in (b"", b"}", b"]", b"}}", b"}]", b"]}")]
BRACKETS = [b"}", b"]", b"}}", b"}]", b"]}", b"]]", b"}}}"]
# What ends a number where more must come.
COMMA = b","
# Where one of these may come next, a text is being said: no number begins with them, nor true, false or null.
LETTERS = [bytes([letter]) for letter in b"bcdghijkmopqvwxyzBCDGHIJKMOPQVWXYZ"]
DIGITS = [bytes([digit]) for digit in b"0123456789"]


class Grammars:
    """The formats of one model."""

    def __init__(self, model: LocalModel) -> None:
        self._model = model
        self._tokenizer: LLTokenizer | None = None
        self._ending: Ending | None = None
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
        return self._compiled(text, field, is_json=output_format.kind in ("json_object", "json_schema"))

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
        return self._compiled(text, "spec.tools", is_json=True)

    def _compiled(self, text: str, field: str, is_json: bool) -> Grammar:
        tokenizer = self._prepared()
        matcher = LLMatcher(tokenizer, text, log_level=0)
        if matcher.is_error():
            raise InvalidArgument(field, f"cannot be enforced: {_first_line(matcher.get_error())}")
        ending = self._ending if is_json else None
        return Grammar(matcher, tokenizer.vocab_size, self._model.vocab_size, ending)

    def _prepared(self) -> LLTokenizer:
        with self._making:
            if self._tokenizer is None:
                ends, tokenizer = sorted(self._model.end_ids), self._model.tokenizer
                # Some tokenizers know tokens for which their model has no logits.
                token_count = max(self._model.vocab_size, len(tokenizer))
                self._tokenizer = from_tokenizer(tokenizer, token_count, ends or None)
                self._ending = Ending(self._tokenizer, ends, self._model.vocab_size)
            return self._tokenizer


class Ending:
    """How JSON is closed by one model's tokens."""

    def __init__(self, tokenizer: LLTokenizer, end_ids: list[int], vocab_size: int) -> None:
        def single(texts: list[bytes]) -> np.ndarray:
            tokens = (tokenizer.tokenize_bytes(text) for text in texts)
            return np.array([ids[0] for ids in tokens if len(ids) == 1 and ids[0] < vocab_size], dtype=np.int64)

        self._end_ids = frozenset(end_ids)
        self._quotes, self._brackets = single(QUOTES), single(BRACKETS)
        self._quote, self._comma = single(QUOTES[:1]), single([COMMA])
        self._letters, self._digits = single(LETTERS), single(DIGITS)

    def is_wanted(self, logits: torch.Tensor, is_allowed: np.ndarray) -> bool:
        """Whether the likeliest token, by logits of shape (vocabulary,), is an end that may not come yet."""
        (token_id,), _ = likeliest([logits])
        return token_id in self._end_ids and not is_allowed[token_id]

    def narrow(self, is_allowed: np.ndarray, is_wanted: bool) -> None:
        """Leaves only what closes or ends something, where that may come next, in place, shape (vocabulary,).

        Args:
            is_allowed: What the format lets come next.
            is_wanted: Whether the model would end just here, and not only earlier: then texts and numbers end, too.
        """
        if is_allowed[self._letters].any():  # within a text brackets are signs like others
            choices = [self._quotes] if is_wanted else []
        elif is_wanted:  # a quote may begin a text that must be there: what is more would be within it
            choices = [self._brackets, self._quote, self._comma]
        else:
            choices = [] if is_allowed[self._digits].any() else [self._brackets]
        for token_ids in choices:
            closing = token_ids[is_allowed[token_ids]]
            if len(closing):
                is_allowed[:] = False
                is_allowed[closing] = True
                return


class Grammar:
    """A compiled format, from which each choice gets its own constraint."""

    def __init__(self, matcher: LLMatcher, token_count: int, vocab_size: int, ending: Ending | None = None) -> None:
        self._matcher, self._token_count, self._vocab_size = matcher, token_count, vocab_size
        self._ending = ending

    def constraint(self) -> GrammarConstraint:
        """What holds one choice, at its beginning."""
        return GrammarConstraint(self._matcher.deep_copy(), self._token_count, self._vocab_size, self._ending)


class GrammarConstraint:
    """The format as far as one choice has come in it."""

    def __init__(self, matcher: LLMatcher, token_count: int, vocab_size: int, ending: Ending | None = None) -> None:
        """`token_count` are the tokenizer's, `vocab_size` those that have logits; `ending` is JSON's."""
        self._matcher, self._ending = matcher, ending
        self._is_closing = False  # the model would have ended before
        self._allowed = np.zeros((1, (token_count + 31) // 32), dtype=np.int32)
        self._vocab_size = vocab_size

    def restrict(self, logits: torch.Tensor) -> None:
        """Sets to minus infinity what may not come next, in place, shape (vocabulary,)."""
        if self._matcher.is_error():
            return
        fill_next_token_bitmask(self._matcher, self._allowed)
        bits = np.unpackbits(self._allowed.view(np.uint8)[0], bitorder="little")[: self._vocab_size]
        is_allowed = bits.astype(bool)
        if self._ending:
            is_wanted = self._ending.is_wanted(logits, is_allowed)
            self._is_closing = self._is_closing or is_wanted
            if self._is_closing:
                self._ending.narrow(is_allowed, is_wanted)
        logits.masked_fill_(torch.from_numpy(~is_allowed).to(logits.device), -torch.inf)

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
