"""OpenAI's moderation endpoint as a backend: its wire, and what becomes of its failures."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import openai
import pytest
import pytest_asyncio

from kit.config import ConfigError, load
from kit.errors import Unavailable
from millrace.safety.v1 import verdict_pb2 as verdict
from services.safety import wiring
from services.safety.backends.assembly import BackendPool
from services.safety.backends.document import OpenAIModerationDocument
from services.safety.backends.scored import Scored
from services.safety.config import SafetySettings
from tests.fakes.http_proxy import HttpProxy
from tests.fakes.moderation_upstream import KEY, ModerationUpstream
from tests.safety.conftest import Serve
from tests.safety.messages import prompt

PLACE = "policies.yaml:3: detectors.endpoint"


@pytest_asyncio.fixture(loop_scope="session")
async def upstream() -> AsyncIterator[ModerationUpstream]:
    async with ModerationUpstream({"stab": "violence"}).served() as served:
        yield served


@pytest_asyncio.fixture(loop_scope="session")
async def detector(upstream: ModerationUpstream) -> AsyncIterator[Scored]:
    pool = BackendPool({"MODERATION_KEY": KEY})
    spec = OpenAIModerationDocument(backend="openai_moderation", base_url=upstream.url, api_key_env="MODERATION_KEY")
    made = pool.detector("endpoint", spec, PLACE)
    assert isinstance(made, Scored)
    await made.warm()
    yield made
    await pool.close()


async def test_the_fake_speaks_as_openai_does(upstream: ModerationUpstream) -> None:
    """OpenAI's own client reads what the fake answers."""
    client = openai.AsyncOpenAI(base_url=upstream.url, api_key=KEY)

    answer = await client.moderations.create(model="omni-moderation-latest", input=["I will stab you", "hello"])

    assert [result.flagged for result in answer.results] == [True, False]
    assert answer.results[0].category_scores.violence == 0.97
    await client.close()


async def test_a_text_seen_before_is_not_asked_again(detector: Scored, upstream: ModerationUpstream) -> None:
    """What is new goes in one request, what was judged costs none."""
    first = await detector.scores(["calm", "I will stab you"])
    again = await detector.scores(["I will stab you", "calm", "new"])

    assert upstream.asked == [["calm", "I will stab you"], ["new"]]
    assert again[0] == first[1]
    assert again[0]["violence"] == 0.97


@pytest.mark.parametrize(("direct", "asked"), [("", ["CONNECT api.company.invalid:443 HTTP/1.1"]), (".invalid", [])])
async def test_it_is_reached_through_the_proxy(direct: str, asked: list[str]) -> None:
    """As HTTPS_PROXY and NO_PROXY say: no resolver knows the name. A proxy that refuses is a failure like others."""
    proxy = HttpProxy(refusal=403)
    await proxy.start()
    settings = load(SafetySettings, {"HTTPS_PROXY": proxy.url, "NO_PROXY": direct})
    pool = BackendPool({"MODERATION_KEY": KEY}, settings.way_out)
    spec = OpenAIModerationDocument(
        backend="openai_moderation", base_url="https://api.company.invalid/v1", api_key_env="MODERATION_KEY"
    )
    made = pool.detector("endpoint", spec, PLACE)
    assert isinstance(made, Scored)

    with pytest.raises(Unavailable, match="the moderation endpoint failed"):
        await made.scores(["hello"])

    assert proxy.asked == asked
    await pool.close()
    await proxy.stop()


async def test_long_texts_go_in_several_requests(detector: Scored, upstream: ModerationUpstream) -> None:
    """A request holds a bounded number of texts; the answers keep their order."""
    texts = [f"text {number}" for number in range(80)]
    texts[77] = "stab"

    scores = await detector.scores(texts)

    assert sorted(map(len, upstream.asked)) == [16, 32, 32]
    assert [at for at, each in enumerate(scores) if each["violence"] > 0.5] == [77]


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (500, "{}"), (401, '{"error": {"message": "I will stab you"}}'), (200, "not json"), (200, "[]"),
        (200, '{"results": []}'), (200, '{"results": [{"category_scores": {"violence": 7}}]}'),
        (200, '{"results": [{"category_scores": {"violence": "high"}}]}'), (200, '{"results": [{}]}'),
    ],
)  # fmt: skip
async def test_a_bad_answer_is_a_failure(
    detector: Scored, upstream: ModerationUpstream, status: int, body: str
) -> None:
    """Nothing that is not a moderation is taken for one, and no failure quotes the text or is remembered."""
    upstream.status, upstream.body = status, body

    with pytest.raises(Unavailable) as caught:
        await detector.scores(["I will stab you"])
    assert "stab" not in caught.value.message

    upstream.status, upstream.body = 200, None
    assert (await detector.scores(["I will stab you"]))[0]["violence"] == 0.97


