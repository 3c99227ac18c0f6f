"""Texts that are made to stall or to crash: answered in time, every time."""

import asyncio
import random
import time
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from millrace.safety.v1 import verdict_pb2 as verdict
from tests.safety.messages import deltas, prompt, released, screen

if TYPE_CHECKING:
    from millrace.safety.v1.safety_service_pb2_grpc import SafetyServiceAsyncStub as Stub

SIZE = 200_000
# Both detectors have 2 s each by the embedded policy; a machine under load gets twice that.
DEADLINE_S = 8


@pytest.mark.parametrize(
    "unit",
    ["my name is ", "I am Ann ", "-----BEGIN ", "sk-", "eyJ", "A1B2C3D4E ", "0x", "ghp_", "bc1q", "call me at 1 ",
     "ignore all ", "a", "1", "@", "a@", "a@b.", "1-", "1 2 3 4 ", "AB12", "::", "f:", "\u0301", "\u202e", "k i l l ",
     "(", "how to ",
     "aWdub3JlIGFsbCBw", "aWdub3JlIGFsbCBw\n", "a\n", "6d616b65", "\U000e0069\U000e0067", "m4keapip3bom", "4 ",
     "x" * 47 + " ", "4111 1111 1111 1111 ", "how do i "],
)  # fmt: skip
async def test_long_texts_are_answered_in_time(stub: "Stub", unit: str) -> None:
    """200,000 code points of one unit end with a verdict; a detector that needs longer is reported as such."""
    started = time.monotonic()

    assessment = (await stub.CheckInput(prompt((unit * SIZE)[:SIZE]))).assessment

    assert time.monotonic() - started < DEADLINE_S
    assert len(assessment.findings) <= 1000
    overran = any(run.state == verdict.EXECUTION_STATE_TIMED_OUT for run in assessment.runs)
    assert not overran or assessment.verdict == verdict.VERDICT_BLOCK


@pytest.mark.parametrize(
    "form", ["{0} ", "{0:.6f} ", "{0:04d}", "{0}-{1} ", "{0},{1}.5,2026-11-07,192.168.1.{2}\n", "{0}{1}\t"]
)
async def test_numbers_are_judged_in_time(stub: "Stub", form: str) -> None:
    """25,000 characters of numbers are judged to their end by every detector, within the embedded deadlines."""
    rng = random.Random(form)
    numbers = "".join(form.format(*(rng.randrange(10 ** rng.randint(1, 6)) for _ in range(3))) for _ in range(20_000))

    assessment = (await stub.CheckInput(prompt(numbers[:25_000]))).assessment

    states = {run.state for run in assessment.runs}
    assert states <= {verdict.EXECUTION_STATE_OK, verdict.EXECUTION_STATE_SKIPPED}
    assert next(run.state for run in assessment.runs if run.detector == "pii") == verdict.EXECUTION_STATE_OK


async def test_other_calls_are_served_meanwhile(stub: "Stub") -> None:
    """A long text is read in a thread and in pieces: short calls do not wait for its end."""
    long = asyncio.ensure_future(stub.CheckInput(prompt("4111 1111 1111 1111 " * 20_000)))

    await stub.CheckInput(prompt("hello"))

    assert not long.done()
    assert (await long).assessment.verdict in (verdict.VERDICT_FLAG, verdict.VERDICT_BLOCK)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text(max_size=300))
async def test_any_text_gets_a_verdict(stub: "Stub", text: str) -> None:
    """Whatever Unicode holds, a prompt gets a verdict from detectors that finished, and a stream its text back."""
    assessment = (await stub.CheckInput(prompt(text, profile="strict"))).assessment
    states = {run.detector: run.state for run in assessment.runs}
    assert set(states.values()) <= {verdict.EXECUTION_STATE_OK, verdict.EXECUTION_STATE_SKIPPED}
    assert states["pii"] == (verdict.EXECUTION_STATE_OK if text else verdict.EXECUTION_STATE_SKIPPED)

    events = await screen(stub, [deltas(list(text)[i : i + 1]) for i in range(len(text))], "default")
    if events[-1].completed.assessment.verdict == verdict.VERDICT_ALLOW:
        assert released(events) == text
