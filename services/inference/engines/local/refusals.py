"""What the local engine cannot do, refused by name so that nothing is dropped in silence."""

from __future__ import annotations

from kit.errors import InvalidArgument
from services.inference.generation import Message, Prompt, Role, Sampling, TextPart

ADVICE = "the local engine does not support this; leave it out or choose a model of an upstream"


def check_supported(prompt: Prompt) -> None:
    """Checks all that needs no model.

    Raises:
        InvalidArgument: The first field that cannot be honoured.
    """
    _refuse(bool(prompt.tools), "spec.tools")
    choice = prompt.tool_choice
    _refuse(choice is not None and choice.mode not in ("auto", "none"), "spec.tool_choice")
    _refuse(prompt.parallel_tool_calls is not None, "spec.parallel_tool_calls")
    _refuse(prompt.reasoning_effort not in (None, "none"), "spec.reasoning_effort")
    for index, message in enumerate(prompt.messages):
        _check_message(message, f"spec.conversation.messages[{index}]")
    sampling = prompt.sampling
    if sampling.min_tokens and sampling.max_tokens and sampling.min_tokens > sampling.max_tokens:
        raise InvalidArgument("spec.sampling.min_tokens", "must not be above max_tokens")


def check_token_ids(sampling: Sampling, vocab_size: int) -> None:
    """Checks the ids that a request names against the model's vocabulary.

    Raises:
        InvalidArgument: An id that the model does not have.
    """
    for field, ids in (("logit_bias", sampling.logit_bias), ("stop_token_ids", sampling.stop_token_ids)):
        unknown = [token_id for token_id in ids if not 0 <= token_id < vocab_size]
        if unknown:
            raise InvalidArgument(f"spec.sampling.{field}", f"{unknown[0]} is no token id; this model has {vocab_size}")


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


def _check_message(message: Message, at: str) -> None:
    _refuse(message.role is Role.TOOL, f"{at}.role")
    _refuse(bool(message.tool_calls), f"{at}.tool_calls")
    _refuse(bool(message.name), f"{at}.name")
    for index, part in enumerate(message.parts):
        _refuse(not isinstance(part, TextPart), f"{at}.parts[{index}]")


def _refuse(is_asked: bool, field: str) -> None:
    if is_asked:
        raise InvalidArgument(field, ADVICE)
