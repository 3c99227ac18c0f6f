"""`millrace chat`: a conversation in the terminal.

Prints tokens as they come, then what the answer cost in time and tokens. Ctrl-C cancels the answer under way; at the
prompt it ends the chat. The history lives here: the suite keeps none.
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass

from cli.answers import AnswerError, Ask, Backend, Outcome, Turn

HELP = "/reset forgets the conversation, /exit or Ctrl-D leaves, Ctrl-C stops an answer."


@dataclass(frozen=True)
class Timing:
    """What an answer took, seen from here."""

    outcome: Outcome
    ttft_s: float | None
    duration_s: float

    def __str__(self) -> str:
        """One line for people: model, tokens, time to first token, total, speed."""
        words = [self.outcome.model]
        if self.outcome.completion_token_count is not None:
            words.append(f"{self.outcome.completion_token_count} tokens")
        if self.ttft_s is not None:
            words.append(f"first after {self.ttft_s * 1000:.0f} ms")
        words.append(f"{self.duration_s * 1000:.0f} ms in all")
        if self.outcome.finish_reason not in ("", "stop"):
            words.append(f"ended by {self.outcome.finish_reason}")
        return " · ".join(words)


class Chat:
    """A conversation: its history and how it goes on."""

    def __init__(self, backend: Backend, ask: Ask, system: str | None) -> None:
        self._backend = backend
        self._ask = ask
        self._opening = [Turn("system", system)] if system else []
        self.turns = list(self._opening)

    def reset(self) -> None:
        """Forgets everything but the system prompt."""
        self.turns = list(self._opening)

    def answer(self, text: str) -> Timing | None:
        """Prints the answer to a message as it comes; None when it was cancelled.

        A cancelled answer stays in the history as far as it came, since that is what was read.

        Raises:
            AnswerError: The answer failed; the message is then not part of the history.
        """
        started = time.monotonic()
        pieces: list[str] = []
        first: float | None = None
        outcome: Outcome | None = None
        stream = self._backend.stream(self._ask, [*self.turns, Turn("user", text)])
        try:
            for piece in stream:
                if isinstance(piece, Outcome):
                    outcome = piece
                    continue
                first = first or time.monotonic()
                pieces.append(piece)
                print(piece, end="", flush=True)
        except KeyboardInterrupt:
            outcome = None
        finally:
            stream.close()  # type: ignore[attr-defined]  # every backend's stream is a generator
            if pieces:
                print(flush=True)
        self.turns += [Turn("user", text), Turn("assistant", "".join(pieces))]
        if outcome is None:
            return None
        return Timing(outcome, None if first is None else first - started, time.monotonic() - started)


def talk(chat: Chat) -> int:
    """Runs the conversation until the person leaves."""
    import readline  # noqa: F401  # gives input() line editing and a history

    print(f"{HELP}\n")
    while True:
        try:
            text = input("> ").strip()
        except (EOFError, KeyboardInterrupt):
            print()
            return 0
        match text:
            case "":
                continue
            case "/exit" | "/quit":
                return 0
            case "/reset":
                chat.reset()
            case "/help":
                print(HELP)
            case _:
                _turn(chat, text)


def say_once(chat: Chat, text: str) -> int:
    """Answers one message: the answer to standard output, the figures to standard error."""
    timing = chat.answer(text)
    if timing is None:
        return 1
    print(f"[{timing}]", file=sys.stderr)
    return 0


def _turn(chat: Chat, text: str) -> None:
    try:
        timing = chat.answer(text)
        print(f"[{timing or 'cancelled'}]\n")
    except AnswerError as error:
        print(f"{error}\n", file=sys.stderr)
