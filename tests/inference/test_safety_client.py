"""Safety as the pipeline sees it, against the real service."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest
import pytest_asyncio

from kit import identity, telemetry
from kit.channel import Channel
from kit.dial import dial
from kit.errors import Code, DeadlineExceeded, InvalidArgument, MillraceError, Unavailable
from kit.identity import CallContext
from kit.serve import Registration, Server
from millrace.safety.v1 import safety_service_pb2 as pb
from millrace.safety.v1 import safety_service_pb2_grpc
from services.inference.events import Finding, Verdict
from services.inference.generation import Role
from services.inference.screening import safety_client
from services.inference.screening.safety_client import KINDS, SafetyClient
from services.inference.screening.safety_port import (
    Assessment,
    ChoiceJudged,
    Judged,
    OutputPiece,
    OutputStream,
    Released,
)
from services.inference.screening.segments import Segment
from services.safety import wiring
from services.safety.config import SafetySettings

pytestmark = pytest.mark.asyncio(loop_scope="module")

LIMIT_S = 5.0
BAD = "how to make a pipe bomb"
CARD = "4111 1111 1111 1111"
Decision = Released | Judged | ChoiceJudged | Assessment


@dataclass
class Running:
    """A safety service and a client of it."""

    client: SafetyClient
    channel: Channel
    server: Server
    port: int


async def serve(registrations: tuple[Registration, ...]) -> Running:
    server = Server("safety", SafetySettings(port=0), registrations, telemetry.off())
    port = await server.start()
    server.set_serving("", True)
    channel = dial(f"127.0.0.1:{port}", service=wiring.FULL_NAME)
    await channel.channel_ready()
    return Running(SafetyClient(channel, LIMIT_S), channel, server, port)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def service() -> AsyncIterator[wiring.SafetyService]:
    """The service as it comes, warm; it keeps no state, so that one does for all tests."""
    made = wiring.build(SafetySettings(port=0))
    await made.safety.warm()
    yield made
    await made.close()


@pytest_asyncio.fixture(loop_scope="module")
async def running(service: wiring.SafetyService) -> AsyncIterator[Running]:
    """The real service."""
    made = await serve(service.registrations)
    yield made
    await made.channel.close()
    await made.server.stop(0)


@pytest.fixture
def client(running: Running) -> SafetyClient:
    """A client of the real service."""
    return running.client


class HangingSafety(safety_service_pb2_grpc.SafetyServiceServicer):
    """Never answers; a stream says one thing that no version of this client knows, where it is told to."""

    def __init__(self) -> None:
        self.is_newer = False
        self.ended = asyncio.Event()

    async def CheckInput(self, request: Any, context: Any) -> Any:
        await asyncio.Event().wait()

    async def StreamCheckOutput(self, requests: Any, context: Any) -> AsyncIterator[pb.StreamCheckOutputResponse]:
        try:
            if self.is_newer:
                yield pb.StreamCheckOutputResponse(events=[pb.OutputEvent()])
            await asyncio.Event().wait()
        finally:
            self.ended.set()


@pytest_asyncio.fixture(loop_scope="module")
async def hanging() -> AsyncIterator[tuple[Running, HangingSafety]]:
    """A service that hangs."""
    servicer = HangingSafety()
    add = safety_service_pb2_grpc.add_SafetyServiceServicer_to_server
    made = await serve((Registration(wiring.FULL_NAME, add, servicer),))
    yield made, servicer
    await made.channel.close()
    await made.server.stop(0)


class PatientSafety(safety_service_pb2_grpc.SafetyServiceServicer):
    """Awaits forty code points, releases the first piece to say so, and keeps what it was sent, message by message."""

    gather_max = timedelta(minutes=1)

    def __init__(self) -> None:
        self.messages: asyncio.Queue[str] = asyncio.Queue()

    async def StreamCheckOutput(self, requests: Any, context: Any) -> AsyncIterator[pb.StreamCheckOutputResponse]:
        awaited = pb.Awaited(kind=KINDS["text"], least_through=40, most_through=60, gather_max=self.gather_max)
        async for request in requests:
            self.messages.put_nowait("".join(delta.text for delta in request.deltas))
            if request.HasField("start"):
                event = pb.OutputEvent(released=pb.ReleasedText(kind=KINDS["text"], text="a", released_through=1))
                yield pb.StreamCheckOutputResponse(awaited=[awaited])
                yield pb.StreamCheckOutputResponse(events=[event])


@pytest_asyncio.fixture(loop_scope="module")
async def patient() -> AsyncIterator[tuple[Running, PatientSafety]]:
    """A service that tells what it awaits."""
    servicer = PatientSafety()
    add = safety_service_pb2_grpc.add_SafetyServiceServicer_to_server
    made = await serve((Registration(wiring.FULL_NAME, add, servicer),))
    yield made, servicer
    await made.channel.close()
    await made.server.stop(0)


def user(*texts: str) -> list[Segment]:
    return [Segment(Role.USER, text, 0, index) for index, text in enumerate(texts)]


def pieces(*texts: str, choice: int = 0) -> list[OutputPiece]:
    return [OutputPiece(choice, "text", text) for text in texts]


def end(choice: int = 0) -> OutputPiece:
    return OutputPiece(choice, "text", end_of_choice=True)


async def judged(stream: OutputStream, *sends: Sequence[OutputPiece]) -> list[Decision]:
    """Sends everything, half-closes and reads to the end."""
    for send in sends:
        await stream.send(send)
    await stream.done()
    async with asyncio.timeout(LIMIT_S):
        return [one async for decisions in stream for one in decisions]


def text_of(decisions: Sequence[Decision], kind: str = "text", choice: int = 0) -> str:
    found = [one for one in decisions if isinstance(one, Released) and (one.kind, one.choice_index) == (kind, choice)]
    return "".join(one.text for one in found)


async def test_prompts_are_judged(client: SafetyClient) -> None:
    """The worst verdict counts for all; texts have their own; findings say which text, what, and where."""
    said = await client.check_input("default", user("hello", f"tell me {BAD}", "me@example.com"))

    assert said.verdict is Verdict.BLOCK
    assert said.verdicts == (Verdict.ALLOW, Verdict.BLOCK, Verdict.FLAG)
    assert said.replacements == (None, None, None)
    assert {(one.category, one.message_index) for one in said.findings} == {
        ("illicit/violent", 1),
        ("EMAIL_ADDRESS", 2),
    }
    email = next(one for one in said.findings if one.category == "EMAIL_ADDRESS")
    assert (email.start, email.end, email.detector) == (0, 14, "pii")
    assert said.policy_version
    assert not said.unscreened


@pytest.mark.parametrize("role", list(Role))
async def test_every_role_can_be_judged(client: SafetyClient, role: Role) -> None:
    """Developer's words are the system's."""
    said = await client.check_input("default", [Segment(role, "hello", 0, 0)])

    assert said.verdict is Verdict.ALLOW
    assert said.findings == ()


async def test_replacements_are_the_texts(client: SafetyClient) -> None:
    """Only of what is redacted."""
    said = await client.check_input("strict", user("hello", "I am me@example.com"))

    assert said.verdict is Verdict.REDACT
    assert said.replacements == (None, "I am <EMAIL_ADDRESS>")


async def test_whole_answers_are_judged(client: SafetyClient) -> None:
    """Part by part, in order; of every kind."""
    parts = [
        OutputPiece(0, "text", f"card {CARD}"),
        OutputPiece(0, "reasoning", "hm"),
        OutputPiece(1, "refusal", "no"),
        OutputPiece(1, "tool_arguments", f'{{"card": "{CARD}"}}', 2),
    ]
    said = await client.check_output("default", parts)

    assert said.verdict is Verdict.REDACT
    assert said.verdicts == (Verdict.REDACT, Verdict.ALLOW, Verdict.ALLOW, Verdict.REDACT)
    assert said.replacements == ("card <CREDIT_CARD>", None, None, '{"card": "<CREDIT_CARD>"}')


async def test_scores_have_names(client: SafetyClient) -> None:
    """Each category with its score and whether that is enough; nothing of text that is fine."""
    scores, version = await client.scores("moderation", BAD)
    fine, _ = await client.scores("moderation", "hello")

    score, flagged = scores["illicit/violent"]
    assert 0.4 <= score <= 1
    assert flagged
    assert not any(flagged for _, flagged in fine.values())
    assert version


async def test_an_unknown_profile_names_its_field(client: SafetyClient) -> None:
    """For whole texts and for streams: the caller's mistake is told from a failure by the field."""
    with pytest.raises(InvalidArgument) as caught:
        await client.check_input("nobody's", user("hello"))
    assert caught.value.field_violations[0].field == "profile"

    stream = client.stream_output("nobody's", 1)
    with pytest.raises(InvalidArgument) as caught:
        await judged(stream, pieces("hello"))
    assert caught.value.field_violations[0].field == "profile"


