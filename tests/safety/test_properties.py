"""What holds of 2,000 texts, over the real stream: any cutting is the whole, and the way back leads back."""

import asyncio
import random
from typing import TYPE_CHECKING

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from millrace.safety.v1 import safety_service_pb2 as pb
from millrace.safety.v1 import verdict_pb2 as verdict
from services.inference.generation import ChoiceFinished, Delta, FinishReason
from services.inference.screening.restoring import WayBack
from services.safety.detectors.detector import is_awaited
from tests.safety.messages import answer, deltas, prompt, random_chunks, released, screen
from tests.safety.test_stream import PIECES, expected

if TYPE_CHECKING:
    from millrace.safety.v1.safety_service_pb2_grpc import SafetyServiceAsyncStub as Stub
    from services.safety.wiring import SafetyService

TEXT_COUNT = 2_000
AT_ONCE = 16
GAPS = ["", " ", "  ", ", ", ". ", "\n", "\n\n", ":"]


def texts(seed: int) -> list[str]:
    """Texts of personal data, forbidden terms, what looks like them, emoji, and marks that combine."""
    rng = random.Random(seed)
    return [
        "".join(rng.choice(PIECES) + rng.choice(GAPS) for _ in range(rng.randint(1, 12))) for _ in range(TEXT_COUNT)
    ]


async def test_two_thousand_texts_are_released_as_the_whole(stub: "Stub") -> None:
    """However a text is cut, down to one code point, what the stream lets go equals the judgement of the whole."""
    slots = asyncio.Semaphore(AT_ONCE)

    async def differs(number: int, text: str) -> bool:
        rng = random.Random(number)
        profile = rng.choice(["default", "strict", "strict"])
        async with slots:
            whole = await stub.CheckOutput(answer(text, profile=profile))
            # Several deltas share a message, as they do where a model is fast.
            pieces = deltas(random_chunks(text, rng))
            size = rng.choice([1, 4, 64])
            events = await screen(stub, [pieces[at : at + size] for at in range(0, len(pieces), size)], profile)
        same_verdict = events[-1].completed.assessment.verdict == whole.assessment.verdict
        return released(events) != expected(whole, text) or not same_verdict

    asked = texts(1)
    found = await asyncio.gather(*(differs(number, text) for number, text in enumerate(asked)))

    assert [text for text, is_wrong in zip(asked, found, strict=True) if is_wrong] == []


async def test_two_thousand_texts_come_back_as_they_were(stub: "Stub") -> None:
    """A prompt that is anonymised and answered with its own text, cut at random, is restored to the original."""
    slots = asyncio.Semaphore(AT_ONCE)

    async def comes_back(number: int, text: str) -> tuple[bool, int]:
        async with slots:
            said = await stub.CheckInput(prompt(text, profile="private"))
        if said.assessment.verdict == verdict.VERDICT_BLOCK:
            return not said.placeholders, 0
        sent = said.segments[0].replacement if said.segments[0].HasField("replacement") else text
        hidden = all(each.token in sent for each in said.placeholders)
        restore = WayBack((each.token, each.original) for each in said.placeholders).restorer()
        events = [Delta(text=piece) for piece in random_chunks(sent, random.Random(number))]
        back = [event for each in events for event in restore([each])]
        back += restore([ChoiceFinished(0, FinishReason.STOP)])
        restored = "".join(event.text for event in back if isinstance(event, Delta))
        return hidden and restored == text, len(said.placeholders)

    asked = texts(2)
    found = await asyncio.gather(*(comes_back(number, text) for number, text in enumerate(asked)))

    assert [text for text, (is_right, _) in zip(asked, found, strict=True) if not is_right] == []
    assert sum(count for _, count in found) > TEXT_COUNT / 2


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(raw=st.binary(max_size=400))
async def test_any_bytes_are_read_as_text(stub: "Stub", raw: bytes) -> None:
    """Whatever bytes a client sends, read as UTF-8 with what is broken replaced, get a verdict and can be restored."""
    text = raw.decode("utf-8", "replace")
    said = (await stub.CheckInput(prompt(text, profile="strict"))).assessment
    assert {run.state for run in said.runs} <= {verdict.EXECUTION_STATE_OK, verdict.EXECUTION_STATE_SKIPPED}

    there = await stub.Redact(pb.RedactRequest(texts=[text]))
    back = await stub.Restore(pb.RestoreRequest(texts=there.texts, placeholders=there.placeholders))
    assert list(back.texts) == [text]


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    text=st.text(
        st.one_of(
            st.characters(),
            st.characters(categories=["Cs"]),  # lone surrogates, which Python strings may hold
            st.sampled_from("\u200f\u202e\u2066\u0301\ufeff\0"),
            st.sampled_from("@.:/-+ 0123456789abcdefABCDEF<>_"),
        ),
        max_size=200,
    )
)
def test_no_text_crashes_a_detector(embedded: "SafetyService", text: str) -> None:
    """Lone surrogates, marks of direction and the rest: every detector reads to the end, and spans lie in the text."""
    for name in ("pii", "forbidden_terms", "injection_phrases"):
        detector = embedded.safety.detectors[name]
        cursor = detector.cursor(detector.categories)
        assert not is_awaited(cursor)
        matches = cursor.scan(text, 0, True)

        assert cursor.safe == len(text)
        assert all(0 <= match.start < match.end <= len(text) for match in matches)
