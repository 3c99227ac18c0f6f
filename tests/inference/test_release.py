"""The answer's way through safety: nothing unscreened leaves, nothing is lost, nothing leaves twice."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import aclosing

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kit.errors import Code, InvalidArgument, MillraceError, Unavailable
from services.inference.attempts.attempts import Batch
from services.inference.events import Attempt, AttemptEvent, Finding, SafetyEvent, Verdict
from services.inference.generation import (
    ChoiceFinished,
    Delta,
    EngineCompleted,
    EngineEvent,
    FinishReason,
    TokenLogprob,
    ToolCallDelta,
)
from services.inference.routing.rules import SafetyRule
from services.inference.screening import release
from services.inference.screening.release import Screen
from services.inference.screening.safety_port import (
    REFUSAL,
    Assessment,
    ChoiceJudged,
    Judged,
    OutputPiece,
    Released,
)
from tests.inference.parts import DONE, STOP, Decision, FakeEngine, FakeSafety, ScriptedStream, prompt, saying
from tests.inference.suite import only_tasks, tasks_now

GONE = Unavailable("GONE", "gone")
END = [ChoiceJudged(0, Verdict.ALLOW)]
ASSESSED = [Assessment(Verdict.ALLOW, policy_version="v1")]
FOUND = Finding("EMAIL", 0.9, "pii", 2, 5)


class Pass:
    """Releases everything at once, until it breaks after so many sends."""

    def __init__(self, break_after: int | None = None, hold: int = 0) -> None:
        self._left, self._hold = break_after, hold
        self._text, self._through = "", 0

    def __call__(self, pieces: Sequence[OutputPiece] | None) -> Iterable[Sequence[Decision] | Exception]:
        if self._left == 0:
            return [GONE]
        if self._left is not None:
            self._left -= 1
        if pieces is None:
            return [ASSESSED]
        self._text += "".join(piece.text for piece in pieces)
        ends = any(piece.end_of_choice for piece in pieces)
        free = len(self._text) if ends else max(self._through, len(self._text) - self._hold)
        text, self._through = self._text[self._through : free], free
        released: list[Decision] = [Released(0, "text", 0, text, free)] if text else []
        return [[*released, *(END if ends else [])]]


def screen(safety: FakeSafety, open_: bool = False, n: int = 1) -> Screen:
    rule = SafetyRule(on_unavailable="open" if open_ else "closed")
    return Screen(safety, "default", rule, n, ("look", "stop"))


async def batches_of(engine: FakeEngine) -> AsyncGenerator[Batch, None]:
    async with aclosing(engine.generate(prompt(), None)) as batches:
        async for batch in batches:
            yield batch


async def streamed(
    engine: FakeEngine, stream: ScriptedStream | MillraceError, open_: bool = False, n: int = 1
) -> list[object]:
    made = screen(FakeSafety(stream=stream), open_, n)
    async with asyncio.timeout(5):
        return [event async for batch in made.streamed(batches_of(engine)) for event in batch]


async def whole(engine: FakeEngine, said: Assessment | MillraceError, open_: bool = False) -> list[object]:
    return [e async for batch in screen(FakeSafety(whole=said), open_).whole(batches_of(engine)) for e in batch]


def text(events: Iterable[object]) -> str:
    return "".join(event.text for event in events if isinstance(event, Delta))


def ends_well(events: Sequence[object]) -> bool:
    """Whether each choice ended once, and the answer once and last."""
    finished = [event for event in events if isinstance(event, ChoiceFinished)]
    return len(finished) == 1 and [e for e in events if isinstance(e, EngineCompleted)] == [events[-1]]


async def test_released_text_leaves_and_the_end_is_the_engines() -> None:
    """With nothing found the answer is the engine's, and the policy's version is known."""
    made = screen(FakeSafety(stream=ScriptedStream(Pass(hold=3))))
    events = [e async for batch in made.streamed(batches_of(saying("Hello", " world"))) for e in batch]

    assert text(events) == "Hello world"
    assert events[-2:] == [STOP, DONE]
    assert made.policy_version == "v1"


async def test_text_waits_for_its_release() -> None:
    """What safety holds does not leave, however long the engine goes on."""
    gate = asyncio.Event()
    stream = ScriptedStream(Pass(hold=4))
    engine = FakeEngine([Delta(text="secret")], gate, [STOP], [DONE])
    async with aclosing(screen(FakeSafety(stream=stream)).streamed(batches_of(engine))) as batches:
        assert text(await anext(batches)) == "se"
        await engine.waiting.wait()
    assert engine.closed
    assert stream.cancelled


@settings(max_examples=100, deadline=None)
@given(data=st.data())
@pytest.mark.parametrize("open_", [True, False])
def test_safety_that_fails_midway_loses_and_repeats_nothing(open_: bool, data: st.DataObject) -> None:
    """Wherever safety breaks: open lets out exactly the original text and one end, closed ends in an error."""
    words = data.draw(st.lists(st.text("abcé🎉 ", min_size=1, max_size=4), max_size=6))
    tail: list[list[EngineEvent]] = data.draw(st.sampled_from([[[STOP], [DONE]], [[STOP, DONE]]]))
    script: list[list[EngineEvent]] = [[Delta(text=word)] for word in words] + tail
    if data.draw(st.booleans()):  # everything in one read
        script = [[event for batch in script for event in batch]]
    break_after = data.draw(st.integers(0, len(words) + 2))
    stream = ScriptedStream(Pass(break_after, data.draw(st.integers(0, 5))))

    async def story() -> list[object]:
        before = tasks_now()
        try:
            return await streamed(FakeEngine(*script), stream, open_)
        finally:
            await only_tasks(before)

    broke = break_after < sum(any(not isinstance(e, EngineCompleted) for e in batch) for batch in script) + 1
    if broke and not open_:
        with pytest.raises(MillraceError, match="safety"):
            asyncio.run(story())
        return
    events = asyncio.run(story())
    assert text(events) == "".join(words)
    assert ends_well(events)
    assert [e.unscreened for e in events if isinstance(e, SafetyEvent)] == ([True] if broke else [])


async def test_what_is_held_leaves_at_once() -> None:
    """When safety breaks under an open rule, nobody waits for the engine's next word to see the last one."""
    engine = FakeEngine([Delta(text="abc")], asyncio.Event())
    made = screen(FakeSafety(stream=ScriptedStream(lambda pieces: [GONE])), open_=True)
    async with asyncio.timeout(5), aclosing(made.streamed(batches_of(engine))) as batches:
        events = list(await anext(batches))

    assert [e.unscreened for e in events if isinstance(e, SafetyEvent)] == [True]
    assert text(events) == "abc"


