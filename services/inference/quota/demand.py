"""What a request may use at most, as far as that can be told before it is served.

Estimates: what is reserved by them is settled by what was really used.
"""

from __future__ import annotations

from services.inference.generation import ImagePart, Prompt, Usage
from services.inference.routing.router import Route

# Rules of thumb of byte-pair encodings: English has about four bytes a token; roles and separators cost a few tokens a
# message; a picture in detail about a thousand.
BYTES_PER_TOKEN = 4
MESSAGE_TOKEN_COUNT = 4
IMAGE_TOKEN_COUNT = 1_000


def prompt_token_count(prompt: Prompt) -> int:
    """Tokens of a prompt, rounded up."""
    texts = [message.text for message in prompt.messages]
    texts += [tool.description + tool.parameters_json for tool in prompt.tools]
    images = sum(isinstance(part, ImagePart) for message in prompt.messages for part in message.parts)
    fixed = MESSAGE_TOKEN_COUNT * len(prompt.messages) + IMAGE_TOKEN_COUNT * images
    return fixed + text_token_count([*texts, prompt.raw_prompt or ""])


def text_token_count(texts: list[str]) -> int:
    """Tokens of texts, rounded up."""
    return -(-sum(len(text) if text.isascii() else len(text.encode()) for text in texts) // BYTES_PER_TOKEN)


def cost_micro_usd_max(route: Route, usage: Usage) -> int | None:
    """What so many tokens cost at the dearest target of a route; None where no target's price is known."""
    costs = [one.target.cost_micro_usd(usage) for one in route.targets]
    return max((cost for cost in costs if cost is not None), default=None)
