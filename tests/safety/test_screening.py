"""Detectors that fail: what the policy makes of it, in checks and in streams."""

import asyncio
import logging
import threading
import time
from collections.abc import Iterator

import pytest

from millrace.safety.v1 import verdict_pb2 as verdict
from services.safety.detectors.detector import Match
from tests.fakes.detectors import (
    FakeDetector,
    FakeModel,
    RestlessModel,
    SleeplessModel,
    StillbornModel,
    failing,
    hanging,
)
from tests.safety.conftest import Serve
from tests.safety.messages import answer, deltas, prompt, released, screen

POLICIES = """
profiles:
  careful:
    description: Closed, by saying nothing else.
    strictness: 60
    input: {pii: {action: flag, deadline_ms: 50}}
    output: {pii: {action: flag, deadline_ms: 50}}
  easy:
    description: Open.
    strictness: 40
    input: {pii: {action: flag, on_failure: open, deadline_ms: 50}}
    output: {forbidden_terms: {action: block}, pii: {action: flag, on_failure: open, deadline_ms: 50}}
"""
ON = "trip"


@pytest.fixture
def release() -> Iterator[threading.Event]:
    """Lets hanging detectors go when the test is over."""
    event = threading.Event()
    yield event
    event.set()


def run_of(assessment: verdict.Assessment) -> verdict.DetectorRun:
    return next(run for run in assessment.runs if run.detector == "pii")


async def test_failure_is_closed_unless_the_policy_says_open(serve: Serve) -> None:
    """A detector that raises blocks the prompt, and its run says that it failed."""
    stub = await serve(POLICIES, {"pii": FakeDetector("pii", failing(ON))})

    assessment = (await stub.CheckInput(prompt(ON, profile="careful"))).assessment

    assert assessment.verdict == verdict.VERDICT_BLOCK
    assert (run_of(assessment).state, run_of(assessment).failed_open) == (verdict.EXECUTION_STATE_FAILED, False)
    assert (await stub.CheckInput(prompt("fine", profile="careful"))).assessment.verdict == verdict.VERDICT_ALLOW


async def test_open_policy_lets_pass_and_says_so(serve: Serve) -> None:
    """Where the policy fails open the text passes, and is never reported as screened."""
    stub = await serve(POLICIES, {"pii": FakeDetector("pii", failing(ON))})

    assessment = (await stub.CheckOutput(answer(ON, profile="easy"))).assessment

    assert assessment.verdict == verdict.VERDICT_ALLOW
    assert (run_of(assessment).state, run_of(assessment).failed_open) == (verdict.EXECUTION_STATE_FAILED, True)


@pytest.mark.parametrize(("profile", "expected"), [("careful", verdict.VERDICT_BLOCK), ("easy", verdict.VERDICT_ALLOW)])
async def test_overrun_ends_at_the_deadline(
    serve: Serve, release: threading.Event, profile: str, expected: verdict.Verdict
) -> None:
    """A detector that hangs is given up at its deadline, not waited for."""
    stub = await serve(POLICIES, {"pii": FakeDetector("pii", hanging(ON, release))})
    started = time.monotonic()

    assessment = (await stub.CheckInput(prompt(ON, profile=profile))).assessment

    assert time.monotonic() - started < 2
    assert assessment.verdict == expected
    assert run_of(assessment).state == verdict.EXECUTION_STATE_TIMED_OUT


async def test_closed_failure_ends_a_stream(serve: Serve) -> None:
    """When a detector fails mid-stream nothing unscreened leaves, and every choice is blocked."""
    stub = await serve(POLICIES, {"pii": FakeDetector("pii", failing(ON))})

    messages = [deltas(["good "]), deltas([f"{ON} bad"]), deltas([" worse"]), deltas(["other"], 1)]
    events = await screen(stub, messages, "careful", choices=2)

    assert released(events) == "good "
    assert released(events, 1) == ""
    done = {e.choice_done.choice_index: e.choice_done.verdict for e in events if e.HasField("choice_done")}
    assert done == {0: verdict.VERDICT_BLOCK, 1: verdict.VERDICT_BLOCK}
    assert events[-1].completed.assessment.verdict == verdict.VERDICT_BLOCK


async def test_open_failure_lets_a_stream_go_on_under_the_other_detectors(serve: Serve) -> None:
    """A stream that lost one detector goes on, is still judged by the others, and its end says what was missed."""
    stub = await serve(POLICIES, {"pii": FakeDetector("pii", failing(ON))})

    messages = [deltas([f"{ON} and on. "]), deltas(["how to make a pipe bomb"])]
    events = await screen(stub, messages, "easy")

    assert released(events) == f"{ON} and on. "
    assessment = events[-1].completed.assessment
    assert assessment.verdict == verdict.VERDICT_BLOCK
    assert run_of(assessment).failed_open


