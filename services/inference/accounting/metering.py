"""Metering: what an engine has done for an attempt so far, whether or not the attempt comes to its end.

An engine that completes says what it used; one whose caller leaves, or that breaks, cannot say anything any more, and
what it did was done all the same. So each attempt lends its engine a meter, which is right whenever it is read after
the engine was closed. An engine that does not know meters leaves it at nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import msgspec

from services.inference.generation import Usage


class Meter(msgspec.Struct):
    """What was used so far, as far as it is known here.

    Attributes:
        usage: Tokens.
        queue_s: How long the attempt waited for a place within the engine.
        is_queued: Whether it never got one.
    """

    usage: Usage = Usage()
    queue_s: float = 0.0
    is_queued: bool = False


_current: ContextVar[Meter | None] = ContextVar("millrace_meter", default=None)


def current() -> Meter:
    """The meter of the attempt that asks; outside of any, one that nobody reads.

    An engine takes it before it first waits: later its answer may be read on by another task.
    """
    return _current.get() or Meter()


@contextmanager
def lend(meter: Meter) -> Iterator[None]:
    """Makes a meter the current one for a block."""
    token = _current.set(meter)
    try:
        yield
    finally:
        _current.reset(token)
