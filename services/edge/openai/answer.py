"""Turns the contract's generations into OpenAI's answers, and its enums into OpenAI's words."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from msgspec import UNSET

from millrace.inference.v1 import event_pb2 as pb
from services.edge.openai import chat_answer as chat
from services.edge.openai import completion_request as completion
from services.edge.openai.moderated import moderated
from services.edge.openai.receipt import receipt

FINISH_REASONS: dict[int, chat.FinishReason] = {
    pb.FINISH_REASON_STOP: "stop",
    pb.FINISH_REASON_LENGTH: "length",
    pb.FINISH_REASON_TOOL_CALLS: "tool_calls",
    pb.FINISH_REASON_CONTENT_FILTER: "content_filter",
    pb.FINISH_REASON_DEADLINE: "length",  # OpenAI has no word for it
}


def chat_completion(answer: pb.Generation) -> chat.ChatCompletion:
    """A complete chat answer."""
    return chat.ChatCompletion(
        id=f"chatcmpl-{answer.request_id}",
        created=answer.created_time.seconds,
        model=answer.model,
        choices=[_chat_choice(choice) for choice in answer.choices],
        usage=usage(answer.usage),
        system_fingerprint=answer.receipt.system_fingerprint or UNSET,
        moderation=moderated(answer.receipt.safety),
        millrace=receipt(answer.receipt, answer.route_reason),
    )


def text_completion(request_id: str, answers: Sequence[pb.Generation]) -> completion.Completion:
    """The answers to one or more raw prompts as one complete answer.

    Args:
        request_id: Id of the HTTP request.
        answers: One per prompt, in order; each has the same number of choices.
    """
    choices = [choice for answer in answers for choice in answer.choices]
    return completion.Completion(
        id=f"cmpl-{request_id}",
        created=answers[0].created_time.seconds,
        model=answers[0].model,
        choices=[_completion_choice(choice, index) for index, choice in enumerate(choices)],
        usage=usage(_total(answers)),
        system_fingerprint=answers[0].receipt.system_fingerprint or UNSET,
        millrace=receipt(answers[0].receipt, answers[0].route_reason) if len(answers) == 1 else UNSET,
    )


def usage(used: pb.Usage) -> chat.Usage:
    """Tokens used, in OpenAI's words."""
    prompt, completed = used.prompt_token_count, used.completion_token_count
    return chat.Usage(
        prompt_tokens=prompt,
        completion_tokens=completed,
        total_tokens=prompt + completed,
        prompt_tokens_details=chat.PromptTokensDetails(used.cached_prompt_token_count),
        completion_tokens_details=chat.CompletionTokensDetails(used.reasoning_token_count),
    )


def add_usage(total: pb.Usage, used: pb.Usage) -> None:
    """Adds one answer's tokens to those of several."""
    total.prompt_token_count += used.prompt_token_count
    total.completion_token_count += used.completion_token_count
    total.cached_prompt_token_count += used.cached_prompt_token_count
    total.reasoning_token_count += used.reasoning_token_count


def chat_logprobs(tokens: Iterable[pb.TokenLogprob]) -> chat.Logprobs | None:
    """Log probabilities in the form of the chat endpoint; none where there are none."""
    content = [
        chat.TokenLogprob(
            token.token,
            token.logprob,
            list(token.token_bytes),
            [chat.TopLogprob(top.token, top.logprob, list(top.token_bytes)) for top in token.top],
        )
        for token in tokens
    ]
    return chat.Logprobs(content) if content else None


def completion_logprobs(tokens: Sequence[pb.TokenLogprob], offset: int = 0) -> completion.CompletionLogprobs | None:
    """Log probabilities in the form of the completions endpoint.

    Args:
        tokens: Generated tokens, in order.
        offset: Code points of the choice's text before the first of them.
    """
    if not tokens:
        return None
    offsets = []
    for token in tokens:
        offsets.append(offset)
        offset += len(token.token)
    return completion.CompletionLogprobs(
        text_offset=offsets,
        token_logprobs=[token.logprob for token in tokens],
        tokens=[token.token for token in tokens],
        top_logprobs=[{top.token: top.logprob for top in token.top} for token in tokens],
    )


def _chat_choice(choice: pb.Choice) -> chat.ChatChoice:
    calls = [
        chat.AnsweredToolCall(call.id, chat.AnsweredFunction(call.name, call.arguments_json))
        for call in choice.tool_calls
    ]
    # OpenAI's answers have null where only a call or a refusal stands.
    content = None if not choice.text and (calls or choice.refusal) else choice.text
    message = chat.AnswerMessage(
        content=content,
        refusal=choice.refusal or None,
        tool_calls=calls or UNSET,
        reasoning_content=choice.reasoning or UNSET,
    )
    return chat.ChatChoice(choice.index, message, chat_logprobs(choice.logprobs), FINISH_REASONS[choice.finish_reason])


def _completion_choice(choice: pb.Choice, index: int) -> completion.CompletionChoice:
    return completion.CompletionChoice(
        index, choice.text, completion_logprobs(choice.logprobs), completion_finish_reason(choice.finish_reason)
    )


def completion_finish_reason(reason: int) -> completion.FinishReason:
    """The word of the completions endpoint, which knows no tools."""
    word = FINISH_REASONS[reason]
    return "stop" if word == "tool_calls" else word


def _total(answers: Iterable[pb.Generation]) -> pb.Usage:
    total = pb.Usage()
    for answer in answers:
        add_usage(total, answer.usage)
    return total