@pytest.mark.parametrize("open_", [True, False])
async def test_safety_that_cannot_be_asked(open_: bool) -> None:
    """A stream that cannot even be opened is a failure like any other."""
    if not open_:
        with pytest.raises(MillraceError) as caught:
            await streamed(saying("a"), GONE)
        assert (caught.value.code, caught.value.reason) == (Code.UNAVAILABLE, "SAFETY_UNAVAILABLE")
        return
    events = await streamed(saying("a", "b"), GONE, open_)
    assert isinstance(events[0], SafetyEvent)
    assert events[0].unscreened
    assert text(events) == "ab"


async def test_an_unknown_profile_is_the_callers_fault() -> None:
    """Open or closed, the field is named."""
    with pytest.raises(MillraceError) as caught:
        await streamed(saying("a"), InvalidArgument("profile", "unknown"), open_=True)

    assert caught.value.field_violations[0].field == "spec.safety.profile"


async def test_safety_that_ends_too_early_is_a_failure() -> None:
    """An assessment before the answer is over does not make it complete."""
    stream = ScriptedStream(lambda pieces: [ASSESSED, GONE] if pieces else [])
    with pytest.raises(MillraceError) as caught:
        await streamed(FakeEngine([Delta(text="a")], asyncio.Event()), stream)

    assert caught.value.reason == "SAFETY_UNAVAILABLE"


