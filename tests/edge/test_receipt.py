"""The receipt beside an answer says what safety found, by places and never by words."""

from __future__ import annotations

import msgspec

from millrace.inference.v1 import event_pb2 as pb
from services.edge.openai.receipt import receipt


def told(*events: pb.SafetyEvent) -> dict[str, object]:
    """The receipt of an answer of which safety said this, as its reader has it."""
    return msgspec.to_builtins(receipt(pb.Receipt(request_id="r", model="m", target="t", safety=events), ""))


def test_findings_of_a_prompt_name_their_message():
    """A finding in the prompt has its place in its message, and what was done about it."""
    finding = pb.SafetyFinding(
        category="EMAIL_ADDRESS",
        score=0.5,
        detector="pii",
        start=3,
        end=9,
        message_index=2,
        action=pb.SAFETY_VERDICT_REDACT,
    )
    event = pb.SafetyEvent(
        direction=pb.SAFETY_DIRECTION_INPUT, verdict=pb.SAFETY_VERDICT_REDACT, profile="strict", findings=[finding]
    )

    assert told(event)["safety"] == [
        {
            "direction": "input",
            "verdict": "redact",
            "profile": "strict",
            "findings": [
                {
                    "category": "EMAIL_ADDRESS",
                    "action": "redact",
                    "score": 0.5,
                    "detector": "pii",
                    "start": 3,
                    "end": 9,
                    "message_index": 2,
                }
            ],
        }
    ]


def test_findings_of_an_answer_name_its_choice():
    """An event of the answer has its choice, also the first, and says where nobody looked; no message is named."""
    event = pb.SafetyEvent(
        direction=pb.SAFETY_DIRECTION_OUTPUT,
        verdict=pb.SAFETY_VERDICT_FLAG,
        profile="default",
        findings=[pb.SafetyFinding(category="hate", action=pb.SAFETY_VERDICT_FLAG)],
        choice_index=0,
        unscreened=True,
    )
    (shown,) = told(event)["safety"]

    assert (shown["direction"], shown["choice_index"], shown["unscreened"]) == ("output", 0, True)
    assert "message_index" not in shown["findings"][0]


def test_nothing_found_is_nothing_told():
    """Where safety has nothing to say the receipt has no word of it."""
    assert "safety" not in told()