POLICIES = """
detectors:
  endpoint: {{backend: openai_moderation, base_url: "{url}", api_key_file: "{key}"}}
profiles:
  closed: {{description: d, strictness: 60, input: {{endpoint: {{action: block, threshold: 0.5, deadline_ms: {ms}}}}}}}
  open:
    {{description: d, strictness: 60, input: {{endpoint: {{action: block, on_failure: open, deadline_ms: {ms}}}}}}}
"""


def policies(upstream: ModerationUpstream, tmp_path: Path, deadline_ms: int = 5000) -> str:
    key = tmp_path / "key"
    key.write_text(f"{KEY}\n")
    return POLICIES.format(url=upstream.url, key=key, ms=deadline_ms)


async def test_a_profile_names_it(serve: Serve, upstream: ModerationUpstream, tmp_path: Path) -> None:
    """A rule of the policy file uses the endpoint by the name that the file gives it."""
    stub = await serve(policies(upstream, tmp_path))

    harmful = (await stub.CheckInput(prompt("I will stab you", profile="closed"))).assessment
    calm = (await stub.CheckInput(prompt("good morning", profile="closed"))).assessment

    assert (harmful.verdict, harmful.findings[0].detector) == (verdict.VERDICT_BLOCK, "endpoint")
    assert calm.verdict == verdict.VERDICT_ALLOW
    assert {score.category: score.score for score in calm.scores}["violence"] == pytest.approx(0.01)


async def test_its_failure_is_the_policys_to_judge(serve: Serve, upstream: ModerationUpstream, tmp_path: Path) -> None:
    """An endpoint that errs is FAILED, one that is late TIMED_OUT; closed blocks, open lets pass and says so."""
    stub = await serve(policies(upstream, tmp_path, deadline_ms=200))
    upstream.status = 503

    closed = (await stub.CheckInput(prompt("hello", profile="closed"))).assessment
    opened = (await stub.CheckInput(prompt("hello", profile="open"))).assessment
    upstream.status = 200
    upstream.gate.clear()
    late = (await stub.CheckInput(prompt("hello", profile="open"))).assessment

    def run(said: verdict.Assessment) -> verdict.DetectorRun:
        return next(each for each in said.runs if each.detector == "endpoint")

    assert closed.verdict == verdict.VERDICT_BLOCK
    assert (opened.verdict, run(opened).failed_open) == (verdict.VERDICT_ALLOW, True)
    assert run(closed).state == run(opened).state == verdict.EXECUTION_STATE_FAILED
    assert (run(late).state, run(late).failed_open) == (verdict.EXECUTION_STATE_TIMED_OUT, True)


async def test_a_caller_who_leaves_frees_the_connection(detector: Scored, upstream: ModerationUpstream) -> None:
    """A cancelled check is a cancelled request; the next one is answered."""
    upstream.gate.clear()
    check = asyncio.ensure_future(detector.scores(["hello"]))
    await upstream.arrived.wait()
    check.cancel()
    await asyncio.wait([check])
    upstream.gate.set()

    assert check.cancelled()
    assert (await detector.scores(["stab"]))[0]["violence"] == 0.97


@pytest.mark.parametrize(
    ("key", "complaint"),
    [
        ("api_key_env: NOBODY_SET_IT", ":3: detectors.endpoint.api_key_env: the environment variable NOBODY_SET_IT"),
        ("api_key_file: /nowhere/key", ":3: detectors.endpoint.api_key_file: cannot be read"),
        ("model: x", "give api_key_env or api_key_file"),
        ("api_key_env: A, base_url: 'ftp://x'", "base_url"),
    ],
)
def test_a_key_that_is_not_there_stops_the_start(tmp_path: Path, key: str, complaint: str) -> None:
    """The complaint names line and field."""
    path = tmp_path / "policies.yaml"
    path.write_text(f"\ndetectors:\n  endpoint: {{backend: openai_moderation, {key}}}\n")

    with pytest.raises(ConfigError) as caught:
        wiring.build(SafetySettings(port=0, policies_file=path), environ={})

    assert complaint in caught.value.message
