"""The contract's names of fields in the words of the JSON bodies.

Most fields have one name in all bodies. What the model is asked with has another in each: the messages of a chat, the
prompt of a completion, the input of a response. So that one goes by the route.
"""

from __future__ import annotations

import re

# What the body of each route calls what the model is asked with; "[]" stands for the index where it has several.
ASKED = {
    "/v1/chat/completions": "messages",
    "/v1/completions": "prompt[]",
    **dict.fromkeys(("/v1/responses", "/v1/responses/input_tokens"), "input"),
    "/v1/embeddings": "input",
    "/v1/moderations": "input",
    **dict.fromkeys(("/chat", "/chat/stream", "/chat/smart", "/chat/safe", "/chat/limited", "/chat-async"), "message"),
    "/summarize": "text",
    "/generate": "prompts[]",
    "/batch-process": "items[].message",
}

# What a job of one item was asked with is what its request asked with; files of batches name their lines themselves.
_JOB_RULES = (
    (re.compile(r"^items\[0\]\.(?:generation|embedding)\b"), "spec"),
    (re.compile(r"^items\[0\]\.label\b"), "session_id"),
    (re.compile(r"^items\[0\]\.attachment\b"), "spec.input"),
    (re.compile(r"^ttl\b"), "expires_after[seconds]"),
)
_ASKED_FIELD = re.compile(
    r"^specs?(?:\[(?P<index>\d+)\])?\.(?:input|raw_prompt|conversation(?:\.messages)?)\b(?P<path>.*)$"
)
_RULES = tuple(
    (re.compile(pattern), words)
    for pattern, words in (
        (r"^specs?(\[\d+\])?\.?", ""),
        (r"^sampling\.", ""),
        (r"^texts", "input"),
        (r"^dimension_count", "dimensions"),
        (r"^(key|user)\.", ""),
        (r"^safety\.profile\b", "X-Millrace-Safety-Profile"),
        (r"^page_token\b", "after"),
        (r"^end_user_id", "user"),
        (r"^output_format", "response_format"),
        (r"^(tools\[\d+\])\.(name|description|strict)", r"\1.function.\2"),
        (r"\.parts\b", ".content"),
        (r"(\.content\[\d+\])\.image\b", r"\1.image_url"),
        (r"(\.content\[\d+\])\.audio\b", r"\1.input_audio"),
        (r"(\.content\[\d+\]\.file)\.data\b", r"\1.file_data"),
        (r"\.(arguments|parameters)_json", r".function.\1"),
        (r"\bschema_json", "schema"),
    )
)


def param_of(field: str, route: str = "") -> str | None:
    """The name in the JSON body of a field of the contract; None where no field is named.

    Args:
        field: Path of the field.
        route: Template of the path that the body was sent to.
    """
    for pattern, words in _JOB_RULES:
        field = pattern.sub(words, field)
    if found := _ASKED_FIELD.match(field):
        field = ASKED.get(route, "input").replace("[]", f"[{found['index']}]" if found["index"] else "")
        # Only the body of a chat has messages: in the others there is no such place within.
        field += found["path"] if field == "messages" else ""
    for pattern, words in _RULES:
        field = pattern.sub(words, field)
    return field or None
