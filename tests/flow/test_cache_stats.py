"""GET /stats, after answers that were made, kept, found, shared and reported."""

from __future__ import annotations

import httpx
import pytest

from tests.flow.conftest import Suite
from tests.flow.upstream import WORDS

pytestmark = pytest.mark.asyncio(loop_scope="module")

DEADLINE_S = 20.0


@pytest.fixture(scope="module")
def models() -> str:
    """A model that costs something."""
    return """
version: 1
upstreams:
  fake: {{base_url: "{url}"}}
models:
  - name: fake
    targets: [{{engine: openai, upstream: fake, model: fake, price: {{prompt: 1, completion: 2}}}}]
"""


async def test_what_the_cache_holds_and_has_saved(suite: Suite) -> None:
    """Hits by kind, misses by reason, sizes, tokens and money; a reported entry is gone and counted."""
    body = {"model": "fake", "messages": [{"role": "user", "content": "count"}]}
    async with httpx.AsyncClient(base_url=suite.url, timeout=DEADLINE_S) as http:
        answers = [(await http.post("/v1/chat/completions", json=body)).json() for _ in range(3)]
        before = (await http.get("/stats")).json()["cache"]
        entry = {"entry_id": answers[-1]["millrace"]["cache"]["entry_id"]}
        reported = (await http.post("/v1/cache/report", json=entry)).json()["removed"]
        after = (await http.get("/stats")).json()["cache"]

    saved = before["saved"]
    assert (before["store"], before["available"], before["entries"], before["shared"]) == ("embedded", True, 1, 0)
    assert (before["hits"], before["misses"], before["false_hits"]) == ({"exact": 2}, {"not_found": 1}, 0)
    assert before["size_bytes"] > len("".join(WORDS))
    assert saved["tokens"] == {"prompt": 14, "completion": 2 * len(WORDS), "total": 14 + 2 * len(WORDS)}
    assert saved["cost_usd"] == pytest.approx(2 * (7 * 1 + len(WORDS) * 2) / 1e6)
    assert saved["generation_s"] >= 0
    assert "semantic_error" not in before, "answers to similar questions are off"
    assert (reported, after["entries"], after["false_hits"]) == (True, 0, 1)