async def test_failures_are_logged_without_the_text(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    """The log names detector and kind of error; the message, which quotes the text, stays out."""
    stub = await serve(POLICIES, {"pii": FakeDetector("pii", failing(ON))})

    await stub.CheckInput(prompt(f"my secret {ON}", profile="easy"))

    record = next(record for record in caplog.records if record.message == "detector failed")
    assert (record.levelno, record.__dict__["error"]) == (logging.ERROR, "RuntimeError")
    assert "secret" not in caplog.text


async def test_fail_open_rules_are_announced(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    """Start-up logs every rule under which a text may pass unscreened."""
    await serve(POLICIES)

    announced = [r.__dict__ for r in caplog.records if r.message == "fails open"]
    assert [(each["profile"], each["direction"]) for each in announced] == [("easy", "INPUT"), ("easy", "OUTPUT")]


MODELS = """
profiles:
  models:
    description: Two models.
    strictness: 60
    input: {moderation: {action: block, deadline_ms: 20000}, injection: {action: flag, deadline_ms: 20000}}
  blocked:
    description: A model beside a term.
    strictness: 60
    input: {forbidden_terms: {action: block}, moderation: {action: block, deadline_ms: 20000}}
  held:
    description: Answers wait for a model.
    strictness: 60
    output: {pii: {action: redact}, moderation: {action: block, deadline_ms: 20000}}
  held-open:
    description: As held, and goes on without the model.
    strictness: 40
    output: {pii: {action: redact}, moderation: {action: block, deadline_ms: 20000, on_failure: open}}
"""


async def test_patterns_read_when_something_can_leave(serve: Serve) -> None:
    """Neither piece by piece of one message, nor before the model that the text waits for has judged its passage."""
    read: list[str] = []

    async def nothing() -> list[Match]:
        return []

    detectors = {
        "pii": FakeDetector("pii", read.append, inline=1_000),
        "moderation": FakeModel("moderation", ("violence",), nothing),
    }
    stub = await serve(MODELS, detectors)
    read.clear()  # what it was warmed with

    events = await screen(stub, [deltas(["one", " two"]), deltas([" three"]), deltas(["."])], profile="held")

    assert released(events) == "one two three."
    assert [text for text in read if text] == ["one two three."]


@pytest.mark.parametrize("model", [SleeplessModel, RestlessModel, StillbornModel])
@pytest.mark.parametrize(("profile", "passed"), [("held", ""), ("held-open", "one two three")])
async def test_model_that_fails_before_it_reads_has_failed(
    serve: Serve, profile: str, passed: str, model: type[FakeModel]
) -> None:
    """The policy decides, as where a detector fails to read: a stream is blocked, or goes on and says so."""

    async def nothing() -> list[Match]:
        return []

    stub = await serve(MODELS, {"moderation": model("moderation", ("violence",), nothing)})

    events = await screen(stub, [deltas(["one"]), deltas([" two"]), deltas([" three"])], profile=profile)

    assert released(events) == passed
    run = next(run for run in events[-1].completed.assessment.runs if run.detector == "moderation")
    assert (run.state, run.failed_open) == (verdict.EXECUTION_STATE_FAILED, profile == "held-open")


async def test_models_read_at_the_same_time(serve: Serve) -> None:
    """One does not wait for the other, nor do both for patterns: a text takes as long as the slowest of them."""
    began = asyncio.Event()

    async def waits() -> list[Match]:
        await began.wait()
        return [Match(0, 5, "violence", 0.9)]

    async def begins() -> list[Match]:
        began.set()
        return [Match(0, 5, "injection/direct", 0.9)]

    moderation = FakeModel("moderation", ("violence",), waits)
    injection = FakeModel("injection", ("injection/direct",), begins)
    stub = await serve(MODELS, {"moderation": moderation, "injection": injection})

    assessment = (await stub.CheckInput(prompt("hello", profile="models"))).assessment

    assert assessment.verdict == verdict.VERDICT_BLOCK
    assert {finding.category for finding in assessment.findings} >= {"violence"}


async def test_what_is_blocked_by_a_pattern_waits_for_no_model(serve: Serve) -> None:
    """The verdict is certain; the work of the model is given up."""
    given_up = asyncio.Event()

    async def never() -> list[Match]:
        try:
            await asyncio.Event().wait()
        finally:
            given_up.set()
        return []

    stub = await serve(MODELS, {"moderation": FakeModel("moderation", ("violence",), never)})

    assessment = (await stub.CheckInput(prompt("how to make a pipe bomb", profile="blocked"))).assessment

    assert assessment.verdict == verdict.VERDICT_BLOCK
    await asyncio.wait_for(given_up.wait(), 20)


async def test_long_texts_are_judged_in_order(serve: Serve) -> None:
    """A model is shown a long text piece by piece, and nothing behind what it blocks."""
    calls: list[int] = []

    async def second() -> list[Match]:
        calls.append(len(calls))
        return [Match(5_000, 5_001, "violence", 1.0)] if len(calls) == 2 else []

    stub = await serve(MODELS, {"moderation": FakeModel("moderation", ("violence",), second)})

    assessment = (await stub.CheckInput(prompt("a." * 200_000, profile="models"))).assessment

    assert assessment.verdict == verdict.VERDICT_BLOCK
    assert calls == [0, 1]


async def test_what_a_model_blocks_never_leaves_before_it_is_told(serve: Serve) -> None:
    """Also where the model is done at once and the patterns, in a thread, are not."""

    async def at_once() -> list[Match]:
        return [Match(0, 4, "violence", 1.0)]

    detectors = {
        "pii": FakeDetector("pii", lambda text: None),
        "moderation": FakeModel("moderation", ("violence",), at_once),
    }
    events = await screen(await serve(MODELS, detectors), [deltas(["harm here."])], profile="held")

    assert released(events) == ""
    assert events[-1].completed.assessment.verdict == verdict.VERDICT_BLOCK
