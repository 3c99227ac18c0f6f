"""The canonical form of a request, as digests: what must be equal for two requests to share an answer.

Everything that shapes the answer takes part; what shapes only its transport (streamed or not) stays out, and so do the
end user and the tenant, who are the namespace's matter, and the caller's labels and priority, which are nobody's.
"""

from __future__ import annotations

import hashlib

import msgspec

from services.inference.generation import Message, Prompt, Role, TextPart

CANONICALISATION_VERSION = 2
SCHEMA_TAG = "millrace.generation.v2"
COMPARED_CHARS_MAX = 32_768  # the cache's contract takes no longer text to compare

_encode = msgspec.msgpack.Encoder(order="sorted").encode


def digest(model_name: str, targets: tuple[str, ...], prompt: Prompt, profile: str) -> bytes:
    """The 32 bytes that stand for a request: the same for the same question to the same model under the same profile.

    The targets of the route take part, a caller's fallbacks included, for any of them may have answered: who would not
    be sent there must not get its answer, and a changed models file asks anew.
    """
    biases = sorted(prompt.sampling.logit_bias.items())  # the encoder orders maps of text keys only
    sampling = msgspec.structs.replace(prompt.sampling, logit_bias={})
    shaping = msgspec.structs.replace(
        prompt,
        model=model_name,
        streamed=False,
        end_user_id=None,
        metadata={},
        tenant="",
        priority=0,
        sampling=sampling,
    )
    canonical = _encode((CANONICALISATION_VERSION, SCHEMA_TAG, profile, targets, biases, shaping))
    return hashlib.sha256(canonical).digest()


def context_digest(model_name: str, targets: tuple[str, ...], prompt: Prompt, profile: str) -> bytes:
    """The 32 bytes that stand for all of a request but the text that is compared; see `compared_text`."""
    *before, last = prompt.messages
    rest = msgspec.structs.replace(prompt, messages=(*before, msgspec.structs.replace(last, parts=())))
    return digest(model_name, targets, rest, profile)


def compared_text(prompt: Prompt) -> str | None:
    """What two similar requests may differ in: the text of the last turn, where it is the user's and all of it.

    None where nothing may differ: raw prompts, pictures, turns of several parts, and wherever tools can be called, for
    a call's arguments are made of the very words.
    """
    if prompt.raw_prompt is not None or not prompt.messages or prompt.tools:
        return None
    text = _only_text(prompt.messages[-1])
    return text if text and not text.isspace() and len(text) <= COMPARED_CHARS_MAX else None


def _only_text(message: Message) -> str | None:
    if message.role is not Role.USER or len(message.parts) != 1:
        return None
    part = message.parts[0]
    return part.text if isinstance(part, TextPart) else None
