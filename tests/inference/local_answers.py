"""Prompts for local engines and the answers that come back, for their tests."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from services.inference.engines.local.engine import LocalEngine
from services.inference.generation import Delta, EngineEvent, Message, Prompt, Role, Sampling, TextPart
from tests.fakes.tiny_gpt2 import END_ID

RAW = "the thin winter"
# The tiny model loves its end token; without it an answer has the length that was asked for.
ENDLESS = {END_ID: -100.0}


def raw(text: str = RAW, **sampling: object) -> Prompt:
    """A raw prompt whose answer does not end by itself."""
    sampling.setdefault("logit_bias", ENDLESS)
    return Prompt(raw_prompt=text, sampling=Sampling(**sampling))  # type: ignore[arg-type]


def chat(*texts: str, **sampling: object) -> Prompt:
    """A conversation that begins and ends with the user."""
    roles = (Role.USER, Role.ASSISTANT)
    messages = tuple(Message(roles[at % 2], (TextPart(text),)) for at, text in enumerate(texts))
    return Prompt(messages=messages, sampling=Sampling(**sampling))  # type: ignore[arg-type]


async def collect(engine: LocalEngine, prompt: Prompt, deadline: float | None = None) -> list[EngineEvent]:
    """All events of an answer."""
    async with asyncio.timeout(30):
        return [event async for batch in engine.generate(prompt, deadline) for event in batch]


def text_of(events: Sequence[EngineEvent], choice_index: int = 0) -> str:
    """The text of one choice."""
    return "".join(e.text for e in events if isinstance(e, Delta) and e.choice_index == choice_index)


def ids_of(events: Sequence[EngineEvent], choice_index: int = 0) -> list[bytes]:
    """The tokens of one choice as bytes; needs `logprobs`."""
    deltas = [e for e in events if isinstance(e, Delta) and e.choice_index == choice_index]
    return [logprob.token_bytes for delta in deltas for logprob in delta.logprobs]


async def until(condition: Callable[[], bool]) -> None:
    """Waits, with a deadline, for what happens in the model's thread, which tells no event loop of it."""
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.001)
