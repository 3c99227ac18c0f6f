"""One sentence of harm among calm ones: forty that no head was taught, each in another place of another text."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from millrace.safety.v1 import safety_service_pb2 as pb
from millrace.safety.v1 import verdict_pb2 as verdict
from tests.safety.messages import prompt

if TYPE_CHECKING:
    from millrace.safety.v1.safety_service_pb2_grpc import SafetyServiceAsyncStub as Stub

SENTENCES: dict[str, Any] = yaml.safe_load(Path(__file__).with_name("mixtures.yaml").read_text())
CALM: list[list[str]] = SENTENCES["calm"]
HARM: dict[str, list[str]] = SENTENCES["harm"]
FLAGGING = """
profiles:
  answers:
    description: Reports harm in answers.
    strictness: 400
    output: {moderation: {action: flag, threshold: 0.5, deadline_ms: 10000}}
"""


def mixtures() -> list[str]:
    """Each sentence of harm in a text of five calm ones, in each of the six places by turns."""
    mixed: list[str] = []
    for sentences in HARM.values():
        for number, sentence in enumerate(sentences):
            calm, place = CALM[number % len(CALM)], len(mixed) % 6
            mixed.append(" ".join([*calm[:place], sentence, *calm[place:]]))
    return mixed


def is_harm(said: verdict.Assessment) -> bool:
    """Whether the learned heads flagged something."""
    return any(found.detector == "moderation" for found in said.findings)


async def test_a_sentence_of_harm_among_calm_ones_is_found(stub: "Stub") -> None:
    """At least 30 of 40 by `default`; before sentences were judged by themselves it was 3."""
    found = [is_harm((await stub.CheckInput(prompt(text))).assessment) for text in mixtures()]

    assert sum(found) >= 30


async def test_calm_texts_stay_calm(stub: "Stub") -> None:
    """None of the texts that harm was put into is flagged without it."""
    assert not [calm for calm in CALM if is_harm((await stub.CheckInput(prompt(" ".join(calm)))).assessment)]


@pytest.mark.parametrize("size", [7, 100_000])
async def test_answers_are_judged_so_too(serve: Any, size: int) -> None:
    """In an answer as well, however it arrives."""
    stub, found = await serve(FLAGGING), 0
    for text in mixtures():
        requests = [pb.StreamCheckOutputRequest(start=pb.StreamStart(profile="answers"))]
        pieces = [text[at : at + size] for at in range(0, len(text), size)]
        requests += [pb.StreamCheckOutputRequest(deltas=[pb.OutputDelta(text=piece)]) for piece in pieces]
        events = [event async for response in stub.StreamCheckOutput(iter(requests)) for event in response.events]
        found += any(event.HasField("judgement") for event in events)

    assert found >= 30