async def test_a_stream_releases_what_is_fine(client: SafetyClient) -> None:
    """All of it, with watermarks that count the original's code points, an end per choice and one for all."""
    stream = client.stream_output("default", 2)
    decisions = await judged(stream, pieces("héllo 😀 ", "world"), [*pieces("two", choice=1), end(0), end(1)])

    assert text_of(decisions) == "héllo 😀 world"
    assert text_of(decisions, choice=1) == "two"
    assert [one.released_through for one in decisions if isinstance(one, Released) and not one.choice_index][-1] == 13
    ends = [one for one in decisions if isinstance(one, ChoiceJudged)]
    assert ends == [ChoiceJudged(0, Verdict.ALLOW), ChoiceJudged(1, Verdict.ALLOW)]
    assert isinstance(decisions[-1], Assessment)
    assert (decisions[-1].verdict, decisions[-1].unscreened) == (Verdict.ALLOW, False)
    assert decisions[-1].policy_version


async def test_a_stream_redacts_and_says_where(client: SafetyClient) -> None:
    """The finding comes with the span of the original; the text is the placeholder."""
    stream = client.stream_output("default", 1)
    decisions = await judged(stream, pieces("pay 4111 1111", " 1111 1111 now"), [end()])

    assert text_of(decisions) == "pay <CREDIT_CARD> now"
    [found] = [one for one in decisions if isinstance(one, Judged)]
    assert (found.choice_index, found.kind, found.verdict) == (0, "text", Verdict.REDACT)
    assert isinstance(found.finding, Finding)
    assert (found.finding.category, found.finding.start, found.finding.end) == ("CREDIT_CARD", 4, 23)


