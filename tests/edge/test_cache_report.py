"""POST /v1/cache/report: reports of cached answers that did not fit."""

from __future__ import annotations

import pytest


async def test_an_entry_is_reported(edge):
    """Entry, text and user are passed on; the answer says whether the entry was there."""
    path, headers = "/v1/cache/report", {"x-request-id": "r-1"}
    known = await edge.post(path, {"entry_id": "e1", "text": "hi", "user": "ann"}, headers=headers)
    gone = await edge.post(path, {"entry_id": "e1"}, headers=headers)

    assert (known.status_code, known.json()) == (200, {"request_id": "r-1", "removed": True})
    assert (gone.status_code, gone.json()) == (200, {"request_id": "r-1", "removed": False})


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "entry_id"),
        ({"entry_id": ""}, "entry_id"),
        ({"entry_id": "e", "text": "x" * 32_769}, "text"),
        ({"entry_id": "e", "reason": "bad"}, "reason"),
    ],
)
async def test_a_bad_report_names_its_field(edge, body, param):
    """In OpenAI's envelope."""
    answer = await edge.post("/v1/cache/report", body)

    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)
