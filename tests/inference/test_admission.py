"""Admission: a bound on what runs at once, and no slot lost."""

from __future__ import annotations

import asyncio

import pytest

from kit.errors import Code, ResourceExhausted
from services.inference.admission import Admission


def test_no_more_run_than_allowed() -> None:
    """One too many is refused at once, with a time to come back; a slot that is free again is given."""
    admission = Admission(2)

    with admission.admit():
        with admission.admit():
            with pytest.raises(ResourceExhausted) as caught, admission.admit():
                pass
            assert admission.running_count == 2
        with admission.admit():
            assert admission.running_count == 2

    assert admission.running_count == 0
    assert (caught.value.code, caught.value.reason) == (Code.RESOURCE_EXHAUSTED, "TOO_MANY_RUNNING")
    assert caught.value.retry_after_ms == 1_000


async def test_a_slot_comes_back_however_it_ends() -> None:
    """A failure and a cancellation free it as well as success does."""
    admission = Admission(1)
    with pytest.raises(RuntimeError), admission.admit():
        raise RuntimeError
    assert admission.running_count == 0

    async def wait() -> None:
        with admission.admit():
            await asyncio.Event().wait()

    task = asyncio.create_task(wait())
    await asyncio.sleep(0)
    assert admission.running_count == 1
    task.cancel()
    await asyncio.wait({task})

    assert admission.running_count == 0