async def test_a_stream_blocks(client: SafetyClient) -> None:
    """Nothing of the choice leaves past the block, and what is sent after it is not looked at."""
    stream = client.stream_output("default", 1)
    decisions = await judged(stream, pieces("fine. ", "Here is ", BAD), pieces(" and then"))

    assert text_of(decisions) == "fine. Here is "
    assert [one.verdict for one in decisions if isinstance(one, ChoiceJudged)] == [Verdict.BLOCK]
    assert isinstance(decisions[-1], Assessment)
    assert decisions[-1].verdict is Verdict.BLOCK


async def test_every_kind_of_part_is_its_own(client: SafetyClient) -> None:
    """Text, reasoning, refusal and the arguments of each tool call."""
    parts = [
        OutputPiece(0, kind, f"some {kind}", index)
        for kind, index in [("text", 0), ("reasoning", 0), ("refusal", 0), ("tool_arguments", 0), ("tool_arguments", 7)]
    ]
    decisions = await judged(client.stream_output("default", 1), [*parts, end()])

    released: dict[tuple[str, int], str] = {}
    for one in decisions:
        if isinstance(one, Released):
            key = (one.kind, one.tool_call_index)
            released[key] = released.get(key, "") + one.text
    assert released == {(part.kind, part.tool_call_index): part.text for part in parts}


async def test_a_burst_is_sent_in_messages_that_fit(client: SafetyClient) -> None:
    """The contract bounds the deltas of a message; an engine's batch may be larger."""
    stream = client.stream_output("default", 1)
    decisions = await judged(stream, [*pieces(*(["ab "] * 1_000)), end()])

    assert text_of(decisions) == "ab " * 1_000


async def test_an_empty_answer_is_judged(client: SafetyClient) -> None:
    """A stream that is closed before anything was sent ends well."""
    decisions = await judged(client.stream_output("default", 2))

    assert [type(one) for one in decisions] == [ChoiceJudged, ChoiceJudged, Assessment]


async def test_pieces_are_gathered_until_they_may_matter(patient: tuple[Running, PatientSafety]) -> None:
    """They go in one message with the one that does, or with the end; order and text stay."""
    running, safety = patient
    stream = running.client.stream_output("default", 1)
    await stream.send(pieces("a"))
    async with asyncio.timeout(LIMIT_S):
        assert [one.text for one in await anext(aiter(stream)) if isinstance(one, Released)] == ["a"]
        for word in (" bc", " de", " fg", " h" * 30, " i"):
            await stream.send(pieces(word))
        await stream.send([*pieces(" j"), end()])
        sent = [await safety.messages.get() for _ in range(4)]
    stream.cancel()

    assert sent == ["a", " bc de fg" + " h" * 30, " i", " j"]


async def test_what_is_gathered_goes_in_time(patient: tuple[Running, PatientSafety]) -> None:
    """A model that falls silent does not keep back what it said; neither does the end of the answer."""
    running, safety = patient
    safety.gather_max = timedelta(milliseconds=10)
    stream = running.client.stream_output("default", 1)
    await stream.send(pieces("a"))
    async with asyncio.timeout(LIMIT_S):
        reader = aiter(stream)
        await anext(reader)
        await stream.send(pieces(" b"))
        await stream.send(pieces(" c"))
        assert [await safety.messages.get() for _ in range(2)] == ["a", " b c"]
        safety.gather_max = timedelta(minutes=1)
        await stream.send(pieces(" d"))
        await stream.done()
        assert await safety.messages.get() == " d"
    stream.cancel()


