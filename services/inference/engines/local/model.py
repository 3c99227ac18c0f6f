"""A causal language model from a Hugging Face directory or hub name, with its tokenizer and its defaults.

Loads with transformers' own code and never runs code that comes with a model. It knows nothing of requests in flight.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from jinja2 import TemplateError
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.convert_slow_tokenizer import bytes_to_unicode
from transformers.utils.logging import disable_progress_bar

from kit.errors import InvalidArgument
from services.inference.engines.local import conversation, tool_format
from services.inference.generation import Prompt, TokenLogprob, TopLogprob

EMBEDDED = "embedded"
EMBEDDED_DIRECTORY = Path(__file__).parents[2] / "models" / EMBEDDED
# Tokenizers without a limit report a huge number instead.
UNLIMITED = 10**9
Precision = Literal["auto", "float32", "bfloat16", "int8"]
BYTE_TOKEN = re.compile(r"<0x([0-9A-F]{2})>")


@dataclass(frozen=True)
class Defaults:
    """What the model's own generation_config.json asks for where a request says nothing."""

    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    max_tokens: int | None = None


class LocalModel:
    """A loaded model. One thread may run it; `encode` belongs to another, and to one only."""

    def __init__(self, network: Any, tokenizer: Any, name: str = "") -> None:
        self.name = name
        self.network = network
        self.device = network.device
        self._tokenizer = tokenizer
        config = network.config.get_text_config()
        self.vocab_size: int = config.vocab_size
        self.embedding_count = _embedding_count(network, config)
        """Tokens that may be in a prompt; `vocab_size` are those of an answer."""
        self.parameter_count: int = network.num_parameters()
        self.context_token_count_max = _context(config, tokenizer)
        generation = network.generation_config
        self.end_ids = frozenset(_as_ids(generation.eos_token_id) or _as_ids(tokenizer.eos_token_id))
        self.defaults = _defaults(generation)
        self._byte_of = {character: byte for byte, character in _byte_alphabet().items()}
        self._is_byte_level = '"ByteLevel"' in _decoder_json(tokenizer)
        self.tool_format = tool_format.recognise(tokenizer.chat_template)
        markers = self.tool_format.markers if self.tool_format else ()
        added = tokenizer.get_added_vocab()
        self._marker_ids: dict[str, int] = {marker: added[marker] for marker in markers if marker in added}
        special = {token_id for token_id, token in tokenizer.added_tokens_decoder.items() if token.special}
        self._silent_ids = special.union(tokenizer.all_special_ids) - set(self._marker_ids.values())

    @property
    def tokenizer(self) -> Any:
        """The tokenizer of transformers; for reading only."""
        return self._tokenizer

    def encode(self, prompt: Prompt) -> list[int]:
        """Turns a prompt into ids: a conversation by the model's chat template, a raw prompt as it stands.

        Raises:
            InvalidArgument: There is no template, the template refuses the conversation, or nothing is left of the
            text.
        """
        if prompt.raw_prompt is not None:
            ids: list[int] = self._tokenizer(prompt.raw_prompt, verbose=False)["input_ids"]
            field = "spec.raw_prompt"
        else:
            ids, field = self._render(prompt), "spec.conversation"
        if not ids:
            raise InvalidArgument(field, "the tokenizer leaves nothing of this text; send some more")
        return ids

    def decode(self, token_ids: Sequence[int], /) -> str:
        """Turns ids into text, without special tokens."""
        text: str = self._tokenizer.decode(token_ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return text

    def decode_marked(self, token_ids: Sequence[int], /) -> str:
        """As `decode`, with the markers of calls, which may be special tokens."""
        spoken = [token_id for token_id in token_ids if token_id not in self._silent_ids]
        text: str = self._tokenizer.decode(spoken, skip_special_tokens=False, clean_up_tokenization_spaces=False)
        return text

    def marker(self, text: str) -> str:
        """A text as grammars want it: by its id where it is a token of its own, else as it is written."""
        token_id = self._marker_ids.get(text)
        return json.dumps(text) if token_id is None else f"<[{token_id}]>"

    def token_bytes(self, token_id: int) -> bytes:
        """The bytes that a token stands for, which need not be whole characters."""
        token = self._tokenizer.convert_ids_to_tokens(token_id)
        if token is None:
            return b""
        if self._is_byte_level and all(character in self._byte_of for character in token):
            return bytes(self._byte_of[character] for character in token)
        if match := BYTE_TOKEN.fullmatch(token):
            return bytes([int(match[1], 16)])
        return str(token).replace("\u2581", " ").encode()

    def logprob(self, logits: torch.Tensor, token_id: int, top_count: int) -> TokenLogprob:
        """Describes a drawn token by the logits of its step, shape (vocabulary,), with the likeliest alternatives.

        The log probabilities are the model's own, before all adjustments.
        """
        logprobs = torch.log_softmax(logits, dim=-1)
        values, ids = logprobs.topk(min(top_count, len(logprobs)))
        top = tuple(
            TopLogprob((token := self.token_bytes(other)).decode("utf-8", "replace"), value, token)
            for other, value in zip(ids.tolist(), values.tolist(), strict=True)
        )
        token = self.token_bytes(token_id)
        return TokenLogprob(token.decode("utf-8", "replace"), float(logprobs[token_id]), token, top)

    def _render(self, prompt: Prompt) -> list[int]:
        if not self._tokenizer.chat_template:
            raise InvalidArgument("spec.conversation", "this model has no chat template; send a raw prompt")
        try:
            text = self._tokenizer.apply_chat_template(
                conversation.turns(prompt.messages),
                tools=conversation.tools(prompt) or None,
                tokenize=False,
                add_generation_prompt=True,
            )
        except TemplateError as error:
            raise InvalidArgument("spec.conversation.messages", f"the model's chat template says: {error}") from error
        ids: list[int] = self._tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        return ids


def load(name: str, precision: Precision = "auto") -> LocalModel:
    """Loads a model by directory, hub name, or `embedded`.

    Raises:
        OSError, ValueError: What transformers raises where there is no such model; a precision that the device lacks.
    """
    source = str(EMBEDDED_DIRECTORY) if name == EMBEDDED else name
    disable_progress_bar()  # its bars would stand between the lines of the log
    device = "cuda" if torch.cuda.is_available() else "cpu"
    tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
    network: Any = AutoModelForCausalLM.from_pretrained(
        source, dtype=_dtype(precision, device), trust_remote_code=False
    )
    return LocalModel(network.to(device).eval(), tokenizer, name)


def _dtype(precision: Precision, device: str) -> torch.dtype | str:
    """What a network computes in; int8 replaces the linear layers of one in float32 later.

    Automatic is float32 on a processor: without instructions for it bfloat16 is emulated, ten times slower. On CUDA it
    is what the checkpoint has.
    """
    if precision == "int8" and device != "cpu":
        raise ValueError("int8 is for processors; leave the precision to be chosen")
    if precision == "bfloat16" and device == "cpu" and not torch.cpu._is_avx512_bf16_supported():
        raise ValueError("this processor has no instructions for bfloat16; use float32 or int8")
    if precision == "auto":
        return torch.float32 if device == "cpu" else "auto"
    return torch.bfloat16 if precision == "bfloat16" else torch.float32


def _embedding_count(network: Any, config: Any) -> int:
    """Rows of the embedding, of which some networks have more than their configuration says."""
    try:
        return len(network.get_input_embeddings().weight)
    except (AttributeError, NotImplementedError):  # a network that does not say where it keeps it
        return int(config.vocab_size)


def _context(config: Any, tokenizer: Any) -> int | None:
    limits = [getattr(config, "max_position_embeddings", None), getattr(tokenizer, "model_max_length", None)]
    return min((limit for limit in limits if limit and limit < UNLIMITED), default=None)


def _as_ids(value: int | Sequence[int] | None) -> Sequence[int]:
    if value is None:
        return ()
    return (value,) if isinstance(value, int) else value


def _defaults(generation: Any) -> Defaults:
    penalty, max_tokens = generation.repetition_penalty or 1.0, generation.max_new_tokens
    if not generation.do_sample:
        return Defaults(repetition_penalty=penalty, max_tokens=max_tokens)
    return Defaults(
        temperature=1.0 if generation.temperature is None else generation.temperature,
        top_p=generation.top_p or 1.0,
        top_k=generation.top_k or 0,
        min_p=generation.min_p or 0.0,
        repetition_penalty=penalty,
        max_tokens=max_tokens,
    )


def _byte_alphabet() -> dict[int, str]:
    """The characters that byte-level tokenizers write bytes as."""
    alphabet: dict[int, str] = bytes_to_unicode()
    return alphabet


def _decoder_json(tokenizer: Any) -> str:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    decoder = getattr(backend, "decoder", None)
    return decoder.__getstate__().decode() if decoder is not None else ""
