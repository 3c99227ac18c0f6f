"""Talk of bodies and explicit sex, by sentences that no head was taught: what tells one from the other."""

from typing import TYPE_CHECKING

from tests.safety.test_idioms import flagged

if TYPE_CHECKING:
    from millrace.safety.v1.safety_service_pb2_grpc import SafetyServiceAsyncStub as Stub


async def test_sober_talk_of_bodies_and_sex_is_not_flagged(stub: "Stub") -> None:
    """Medicine, law, lessons, clothes, love: at most one of twenty-four."""
    assert len(await flagged(stub, "sober.txt")) <= 1


async def test_explicit_sentences_are_flagged(stub: "Stub") -> None:
    """At least six in ten of those that stand alone."""
    assert len(await flagged(stub, "explicit.txt")) >= 12
