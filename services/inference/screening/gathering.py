"""What of an answer waits before safety is sent it: bookkeeping, which decides nothing about text.

Safety says of each part what must arrive before more of it can be judged. Tokens that come sooner would wake two
processes each, and change nothing; they are gathered and go together with the one that may matter.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from services.inference.screening.safety_port import OutputPiece

# A stop is mostly told from a point by what follows: a few code points, where a quotation ends with the sentence.
_BEHIND_STOP = 3
# What may stand between the stop and the blank that ends a sentence.
_CLOSERS = ".!?…\"'”’)]"


class Awaited(msgspec.Struct, frozen=True):
    """What must arrive of a part before more of it can be judged; see `Awaited` of safety's contract."""

    choice_index: int
    kind: str
    least_through: int
    most_through: int
    stops: str
    gather_s: float


class _Part(msgspec.Struct):
    """How far a part has come, where its last stop ends that may matter, and what is awaited of it.

    Attributes:
        was_judged: Whether some of it was. Before, safety begins at a stop what the character behind it completes.
    """

    arrived: int = 0
    stopped: int | None = None
    awaited: Awaited | None = None
    was_judged: bool = False

    def matters(self, text: str) -> bool:
        """Takes text; whether it may let safety judge more."""
        begin, self.arrived = self.arrived, self.arrived + len(text)
        awaited = self.awaited
        if awaited is None or self.arrived >= awaited.most_through:
            return True
        is_behind = self.stopped is not None and begin < self.stopped + _BEHIND_STOP
        if (last := _last_stop(text, awaited, begin)) is None:
            return is_behind
        self.stopped = last + 1
        # One that ends the text matters with what follows; most others, with what has followed.
        ends = self.was_judged and _last_stop(text.rstrip(_CLOSERS), awaited, begin) is None
        return is_behind or not ends

    def tell(self, awaited: Awaited) -> None:
        """Takes what is awaited from now on: more than before when something was judged."""
        self.was_judged |= self.awaited is not None and awaited.least_through > self.awaited.least_through
        self.awaited = awaited


def _last_stop(text: str, awaited: Awaited, begin: int) -> int | None:
    """Where in its part the last stop of a text is, if it may matter."""
    last = max(map(text.rfind, awaited.stops), default=-1)
    return begin + last if last >= 0 and begin + last >= awaited.least_through else None


class Gathering:
    """The pieces of one call that wait. Those of tool calls, and those that end something, never do.

    Attributes:
        gather_s: How long the oldest may wait.
    """

    def __init__(self) -> None:
        self.gather_s = 0.0
        self._waiting: list[OutputPiece] = []
        self._parts: dict[tuple[int, str], _Part] = {}

    def take(self, pieces: Sequence[OutputPiece]) -> bool:
        """Takes pieces; whether all that wait must be sent now."""
        self._waiting += pieces
        return sum(map(self._matters, pieces)) > 0  # each must be counted

    def tell(self, awaited: Awaited) -> bool:
        """Takes what is awaited from now on; whether what waits must be sent because of it."""
        self.gather_s = awaited.gather_s
        part = self._part(awaited.choice_index, awaited.kind)
        part.tell(awaited)
        waiting = [one for one in self._waiting if (one.choice_index, one.kind) == (awaited.choice_index, awaited.kind)]
        part.arrived -= sum(len(one.text) for one in waiting)
        return sum(part.matters(one.text) for one in waiting) > 0

    def give(self) -> list[OutputPiece]:
        """Hands over what waits."""
        waiting, self._waiting = self._waiting, []
        return waiting

    def _matters(self, piece: OutputPiece) -> bool:
        matters = self._part(piece.choice_index, piece.kind).matters(piece.text)
        return matters or piece.end_of_part or piece.end_of_choice

    def _part(self, choice_index: int, kind: str) -> _Part:
        return self._parts.setdefault((choice_index, kind), _Part())
