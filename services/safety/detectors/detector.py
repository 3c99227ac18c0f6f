"""What every detector of the service promises.

A detector reads a text from left to right through a cursor. The promise that makes streams exact lives here: whether a
match exists depends on the text alone, never on how it was cut into pieces, and the cursor says how far its judgement
is final. A detector never sees the policy and decides nothing.
"""

from __future__ import annotations

from collections.abc import Awaitable, Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol, runtime_checkable

if TYPE_CHECKING:
    from typing_extensions import TypeIs


@dataclass(frozen=True, slots=True)
class Match:
    """Something found: a half-open range in code points of the whole text, its category and a score from 0 to 1."""

    start: int
    end: int
    category: str
    score: float


class Wakes(NamedTuple):
    """When a cursor has something to do, told by how much of the whole text has arrived.

    Before `at` it has nothing to do, from `surely_at` on it has, and between them only behind one of the characters
    `stops`, mostly once the next one is there.
    """

    at: int = 0
    surely_at: int = 0
    stops: str = ""

    def moved(self, by: int) -> Wakes:
        """The same, told by a text that begins so much earlier."""
        return Wakes(self.at + by, self.surely_at + by, self.stops) if by and self.surely_at else self


# Any piece may matter.
ALWAYS = Wakes()


class Cursor(Protocol):
    """One reading of one text, from its first code point to its last."""

    safe: int
    """Every match that starts before this position has been reported. Never decreases."""

    def scan(self, text: str, offset: int, final: bool) -> list[Match]:
        """Reports the matches that have become certain.

        Args:
            text: The text from position `offset` up to where it has arrived. It begins at least
                `Detector.context` code points before `safe`, or at the beginning of the whole text.
            offset: The position of text[0] in the whole text.
            final: Whether the whole text ends here; then `safe` becomes its end.
        """
        ...


class AwaitedCursor(Protocol):
    """A reading whose work is done elsewhere, by a model or a service, and awaited."""

    safe: int
    """As in `Cursor`. Where the policy replaces or blocks nothing that it finds, text leaves before it is judged."""

    @property
    def wakes(self) -> Wakes:
        """While less of the text than `wakes.at` has arrived, and not all of it, `begin` need not be called."""
        ...

    def begin(self, text: str, offset: int, final: bool) -> Awaitable[list[Match]] | None:
        """Takes what has arrived, and begins to judge what that made complete; None when there is nothing to do.

        `text` may begin behind `safe`, where it left before: what a cursor has not judged, it keeps itself.
        """
        ...


def is_awaited(cursor: Cursor | AwaitedCursor) -> TypeIs[AwaitedCursor]:
    """Tells the two kinds of cursors apart; asking for the whole protocol takes 15 us of each lane and detector."""
    return hasattr(cursor, "begin")


@runtime_checkable
class Warmed(Protocol):
    """A detector that must load something before it can read: only those that a policy in force needs ever do."""

    async def warm(self) -> None:
        """Loads it; again and again has no effect.

        Raises:
            kit.errors.MillraceError: It cannot be loaded.
        """
        ...


@runtime_checkable
class Deliberate(Protocol):
    """A detector that judges better where nothing leaves before all of a text is judged: prompts are such texts."""

    def prompt_cursor(self, categories: Collection[str]) -> Cursor | AwaitedCursor:
        """As `Detector.cursor`, for a text that leaves as a whole or not at all."""
        ...


class Detector(Protocol):
    """Finds one kind of thing."""

    @property
    def name(self) -> str:
        """What policies call it."""
        ...

    @property
    def categories(self) -> tuple[str, ...]:
        """All that it can find."""
        ...

    @property
    def optional_categories(self) -> frozenset[str]:
        """Those of `categories` that are looked for only when a policy names them."""
        ...

    @property
    def context(self) -> int:
        """How many code points before `Cursor.safe` its cursors look back at."""
        ...

    @property
    def hold(self) -> int:
        """The most code points that `Cursor.safe` lags behind the text."""
        ...

    @property
    def inline_code_points(self) -> int:
        """The longest text that it reads in about a millisecond; longer ones are read in a thread."""
        ...

    def cursor(self, categories: Collection[str]) -> Cursor | AwaitedCursor:
        """Begins to read a text, looking for the given categories only."""
        ...
