"""What the local engine cannot do, refused by name so that nothing is dropped in silence."""

from __future__ import annotations

from collections.abc import Sequence

from kit.errors import FailedPrecondition, InvalidArgument
from services.inference.engines.local.conversation import offered
from services.inference.engines.local.tool_format import ToolFormat
from services.inference.generation import Message, Prompt, Role, Sampling, TextPart

ADVICE = "the local engine does not support this; leave it out or choose a model of an upstream"

TOOLS_UNSUPPORTED = "TOOLS_UNSUPPORTED"


def check_supported(prompt: Prompt) -> None:
    """Checks all that needs no model.

    Raises:
        InvalidArgument: The first field that cannot be honoured.
    """
    _refuse(prompt.reasoning_effort not in (None, "none"), "spec.reasoning_effort")
    for index, message in enumerate(prompt.messages):
        _check_message(message, f"spec.conversation.messages[{index}]")
    sampling = prompt.sampling
    if sampling.min_tokens and sampling.max_tokens and sampling.min_tokens > sampling.max_tokens:
        raise InvalidArgument("spec.sampling.min_tokens", "must not be above max_tokens")


def check_tools(prompt: Prompt, tool_format: ToolFormat | None) -> None:
    """Checks that the model can be told of the tools that a prompt has, in a way that its answer can be read in.

    Raises:
        InvalidArgument: TOOLS_UNSUPPORTED where the model knows none; else the field that cannot be honoured.
    """
    tools = offered(prompt)
    field = "spec.tools" if tools else _told_of_tools(prompt.messages)
    if not field:
        return
    if tool_format is None or prompt.raw_prompt is not None:
        problem = "the chat template of this model knows no tools, or writes calls in a way that is not known"
        raise InvalidArgument(field, problem, reason=TOOLS_UNSUPPORTED)
    if tools and prompt.output_format is not None and prompt.output_format.kind != "text":
        raise InvalidArgument("spec.output_format", "an answer of the local engine is held to tools or to a format")
    is_free = prompt.tool_choice is None or prompt.tool_choice.mode == "auto"
    strict = next((at for at, tool in enumerate(tools) if tool.strict), None)
    if is_free and tool_format.is_bare and strict is not None:
        raise InvalidArgument(
            f"spec.tools[{strict}].strict", "this model can be held to it only by tool_choice required"
        )


def check_token_ids(sampling: Sampling, vocab_size: int) -> None:
    """Checks the ids that a request names against the model's vocabulary.

    Raises:
        InvalidArgument: An id that the model does not have.
    """
    for field, ids in (("logit_bias", sampling.logit_bias), ("stop_token_ids", sampling.stop_token_ids)):
        unknown = [token_id for token_id in ids if not 0 <= token_id < vocab_size]
        if unknown:
            raise InvalidArgument(f"spec.sampling.{field}", f"{unknown[0]} is no token id; this model has {vocab_size}")


def check_prompt_ids(prompt_ids: Sequence[int], embedding_count: int) -> None:
    """Checks that the network has an embedding for every token that the tokenizer made of a prompt.

    Not every network finds out by itself: some runtimes take a row for any number, and the answer would be wrong.

    Raises:
        FailedPrecondition: TOKEN_NOT_IN_MODEL.
    """
    unknown = [token_id for token_id in prompt_ids if not 0 <= token_id < embedding_count]
    if unknown:
        raise FailedPrecondition(
            "TOKEN_NOT_IN_MODEL",
            f"the tokenizer makes token {unknown[0]} of this prompt, but the model has {embedding_count}; leave such "
            "special tokens out, or have the model's operator resize its embeddings to its tokenizer",
        )


def check_length(prompt_token_count: int, context_token_count_max: int | None) -> None:
    """Checks that the prompt leaves room for an answer.

    Raises:
        InvalidArgument: CONTEXT_LENGTH_EXCEEDED.
    """
    if context_token_count_max is not None and prompt_token_count >= context_token_count_max:
        raise InvalidArgument(
            "spec.input",
            f"the prompt has {prompt_token_count} tokens, but the model takes {context_token_count_max}, the answer "
            "included; shorten it",
            reason="CONTEXT_LENGTH_EXCEEDED",
            metadata={
                "prompt_token_count": str(prompt_token_count),
                "context_token_count_max": str(context_token_count_max),
            },
        )


def _told_of_tools(messages: Sequence[Message]) -> str:
    """The field of the first message that has to do with tools, if any."""
    for index, message in enumerate(messages):
        if message.role is Role.TOOL or message.tool_calls:
            return f"spec.conversation.messages[{index}].{'tool_calls' if message.tool_calls else 'role'}"
    return ""


def _check_message(message: Message, at: str) -> None:
    _refuse(bool(message.name), f"{at}.name")
    for index, part in enumerate(message.parts):
        _refuse(not isinstance(part, TextPart), f"{at}.parts[{index}]")


def _refuse(is_asked: bool, field: str) -> None:
    if is_asked:
        raise InvalidArgument(field, ADVICE)
