"""One sentence of harm among calm ones: forty that no head was taught, each in another place of another text."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from millrace.safety.v1 import safety_service_pb2 as pb
from tests.safety.messages import prompt

if TYPE_CHECKING:
    from millrace.safety.v1.safety_service_pb2_grpc import SafetyServiceAsyncStub as Stub

SENTENCES: dict[str, Any] = yaml.safe_load(Path(__file__).with_name("mixtures.yaml").read_text())
CALM: list[list[str]] = SENTENCES["calm"]
HARM: dict[str, list[str]] = SENTENCES["harm"]
# As `default` has it, and nothing beside: a forbidden term would end the judgement before.
FLAGGING = """
profiles:
  harm:
    description: Reports harm.
    strictness: 400
    input: {moderation: {action: flag, threshold: 0.5, deadline_ms: 10000}}
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


async def is_harm(stub: "Stub", text: str) -> bool:
    """Whether something is flagged in a prompt."""
    return bool((await stub.CheckInput(prompt(text, profile="harm"))).assessment.findings)


async def test_a_sentence_of_harm_among_calm_ones_is_found(serve: Any) -> None:
    """At least 30 of 40; windows alone find 5."""
    stub = await serve(FLAGGING)

    assert sum([await is_harm(stub, text) for text in mixtures()]) >= 30


async def test_calm_texts_stay_calm(serve: Any) -> None:
    """None of the texts that harm was put into is flagged without it."""
    stub = await serve(FLAGGING)

    assert not [calm for calm in CALM if await is_harm(stub, " ".join(calm))]


@pytest.mark.parametrize("size", [7, 100_000])
async def test_answers_are_judged_so_too(serve: Any, size: int) -> None:
    """In an answer as well, however it arrives."""
    stub, found = await serve(FLAGGING), 0
    for text in mixtures():
        requests = [pb.StreamCheckOutputRequest(start=pb.StreamStart(profile="harm"))]
        pieces = [text[at : at + size] for at in range(0, len(text), size)]
        requests += [pb.StreamCheckOutputRequest(deltas=[pb.OutputDelta(text=piece)]) for piece in pieces]
        events = [event async for response in stub.StreamCheckOutput(iter(requests)) for event in response.events]
        found += any(event.HasField("judgement") for event in events)

    assert found >= 30


async def test_what_stands_last_in_a_passage_of_many_tokens_is_found(serve: Any) -> None:
    """Korean takes several tokens a letter: a passage of it is read in two, and what follows in it is judged too."""
    stub = await serve(FLAGGING)
    calm = (
        "The ferry to the island leaves twice a day in summer, and bicycles travel free of charge on weekdays only. "
        "Tickets are sold at the kiosk next to the harbour on the market square. "
    )
    calm = 3 * calm + ("각각 " * 80)[:135].strip() + ". "

    assert not await is_harm(stub, calm)
    assert await is_harm(stub, calm + "I will stab you and watch you bleed to death tonight. ")