@pytest.mark.parametrize("open_", [True, False])
async def test_safety_that_never_finishes(open_: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once the answer is over, safety's silence has a bound, and the rule says what that means."""
    monkeypatch.setattr(release, "FINISH_S", 0.02)
    stream = ScriptedStream(lambda pieces: [])
    if not open_:
        with pytest.raises(MillraceError) as caught:
            await streamed(saying("a"), stream)
        assert caught.value.reason == "SAFETY_UNAVAILABLE"
        return
    events = await streamed(saying("a", "b"), stream, open_)
    assert text(events) == "ab"
    assert ends_well(events)


@pytest.mark.parametrize("open_", [True, False])
async def test_safety_that_hangs_in_the_middle(open_: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Safety that owes far more than it may hold, and says nothing, has failed long before the answer is over."""
    monkeypatch.setattr(release, "FINISH_S", 0.0)
    never, stream = asyncio.Event(), ScriptedStream(lambda pieces: [])
    words = [Delta(text="x" * 300)], [Delta(text="y" * 300)]
    if not open_:
        with pytest.raises(MillraceError) as caught:
            await streamed(FakeEngine(*words, never), stream)
        assert caught.value.reason == "SAFETY_UNAVAILABLE"
        assert stream.cancelled
        return
    events = await streamed(FakeEngine(*words, [STOP, DONE]), stream, open_)
    assert text(events) == "x" * 300 + "y" * 300
    assert ends_well(events)


async def test_a_slow_reader_is_no_silence_of_safety(monkeypatch: pytest.MonkeyPatch) -> None:
    """However long the reader takes over the last batches, they are all there."""
    monkeypatch.setattr(release, "FINISH_S", 0.02)
    letters = [[Released(0, "text", 0, letter, at)] for at, letter in enumerate("abcdef", 1)]
    stream = ScriptedStream(lambda pieces: [] if pieces else [*letters, END, ASSESSED])
    seen: list[object] = []
    async for batch in screen(FakeSafety(stream=stream)).streamed(batches_of(saying("abcdef"))):
        seen += batch
        await asyncio.sleep(0.03)  # the reader's own time, longer than safety's bound

    assert text(seen) == "abcdef"
    assert ends_well(seen)


async def test_a_block_ends_the_answer() -> None:
    """A refusal, the filter's finish reason and usage follow; nothing behind the block leaves; the engine stops."""

    def decide(pieces: Sequence[OutputPiece] | None) -> Iterable[Sequence[Decision]]:
        assert pieces is not None
        if pieces[0].text == "good ":
            return [[Released(0, "text", 0, "good ", 5)]]
        return [[Judged(0, "text", Verdict.BLOCK, FOUND), ChoiceJudged(0, Verdict.BLOCK)]]

    engine = FakeEngine([Delta(text="good ")], [Delta(text="evil")], [Delta(text=" more")], asyncio.Event())
    before = tasks_now()
    events = await streamed(engine, ScriptedStream(decide))

    assert text(events) == "good "
    assert events[-3:-1] == [Delta(refusal=REFUSAL), ChoiceFinished(0, FinishReason.CONTENT_FILTER)]
    assert isinstance(events[-1], EngineCompleted)
    assert events[-1].usage.estimated
    assert [e.verdict for e in events if isinstance(e, SafetyEvent)] == [Verdict.BLOCK]
    assert engine.closed
    await only_tasks(before)


async def test_a_block_is_told_even_where_the_reader_is_behind() -> None:
    """Decisions that come faster than they are read are told in order, the refusal included."""
    decisions: list[Sequence[Decision]] = [
        [Released(0, "text", 0, "ab", 2)],
        [Released(0, "text", 0, "cd", 4)],
        [ChoiceJudged(0, Verdict.BLOCK)],
    ]
    events = await streamed(saying("abcdef"), ScriptedStream(lambda pieces: decisions if pieces else []))

    assert text(events) == "abcd"
    assert events[-3:-1] == [Delta(refusal=REFUSAL), ChoiceFinished(0, FinishReason.CONTENT_FILTER)]


async def test_one_blocked_choice_leaves_the_other() -> None:
    """Choices are judged apart, and the answer ends as the engine says."""

    def decide(pieces: Sequence[OutputPiece] | None) -> Iterable[Sequence[Decision]]:
        if pieces is None:
            return [ASSESSED]
        said: list[Decision] = []
        for piece in pieces:
            if piece.choice_index == 0:
                said.append(ChoiceJudged(0, Verdict.BLOCK))
            elif piece.end_of_choice:
                said.append(ChoiceJudged(1, Verdict.ALLOW))
            else:
                said.append(Released(1, "text", 0, piece.text, 4))
        return [said]

    engine = FakeEngine([Delta(0, "evil"), Delta(1, "good")], [STOP, ChoiceFinished(1, FinishReason.LENGTH)], [DONE])
    events = await streamed(engine, ScriptedStream(decide), n=2)

    assert [e for e in events if isinstance(e, ChoiceFinished)] == [
        ChoiceFinished(0, FinishReason.CONTENT_FILTER),
        ChoiceFinished(1, FinishReason.LENGTH),
    ]
    assert text(events) == "good"
    assert events[-1] == DONE


async def test_an_engine_that_fails_is_its_failure() -> None:
    """Safety in between changes nothing: half an answer is an error."""
    broken = Unavailable("UPSTREAM_TRUNCATED", "cut")
    stream = ScriptedStream(Pass())
    with pytest.raises(MillraceError) as caught:
        await streamed(FakeEngine([Delta(text="a")], broken), stream)

    assert caught.value is broken
    assert stream.cancelled


async def test_a_bug_between_is_told_and_hangs_nobody() -> None:
    """An unexpected error in either task ends the answer with it."""
    with pytest.raises(RuntimeError, match="bug"):
        await streamed(FakeEngine(RuntimeError("bug")), ScriptedStream(Pass()))
    with pytest.raises(RuntimeError, match="bug"):
        await streamed(saying("a"), ScriptedStream(lambda pieces: [RuntimeError("bug")]))


@pytest.mark.parametrize("is_streamed", [True, False])
async def test_attempts_are_told_at_once(is_streamed: bool) -> None:
    """That a target failed needs no screening."""
    told = AttemptEvent(Attempt(1, "openai", "t1"))
    engine = FakeEngine([told], [Delta(text="a")], [STOP], [DONE])  # type: ignore[list-item]
    if is_streamed:
        events = await streamed(engine, ScriptedStream(Pass()))
    else:
        events = await whole(engine, Assessment(Verdict.ALLOW, verdicts=(Verdict.ALLOW,), replacements=(None,)))

    assert events == [told, Delta(text="a"), STOP, DONE]


def logprob(token: str) -> TokenLogprob:
    return TokenLogprob(token, -1.0, token.encode())


async def test_logprobs_never_tell_redacted_text() -> None:
    """Tokens that overlap what was replaced are left out; those around it stay."""
    tokens = [Delta(text=token, logprobs=(logprob(token),)) for token in ("a ", "b@c", " d")]

    def decide(pieces: Sequence[OutputPiece] | None) -> Iterable[Sequence[Decision]]:
        if pieces is None:
            return [END, ASSESSED]
        if pieces[-1].end_of_choice:
            return [[Judged(0, "text", Verdict.REDACT, FOUND), Released(0, "text", 0, "a <EMAIL> d", 7)]]
        return []

    events = await streamed(FakeEngine(*([one] for one in tokens), [STOP], [DONE]), ScriptedStream(decide))
    deltas = [event for event in events if isinstance(event, Delta)]

    assert text(events) == "a <EMAIL> d"
    assert [one.token for delta in deltas for one in delta.logprobs] == ["a ", " d"]


async def test_tool_calls_leave_with_their_arguments() -> None:
    """Name and id wait for the release of the arguments; a call without any still leaves."""
    engine = FakeEngine(
        [Delta(tool_calls=(ToolCallDelta(0, "c1", "look"), ToolCallDelta(1, "c2", "stop")))],
        [Delta(tool_calls=(ToolCallDelta(0, "c1", "look", '{"a":'),))],
        [Delta(tool_calls=(ToolCallDelta(0, arguments_json="1}"),))],
        [ChoiceFinished(0, FinishReason.TOOL_CALLS)],
        [DONE],
    )

    def decide(pieces: Sequence[OutputPiece] | None) -> Iterable[Sequence[Decision]]:
        if pieces is None:
            return [ASSESSED]
        if pieces[-1].end_of_choice:
            return [[Released(0, "tool_arguments", 0, '{"a":1}', 7), *END]]
        return []

    events = await streamed(engine, ScriptedStream(decide))
    calls = [call for event in events if isinstance(event, Delta) for call in event.tool_calls]

    assert calls == [ToolCallDelta(0, "c1", "look", '{"a":1}'), ToolCallDelta(1, "c2", "stop")]


async def test_a_whole_answer_is_judged_whole() -> None:
    """Nothing leaves before; flagged it is told, and stays as it is."""
    said = Assessment(Verdict.FLAG, (FOUND,), (Verdict.FLAG,), (None,), "v1")
    events = await whole(saying("Hel", "lo"), said)

    assert isinstance(events[0], SafetyEvent)
    assert (events[0].verdict, events[0].findings, events[0].policy_version) == (Verdict.FLAG, (FOUND,), "v1")
    assert events[1:] == [Delta(text="Hello"), STOP, DONE]


async def test_a_whole_answer_is_redacted() -> None:
    """The replacement stands in the place of the text, and logprobs that would tell it are gone."""
    engine = FakeEngine([Delta(text="b@c", logprobs=(logprob("b@c"),)), STOP, DONE])
    events = await whole(engine, Assessment(Verdict.REDACT, (FOUND,), (Verdict.REDACT,), ("<EMAIL>",)))

    assert events[1:] == [Delta(text="<EMAIL>"), STOP, DONE]


async def test_redacted_arguments_of_a_whole_answer() -> None:
    """A tool call keeps its name and id; only what was found in its arguments is replaced."""
    call = ToolCallDelta(0, "c1", "look", '{"a":"b@c"}')
    engine = FakeEngine([Delta(text="ok", tool_calls=(call,)), STOP, DONE])
    said = Assessment(Verdict.REDACT, (FOUND,), (Verdict.ALLOW, Verdict.REDACT), (None, '{"a":"<EMAIL>"}'))
    events = await whole(engine, said)

    assert events[1] == Delta(text="ok", tool_calls=(ToolCallDelta(0, "c1", "look", '{"a":"<EMAIL>"}'),))


async def test_a_blocked_whole_answer_is_a_refusal() -> None:
    """All of the choice is gone, whichever of its parts was blocked; the other choice stays."""
    engine = FakeEngine(
        [Delta(0, "fine", reasoning="evil"), Delta(1, "good")], [STOP, ChoiceFinished(1, FinishReason.STOP), DONE]
    )
    said = Assessment(Verdict.BLOCK, (FOUND,), (Verdict.ALLOW, Verdict.BLOCK, Verdict.ALLOW), (None, None, None))
    events = await whole(engine, said)

    assert events[1:] == [
        Delta(refusal=REFUSAL),
        ChoiceFinished(0, FinishReason.CONTENT_FILTER),
        Delta(1, "good"),
        ChoiceFinished(1, FinishReason.STOP),
        DONE,
    ]


@pytest.mark.parametrize("open_", [True, False])
async def test_a_whole_answer_without_safety(open_: bool) -> None:
    """Closed refuses; open lets the answer go and says so."""
    if not open_:
        with pytest.raises(MillraceError) as caught:
            await whole(saying("a"), GONE)
        assert caught.value.reason == "SAFETY_UNAVAILABLE"
        assert caught.value.retry_after_ms
        return
    events = await whole(saying("a"), GONE, open_)
    assert isinstance(events[0], SafetyEvent)
    assert events[0].unscreened
    assert events[1:] == [Delta(text="a"), STOP, DONE]


async def test_an_empty_whole_answer_needs_no_judgement() -> None:
    """There is nothing to ask about."""
    events = [
        event async for batch in screen(FakeSafety()).whole(batches_of(FakeEngine([STOP], [DONE]))) for event in batch
    ]

    assert events == [Delta(), STOP, DONE]
