"""Which services are started again, and when."""

from __future__ import annotations

from cli.restarts import PAUSES_S, STEADY_S, Restarts


def test_pauses_grow_until_there_are_none_left():
    """Each try waits longer than the one before it; then the service is given up, and the reason is said."""
    restarts = Restarts()
    pauses = [restarts.pause_s("cache", 1.0) for _ in range(len(PAUSES_S) + 1)]

    assert pauses == [*sorted(set(PAUSES_S)), None]
    assert restarts.why_not("cache") == "6 times without 60 s of being ready in between"


def test_one_that_was_never_ready_is_not_tried():
    """Its settings, or what it needs, are wrong; another service's readiness says nothing about it."""
    restarts = Restarts()
    restarts.pause_s("cache", 5.0)

    assert restarts.pause_s("safety", None) is None
    assert restarts.why_not("safety") == "before it was ever ready"


def test_failed_starts_count_like_deaths():
    """A service that was ready once has its tries, whether they get far or not."""
    restarts = Restarts((0.0, 1.0))

    assert [restarts.pause_s("cache", ready_s) for ready_s in (1.0, None, None)] == [0.0, 1.0, None]


def test_a_steady_service_begins_anew():
    """Only having been ready for long enough forgets the tries, and only that service's."""
    restarts = Restarts((0.0, 1.0))
    for name in ("cache", "edge"):
        restarts.pause_s(name, 1.0)

    assert restarts.pause_s("cache", STEADY_S - 0.1) == 1.0
    assert restarts.pause_s("edge", STEADY_S) == 0.0
