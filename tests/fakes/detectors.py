"""Detectors that misbehave in one chosen way, behind the protocol of the safety service."""

import threading
from collections.abc import Awaitable, Callable, Collection

from services.safety.detectors.detector import ALWAYS, Match, Wakes


class FakeDetector:
    """A detector whose every scan does what it is told; it reads in a thread unless `inline` says otherwise."""

    categories = ("EMAIL_ADDRESS",)
    optional_categories: frozenset[str] = frozenset()
    context = 0
    hold = 0

    def __init__(self, name: str, act: Callable[[str], object], inline: int = 0) -> None:
        self.name = name
        self.inline_code_points = inline
        self._act = act

    def cursor(self, categories: Collection[str]) -> "FakeCursor":
        return FakeCursor(self._act)


class WarmedDetector(FakeDetector):
    """A detector that counts how often it was loaded, and refuses if it is told to."""

    def __init__(self, name: str, error: Exception | None = None) -> None:
        super().__init__(name, lambda text: None, inline=1_000_000)
        self.warm_count = 0
        self._error = error

    async def warm(self) -> None:
        self.warm_count += 1
        if self._error:
            raise self._error


class FakeCursor:
    """Acts on each scan, finds nothing and calls everything safe."""

    def __init__(self, act: Callable[[str], object]) -> None:
        self.safe = 0
        self._act = act

    def scan(self, text: str, offset: int, final: bool) -> list[Match]:
        self._act(text)
        self.safe = offset + len(text)
        return []


def failing(on: str) -> Callable[[str], object]:
    """Raises when it is shown a text that holds `on`, quoting the text as careless code would."""

    def act(text: str) -> None:
        if on in text:
            raise RuntimeError(f"cannot read {text}")

    return act


def hanging(on: str, release: threading.Event) -> Callable[[str], object]:
    """Hangs when it is shown a text that holds `on`, until it is let go."""

    def act(text: str) -> None:
        if on in text:
            release.wait()

    return act


class FakeModel:
    """A model that judges a text when it is complete, or at each full stop; its work does what it is told."""

    optional_categories: frozenset[str] = frozenset()
    context = 0
    hold = 1_000_000
    inline_code_points = 0

    def __init__(self, name: str, categories: tuple[str, ...], work: Callable[[], Awaitable[list[Match]]]) -> None:
        self.name = name
        self.categories = categories
        self._work = work

    async def warm(self) -> None:
        """Needs nothing."""

    def cursor(self, categories: Collection[str]) -> "FakeModelCursor":
        return FakeModelCursor(self._work)


class FakeModelCursor:
    """Judges up to where the text has arrived."""

    def __init__(self, work: Callable[[], Awaitable[list[Match]]]) -> None:
        self.safe, self.wakes = 0, ALWAYS
        self._work = work

    def begin(self, text: str, offset: int, final: bool) -> Awaitable[list[Match]] | None:
        if not (final or text.endswith(".")):
            return None
        return self._judge(offset + len(text))

    async def _judge(self, end: int) -> list[Match]:
        matches = await self._work()
        self.safe = end
        return matches


class SleeplessModel(FakeModel):
    """A model that fails when it is asked when to wake it, once it has been shown a text."""

    def cursor(self, categories: Collection[str]) -> "FakeModelCursor":
        return SleeplessModelCursor(self._work)


class SleeplessModelCursor(FakeModelCursor):
    """Reads nothing but the beginning."""

    _has_begun = False

    @property
    def wakes(self) -> Wakes:
        if self._has_begun:
            raise RuntimeError("when?")
        return ALWAYS

    @wakes.setter
    def wakes(self, value: Wakes) -> None:
        """Stays as it is."""

    def begin(self, text: str, offset: int, final: bool) -> Awaitable[list[Match]] | None:
        self._has_begun = True
        return super().begin(text, offset, final)


class StillbornModel(FakeModel):
    """A model that fails before it is shown anything."""

    def cursor(self, categories: Collection[str]) -> "FakeModelCursor":
        raise RuntimeError("no cursor")


class RestlessModel(FakeModel):
    """A model that fails when it is asked when to wake it, before it is shown anything."""

    def cursor(self, categories: Collection[str]) -> "FakeModelCursor":
        cursor = SleeplessModelCursor(self._work)
        cursor._has_begun = True
        return cursor
