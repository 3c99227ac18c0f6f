"""A transcript: the prompt and the answer of one request, as safety has left them, for where texts are kept.

It takes what goes to the caller before redactions are restored for it: what was taken out stays out.
"""

from __future__ import annotations

from collections.abc import Sequence

from services.inference.answer import WholeChoice, put_together
from services.inference.events import Event
from services.inference.generation import ChoiceFinished, Delta, Prompt

TEXT_CHARS_MAX = 100_000  # of each; a ledger is no archive


class Transcript:
    """What one request said and heard.

    Args:
        prompt: As safety has left it.
    """

    def __init__(self, prompt: Prompt) -> None:
        self._prompt = prompt
        self._said: list[Event] = []
        self._char_count = 0

    def take(self, batch: Sequence[Event]) -> None:
        """Takes a part of the answer."""
        for event in batch:
            if isinstance(event, Delta) and self._char_count < TEXT_CHARS_MAX:
                self._char_count += len(event.text)
                self._said.append(event)
            elif isinstance(event, ChoiceFinished):
                self._said.append(event)

    def texts(self) -> tuple[str, str]:
        """The prompt and the answer; PostgreSQL keeps no NUL, so neither has any."""
        prompt = self._prompt
        said = [f"{message.role}: {message.text}" for message in prompt.messages]
        asked = "\n".join(said) if prompt.raw_prompt is None else prompt.raw_prompt
        answer = "\n\n".join(map(_told, put_together(self._said)))
        return _kept(asked), _kept(answer)


def _told(choice: WholeChoice) -> str:
    calls = [f"{call.name}({call.arguments_json})" for _, call in sorted(choice.tool_calls.items())]
    return "\n".join(part for part in (choice.text, choice.refusal, *calls) if part)


def _kept(text: str) -> str:
    return text[:TEXT_CHARS_MAX].replace("\x00", "")
