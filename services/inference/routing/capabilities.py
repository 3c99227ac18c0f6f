"""Capabilities: what a prompt needs of a target beside plain text.

It knows prompts, never targets: those say themselves what they are able to, in the words of the models file.
"""

from __future__ import annotations

from services.inference.generation import AudioPart, FilePart, ImagePart, Message, Prompt, Role, TextPart

_PARTS = {ImagePart: "vision", AudioPart: "audio", FilePart: "files"}
_SAMPLING = ("top_k", "min_p", "repetition_penalty", "min_tokens", "stop_token_ids")


def needs(prompt: Prompt) -> dict[str, str]:
    """What a prompt needs, each with the field of the request that asks for it first."""
    found: dict[str, str] = {}
    if prompt.tools:
        found["tools"] = "spec.tools"
    output, sampling = prompt.output_format, prompt.sampling
    if output and output.kind != "text":
        found[output.kind] = f"spec.output_format.{output.kind}"
    if sampling.logprobs:
        found["logprobs"] = "spec.sampling.logprobs"
    for name in _SAMPLING:
        if getattr(sampling, name) not in (None, ()):
            found[name] = f"spec.sampling.{name}"
    for index, message in enumerate(prompt.messages):
        for name, field in _of_message(message, f"spec.conversation.messages[{index}]"):
            found.setdefault(name, field)
    return found


def _of_message(message: Message, at: str) -> list[tuple[str, str]]:
    if message.role is Role.TOOL:
        return [("tools", f"{at}.role")]
    found = [("tools", f"{at}.tool_calls")] if message.tool_calls else []
    if len(message.parts) == 1 and type(message.parts[0]) is TextPart:  # nearly every message
        return found
    parts = enumerate(message.parts)
    return found + [(_PARTS[type(part)], f"{at}.parts[{index}]") for index, part in parts if type(part) in _PARTS]