async def test_sending_to_a_stream_that_has_ended(client: SafetyClient) -> None:
    """It is unavailable, as the reader hears too; closing it is no error."""
    stream = client.stream_output("nobody's", 1)
    await stream.send(pieces("a"))
    with pytest.raises(MillraceError):
        async for _ in stream:
            pass

    with pytest.raises(Unavailable):
        await stream.send(pieces("b"))
    await stream.done()


async def test_answers_outlive_a_replica(service: wiring.SafetyService) -> None:
    """Of two replicas one is lost in the middle of the answers that both judge: each is judged to its end, once."""
    both = [await serve(service.registrations) for _ in range(2)]
    ports = ",".join(f"127.0.0.1:{one.port}" for one in both)
    async with dial(f"ipv4:{ports}", service=wiring.FULL_NAME) as channel:
        await channel.channel_ready()
        client = SafetyClient(channel, LIMIT_S)
        streams = [client.stream_output("default", 1) for _ in range(4)]
        readers = [aiter(one) for one in streams]
        heard = []
        for stream, reader in zip(streams, readers, strict=True):
            await stream.send(pieces("hello there. "))
            heard.append(list(await anext(reader)))
        await both[0].server.stop(0)
        for stream, reader, decisions in zip(streams, readers, heard, strict=True):
            await stream.send([*pieces(f"My card is {CARD}."), end()])
            await stream.done()
            async with asyncio.timeout(LIMIT_S):
                decisions += [one async for some in reader for one in some]
            assert text_of(decisions) == "hello there. My card is <CREDIT_CARD>."
            assert [type(one) for one in decisions[-2:]] == [ChoiceJudged, Assessment]
        said = [await client.check_input("default", user("hello")) for _ in range(4)]
        assert [one.verdict for one in said] == [Verdict.ALLOW] * 4
    for one in both:
        await one.channel.close()
        await one.server.stop(0)


async def test_a_service_that_goes_away_ends_the_stream(running: Running) -> None:
    """With an error that may be retried, never with an end that looks complete."""
    stream = running.client.stream_output("default", 1)
    await stream.send(pieces("hello there. "))
    reader = aiter(stream)
    await asyncio.wait_for(anext(reader), LIMIT_S)

    await running.server.stop(0)

    with pytest.raises(MillraceError) as caught:
        await asyncio.wait_for(anext(reader), LIMIT_S)
    assert caught.value.code in (Code.UNAVAILABLE, Code.CANCELLED)


async def test_a_service_that_hangs_is_given_up(hanging: tuple[Running, HangingSafety]) -> None:
    """After the client's own limit, or the call's deadline where that is nearer."""
    running, _ = hanging
    start = time.monotonic()
    with pytest.raises(DeadlineExceeded):
        await SafetyClient(running.channel, 0.05).check_input("default", user("a"))
    with identity.use(CallContext("r1", deadline=time.monotonic() + 0.05)):
        with pytest.raises(DeadlineExceeded):
            await running.client.check_input("default", user("a"))
        with pytest.raises(DeadlineExceeded):
            await judged(running.client.stream_output("default", 1), pieces("a"))

    assert time.monotonic() - start < LIMIT_S


async def test_cancelling_a_stream_ends_it_there(hanging: tuple[Running, HangingSafety]) -> None:
    """The service hears of it; a second time is harmless."""
    running, servicer = hanging
    stream = running.client.stream_output("default", 1)
    await stream.send(pieces("a"))

    stream.cancel()
    stream.cancel()

    await asyncio.wait_for(servicer.ended.wait(), LIMIT_S)


async def test_an_event_of_a_newer_service_is_no_verdict(hanging: tuple[Running, HangingSafety]) -> None:
    """What cannot be understood must not be taken for leave to go on."""
    running, servicer = hanging
    servicer.is_newer = True
    stream = running.client.stream_output("default", 1)

    with pytest.raises(Unavailable) as caught:
        await judged(stream, pieces("a"))

    assert caught.value.reason == "SAFETY_UNKNOWN_EVENT"
    stream.cancel()


async def test_a_service_that_is_gone_is_unavailable() -> None:
    """For whole texts and for streams."""
    async with dial("127.0.0.1:1") as channel:
        client = SafetyClient(channel, LIMIT_S)
        with pytest.raises(Unavailable):
            await client.check_input("default", user("a"))
        with pytest.raises(Unavailable):
            await judged(client.stream_output("default", 1), pieces("a"))


async def test_no_wait_outlasts_a_judgement(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the time is over before another replica may be asked, the loss is told at once."""
    monkeypatch.setattr(safety_client, "REPLICA_WAITS_S", (60.0,))
    async with dial("127.0.0.1:1") as channel, asyncio.timeout(LIMIT_S):
        with pytest.raises(Unavailable):
            await SafetyClient(channel, LIMIT_S).check_input("default", user("a"))
