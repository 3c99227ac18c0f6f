import asyncio

from kit.breaker import Breaker
from kit.errors import Unavailable


class Patient:
    """Something that answers or does not."""

    def __init__(self) -> None:
        self.up = False
        self.probed = asyncio.Event()

    async def probe(self) -> None:
        self.probed.set()
        if not self.up:
            raise Unavailable("DOWN", "down")


def make_breaker(patient: Patient, changes: asyncio.Queue[bool]) -> Breaker:
    return Breaker(patient.probe, failures_max=3, interval_s=0.001, on_change=changes.put_nowait)


async def test_failures_in_a_row_open_it():
    """It opens after so many failures in a row, and an answer between them starts the count anew."""
    breaker = make_breaker(Patient(), asyncio.Queue())
    for outcome in (breaker.fail, breaker.fail, breaker.succeed, breaker.fail, breaker.fail):
        outcome()
    assert breaker.closed

    breaker.fail()
    assert not breaker.closed
    await breaker.close()


async def test_a_probe_closes_it():
    """It stays open while probes fail, and closes with the first that succeeds, telling of both changes."""
    patient, changes = Patient(), asyncio.Queue[bool]()
    breaker = make_breaker(patient, changes)
    breaker.trip()
    assert await changes.get() is False
    for _ in range(3):
        patient.probed.clear()
        await asyncio.wait_for(patient.probed.wait(), 5)
        assert not breaker.closed

    patient.up = True
    assert await asyncio.wait_for(changes.get(), 5) is True
    assert breaker.closed
    breaker.fail()
    assert breaker.closed
