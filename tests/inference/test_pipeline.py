"""The whole path of a generation: the real cache and the real safety service around an upstream on a real socket."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from kit import identity
from kit.errors import Code
from millrace.inference.v1 import event_pb2 as ev
from millrace.inference.v1 import generation_pb2 as pb
from millrace.inference.v1 import inference_service_pb2 as service_pb
from services.cache import wiring as cache_wiring
from services.inference.screening.safety_port import REFUSAL
from tests.fakes.openai_upstream import OpenAIUpstream, Reply
from tests.inference.clocks import ManualClock
from tests.inference.suite import Serve, Suite, failure, kinds, only_tasks, spec, tasks_now, text_of

TERM = "kill yourself you loser"
CARD = "4111 1111 1111 1111"
NOBODY = "127.0.0.1:1"
MODELS = """
  - name: open
    targets: [{engine: openai, upstream: fake, model: gpt}]
    safety: {profile: default, on_unavailable: open}
  - name: per-user
    targets: [{engine: openai, upstream: fake, model: gpt}]
    cache: {scope: user}
  - name: unscreened
    targets: [{engine: openai, upstream: fake, model: gpt}]
    safety: {profile: "off"}
  - name: degradable
    targets: [{engine: openai, upstream: fake, model: gpt}]
    cache: {ttl_s: 60}
    degrade: {stale: true}
    retries: {retries_max: 0}
    deadlines: {ttft_s: 0.5, inter_token_s: 0.5}
"""


@pytest.fixture
async def suite(serve: Serve) -> Suite:
    """Inference with cache and safety."""
    return await serve(MODELS, cache=True, safety=True)


def cached(**fields: Any) -> dict[str, Any]:
    return {"cache": pb.CachePolicy(**fields)}


def sampled(**fields: Any) -> dict[str, Any]:
    return {"sampling": pb.SamplingParams(**fields)}


def safe(profile: str) -> dict[str, Any]:
    return {"safety": pb.SafetyPolicy(profile=profile)}


def said(events: list[service_pb.StreamGenerateResponse]) -> list[ev.SafetyEvent]:
    return [event.safety for event in events if event.WhichOneof("event") == "safety"]


# The cache.


async def test_asking_twice_hits(suite: Suite, upstream: OpenAIUpstream) -> None:
    """The second answer is the first: same text, end and usage, marked as cached, free, and nobody was asked."""
    first = await suite.stream(**sampled(n=2))
    second = await suite.stream(**sampled(n=2))
    receipt = second[-1].completed.receipt

    assert len(upstream.asked) == 1
    assert first[0].started.cache.outcome == ev.CACHE_OUTCOME_MISS
    assert second[0].started.cache.outcome == ev.CACHE_OUTCOME_EXACT
    assert second[0].started.cache.entry_id
    assert [text_of(second, index) for index in (0, 1)] == [text_of(first, index) for index in (0, 1)]
    assert second[-1].completed.usage == first[-1].completed.usage
    assert (receipt.engine, receipt.cost_micro_usd, list(receipt.attempts)) == ("cache", 0, [])
    assert (receipt.target, receipt.target_model) == ("fake:gpt", "gpt-0613")
    assert [event.sequence for event in second] == list(range(1, len(second) + 1))
    assert kinds(second)[-1] == "completed"


async def test_only_what_is_kept(suite: Suite, upstream: OpenAIUpstream) -> None:
    """A caller who wants nothing else is told that there is nothing, and nobody is asked; what there is it gets."""
    only = cached(mode=pb.CACHE_MODE_ONLY_IF_CACHED)
    error = await failure(suite.generate(**only))
    assert (error.code, error.reason, upstream.asked) == (Code.NOT_FOUND, "NOT_CACHED", [])
    assert (await failure(suite.generate(**only, **sampled(temperature=1)))).reason == "NOT_CACHED"

    await suite.generate()

    assert (await suite.generate(**only)).receipt.cache.outcome == ev.CACHE_OUTCOME_EXACT
    assert len(upstream.asked) == 1


async def test_streamed_and_whole_share_an_entry(suite: Suite, upstream: OpenAIUpstream) -> None:
    """How the answer travels is no part of the question."""
    await suite.stream()
    whole = await suite.generate()

    assert len(upstream.asked) == 1
    assert whole.choices[0].text == "Hello, world!"
    assert whole.receipt.cache.outcome == ev.CACHE_OUTCOME_EXACT


async def test_tool_calls_and_logprobs_are_replayed(suite: Suite, upstream: OpenAIUpstream) -> None:
    """All that an answer holds is kept."""
    upstream.replies["gpt"] = Reply(calls=(("c1", "look", ('{"a":', "1}")),), finish="tool_calls")
    asked = {"tools": [pb.Tool(name="look")]}
    first, second = await suite.generate(**asked), await suite.generate(**asked)
    upstream.replies["gpt"] = Reply()
    likely = [await suite.generate(**sampled(logprobs=True)) for _ in range(2)]

    assert second.receipt.engine == likely[1].receipt.engine == "cache"
    assert list(second.choices) == list(first.choices)
    assert second.choices[0].tool_calls[0].arguments_json == '{"a":1}'
    assert [one.token for one in likely[1].choices[0].logprobs] == ["Hello", ",", " world", "!"]


@pytest.mark.parametrize(
    "other",
    [
        {"text": "hi "},
        {"model": "any-1"},
        sampled(max_tokens=5),
        sampled(temperature=0.5, seed=1),
        safe("strict"),
        {"tools": [pb.Tool(name="look")]},
        {"output_format": pb.OutputFormat(json_object=pb.JsonObjectFormat())},
    ],
    ids=["text", "model", "max_tokens", "temperature", "profile", "tools", "format"],
)
async def test_whatever_shapes_the_answer_is_in_the_key(
    suite: Suite, upstream: OpenAIUpstream, other: dict[str, Any]
) -> None:
    """Two questions that differ anywhere have two answers."""
    await suite.generate()
    answer = await suite.generate(**other)

    assert answer.receipt.cache.outcome == ev.CACHE_OUTCOME_MISS
    assert len(upstream.asked) == 2


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        (sampled(temperature=0.7), "variety"),
        (cached(mode=pb.CACHE_MODE_OFF), "no caching"),
        ({"model": "per-user"}, "per user"),
    ],
    ids=["variety", "off", "nobody"],
)
async def test_bypass(suite: Suite, upstream: OpenAIUpstream, fields: dict[str, Any], reason: str) -> None:
    """Where the cache takes no part, it says why, and nothing is kept."""
    for _ in range(2):
        answer = await suite.generate(**fields)
        assert answer.receipt.cache.outcome == ev.CACHE_OUTCOME_BYPASS
        assert reason in answer.receipt.cache.reason

    assert len(upstream.asked) == 2


async def test_read_only_and_refresh(suite: Suite, upstream: OpenAIUpstream) -> None:
    """Read-only keeps nothing; refresh asks anew and keeps what comes."""
    await suite.generate(**cached(mode=pb.CACHE_MODE_READ_ONLY))
    assert (await suite.generate()).receipt.cache.outcome == ev.CACHE_OUTCOME_MISS
    upstream.replies["gpt"] = Reply(words=("new",))
    fresh = await suite.generate(**cached(mode=pb.CACHE_MODE_REFRESH))
    after = await suite.generate(**cached(mode=pb.CACHE_MODE_READ_ONLY))

    assert (fresh.receipt.cache.outcome, fresh.choices[0].text) == (ev.CACHE_OUTCOME_BYPASS, "new")
    assert (after.receipt.cache.outcome, after.choices[0].text) == (ev.CACHE_OUTCOME_EXACT, "new")


async def test_users_and_tenants_do_not_share(suite: Suite, upstream: OpenAIUpstream) -> None:
    """An entry of one user, or of one tenant, is never another's."""
    per_user = cached(scope=pb.CACHE_SCOPE_USER)
    for user in ("ann", "bob", "ann"):
        await suite.generate(end_user_id=user, **per_user)
    assert len(upstream.asked) == 2
    for tenant in ("acme", "globex", "acme"):
        asked = service_pb.GenerateRequest(spec=spec(text="shared"))
        with _tenant(tenant):
            await suite.stub.Generate(asked)
    assert len(upstream.asked) == 4


def _tenant(name: str) -> Any:
    return identity.use(identity.CallContext("r", name))


@pytest.mark.parametrize(
    "reply",
    [Reply(cut_after=2), Reply(finish=None), Reply(finish="content_filter"), Reply(words=("You should ", TERM))],
    ids=["cut", "no finish", "filtered upstream", "blocked here"],
)
@pytest.mark.parametrize("streamed", [True, False])
async def test_what_is_not_whole_is_not_kept(
    suite: Suite, upstream: OpenAIUpstream, reply: Reply, streamed: bool
) -> None:
    """Cut answers, by a fault or by a filter, are asked for again."""
    upstream.replies["gpt"] = reply
    await asyncio.gather(suite.stream() if streamed else suite.generate(), return_exceptions=True)
    upstream.replies["gpt"] = Reply()

    assert (await suite.generate()).receipt.cache.outcome == ev.CACHE_OUTCOME_MISS


async def test_what_its_caller_left_is_not_kept(suite: Suite, upstream: OpenAIUpstream) -> None:
    """Half a stream is no answer for anybody else."""
    upstream.replies["gpt"] = Reply(stall_after=2)
    call = suite.start()
    asked = await upstream.next()
    await asked.began.wait()
    call.cancel()
    await asked.hung_up.wait()
    upstream.replies["gpt"] = Reply()

    assert (await suite.generate()).receipt.cache.outcome == ev.CACHE_OUTCOME_MISS


async def test_a_changed_policy_is_a_miss(suite: Suite, monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer that was screened under another policy is not shown under this one."""
    first = await suite.generate()
    assert first.receipt.cache.outcome == ev.CACHE_OUTCOME_MISS
    safety = suite.inference.pipeline._safety
    check_input = safety.check_input

    async def newer(profile: str, segments: Any) -> Any:
        return msgspec.structs.replace(await check_input(profile, segments), policy_version="newer")

    monkeypatch.setattr(safety, "check_input", newer)
    answer = await suite.generate()

    assert answer.receipt.cache.outcome == ev.CACHE_OUTCOME_MISS
    assert "policy" in answer.receipt.cache.reason


# The degraded answer.


@pytest.fixture
async def expired(monkeypatch: pytest.MonkeyPatch, serve: Serve) -> Suite:
    """Inference that has answered `degradable` once, so long ago that the answer has expired."""
    clock = ManualClock(time.time() * 1000)
    monkeypatch.setattr(cache_wiring, "now_ms", lambda: int(clock()))
    suite = await serve(MODELS, cache=True, safety=True, cache_lookup_timeout_ms=5_000)
    assert (await suite.generate("degradable")).receipt.cache.outcome == ev.CACHE_OUTCOME_MISS
    await suite.inference.cache.close()  # waits until it is kept
    clock.turn(70_000)
    return suite


@pytest.mark.parametrize(
    "reply", [Reply(status=503), Reply(status=429), Reply(stall_after=-1), Reply(cut_after=0)], ids=str
)
async def test_where_every_target_fails_an_expired_answer_will_do(
    expired: Suite, upstream: OpenAIUpstream, reply: Reply
) -> None:
    """Marked as stale in the event and the receipt, with its age; whole and streamed; free, with the failed tries."""
    upstream.replies["gpt"] = reply
    events, whole = await expired.stream("degradable"), await expired.generate("degradable")
    receipt = events[-1].completed.receipt

    assert events[0].started.cache.outcome == ev.CACHE_OUTCOME_MISS
    assert [event.cache.outcome for event in events if event.WhichOneof("event") == "cache"] == [ev.CACHE_OUTCOME_STALE]
    assert text_of(events) == whole.choices[0].text == "Hello, world!"
    for told in (receipt, whole.receipt):
        assert (told.engine, told.cost_micro_usd, told.cache.outcome) == ("cache", 0, ev.CACHE_OUTCOME_STALE)
        assert told.cache.age.seconds >= 70
        assert told.attempts[0].outcome == ev.ATTEMPT_OUTCOME_FAILED


async def test_half_an_answer_is_not_followed_by_an_old_one(expired: Suite, upstream: OpenAIUpstream) -> None:
    """After the first delta the stream fails, whatever the cache has; a caller who saw nothing yet gets the old one."""
    upstream.replies["gpt"] = Reply(cut_after=300, words=("far ",) * 400)
    whole = await expired.generate("degradable")
    call = expired.start("degradable", safety=pb.SafetyPolicy())
    error = await failure(_read(call))

    assert whole.receipt.cache.outcome == ev.CACHE_OUTCOME_STALE
    assert error.code is Code.UNAVAILABLE


@pytest.mark.parametrize("reply", [Reply(status=400, error={"message": "no"}), Reply(status=404)], ids=str)
async def test_the_callers_mistake_is_not_hidden_by_an_old_answer(
    expired: Suite, upstream: OpenAIUpstream, reply: Reply
) -> None:
    """What would fail anywhere fails."""
    upstream.replies["gpt"] = reply

    assert (await failure(expired.generate("degradable"))).code in (Code.INVALID_ARGUMENT, Code.NOT_FOUND)


async def test_a_changed_policy_has_no_old_answers(
    expired: Suite, upstream: OpenAIUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is better than what another policy let through."""
    upstream.replies["gpt"] = Reply(status=503)
    safety = expired.inference.pipeline._safety
    check_input = safety.check_input

    async def newer(profile: str, segments: Any) -> Any:
        return msgspec.structs.replace(await check_input(profile, segments), policy_version="newer")

    monkeypatch.setattr(safety, "check_input", newer)

    assert (await failure(expired.generate("degradable"))).code is Code.UNAVAILABLE


async def _read(call: Any) -> list[service_pb.StreamGenerateResponse]:
    return [event async for event in call]


@pytest.fixture
async def mute() -> AsyncIterator[str]:
    """The address of a server that takes connections and never says a word."""
    async with await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", 0) as server:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"


@pytest.mark.parametrize("is_mute", [False, True], ids=["refused", "mute"])
async def test_a_cache_that_is_down_is_a_miss(serve: Serve, upstream: OpenAIUpstream, mute: str, is_mute: bool) -> None:
    """It says so, and costs no more than the lookup's own bound, also while an answer waits to be kept."""
    suite = await serve(cache=mute if is_mute else NOBODY, dependency_wait_s=0, cache_lookup_timeout_ms=50)
    start = time.monotonic()
    for _ in range(3):
        answer = await suite.generate()
        assert answer.receipt.cache.outcome == ev.CACHE_OUTCOME_UNAVAILABLE
        assert answer.choices[0].text == "Hello, world!"

    assert time.monotonic() - start < 1.8  # three lookups; keeping one answer takes two seconds to give up
    assert len(upstream.asked) == 3


# Safety.


@pytest.mark.parametrize("streamed", [True, False])
async def test_a_blocked_prompt(suite: Suite, upstream: OpenAIUpstream, streamed: bool) -> None:
    """Refused with its categories; no model sees it, and it counts as blocked, not as failed."""
    error = await failure(suite.stream(text=TERM) if streamed else suite.generate(text=TERM))
    totals = suite.inference.pipeline._settlement.totals

    assert (error.code, error.reason) == (Code.FAILED_PRECONDITION, "CONTENT_BLOCKED")
    assert error.metadata["categories"] == "harassment"
    assert "loser" not in error.message
    assert upstream.asked == []
    assert (totals.blocked_count, totals.failed_request_count) == (1, 0)


async def test_a_redacted_prompt(suite: Suite, upstream: OpenAIUpstream) -> None:
    """Strict replaces personal data before a model sees it, and tells what was found, never the data."""
    events = await suite.stream(text="mail ann@example.com please", **safe("strict"))

    assert upstream.asked[0].body["messages"][0]["content"] == "mail <EMAIL_ADDRESS> please"
    assert kinds(events)[:2] == ["started", "safety"]
    finding = said(events)[0].findings[0]
    assert (said(events)[0].direction, said(events)[0].verdict) == (ev.SAFETY_DIRECTION_INPUT, ev.SAFETY_VERDICT_REDACT)
    assert (finding.category, finding.start, finding.end) == ("EMAIL_ADDRESS", 5, 20)


async def test_a_flagged_prompt_is_told_once_more_when_cached(suite: Suite) -> None:
    """A hit tells what this prompt's screening found, and only that."""
    first, second = [await suite.stream(text="mail ann@example.com") for _ in range(2)]

    assert second[-1].completed.receipt.engine == "cache"
    assert len(said(first)) == len(said(second)) == 1
    assert said(second)[0].verdict == ev.SAFETY_VERDICT_FLAG
    assert len(second[-1].completed.receipt.safety) == 1


@pytest.mark.parametrize("streamed", [True, False])
async def test_a_blocked_answer(suite: Suite, upstream: OpenAIUpstream, streamed: bool) -> None:
    """It ends with a refusal, the filter's reason and usage; nothing from the block on leaves; not an error."""
    upstream.replies["gpt"] = Reply(words=("Well, ", "kill ", "yourself you ", "loser", ". More ", "text"))
    if not streamed:
        choice = (await suite.generate()).choices[0]
        assert (choice.text, choice.refusal) == ("", REFUSAL)
        assert choice.finish_reason == ev.FINISH_REASON_CONTENT_FILTER
        return
    events = await suite.stream()
    assert "kill" not in text_of(events)
    assert "More" not in text_of(events)
    assert "".join(event.delta.refusal for event in events) == REFUSAL
    assert events[-2].choice_finished.finish_reason == ev.FINISH_REASON_CONTENT_FILTER
    assert kinds(events)[-1] == "completed"
    assert events[-1].completed.HasField("usage")
    assert events[-1].completed.receipt.target == "fake:gpt"
    assert any(one.verdict == ev.SAFETY_VERDICT_BLOCK for one in said(events))


async def test_a_blocked_stream_stops_the_upstream(suite: Suite, upstream: OpenAIUpstream) -> None:
    """What nobody will see is not generated any further, and no task is left."""
    await suite.generate(text="first")
    before = tasks_now()
    upstream.replies["gpt"] = Reply(words=("Well, ", TERM, ". ", *["more "] * 50), stall_after=40)
    events = await suite.stream()
    await (await upstream.next(2)).hung_up.wait()
    await only_tasks(before)

    assert events[-2].choice_finished.finish_reason == ev.FINISH_REASON_CONTENT_FILTER


@pytest.mark.parametrize("streamed", [True, False])
async def test_a_redacted_answer(suite: Suite, upstream: OpenAIUpstream, streamed: bool) -> None:
    """Account data is replaced although it came in pieces; neither text nor logprobs tell it."""
    upstream.replies["gpt"] = Reply(words=("Pay with ", "4111 1111", " 1111 1111", ". Thanks", "!"))
    if streamed:
        events = await suite.stream(**sampled(logprobs=True))
        text, tokens = text_of(events), [one.token for event in events for one in event.delta.logprobs]
    else:
        choice = (await suite.generate(**sampled(logprobs=True))).choices[0]
        text, tokens = choice.text, [one.token for one in choice.logprobs]

    assert text == "Pay with <CREDIT_CARD>. Thanks!"
    assert not any("1111" in token for token in tokens)


async def test_tool_arguments_are_held_until_they_are_whole(suite: Suite, upstream: OpenAIUpstream) -> None:
    """Half of a call can already do harm: nothing of it leaves before the upstream is done with it."""
    upstream.replies["gpt"] = Reply(
        calls=(("c1", "pay", ('{"card": "', "4111 1111 ", "1111 1111", '"}')),), finish="tool_calls", gate_after=4
    )
    call = suite.start(tools=[pb.Tool(name="pay")])
    asked = await upstream.next()
    await asked.began.wait()
    asked.gate.set()
    events = [event async for event in call]
    fragments = [one for event in events for one in event.delta.tool_calls]

    assert [(one.id, one.name) for one in fragments] == [("c1", "pay")]
    assert fragments[0].arguments_json == '{"card": "<CREDIT_CARD>"}'
    assert events[-2].choice_finished.finish_reason == ev.FINISH_REASON_TOOL_CALLS


@pytest.mark.parametrize("streamed", [True, False])
@pytest.mark.parametrize("model", ["gpt", "open", "unscreened"])
async def test_safety_that_is_down(serve: Serve, upstream: OpenAIUpstream, model: str, streamed: bool) -> None:
    """Closed refuses, open answers and says that nothing was screened, off does not ask; unscreened is not kept."""
    suite = await serve(MODELS, cache=True, safety=NOBODY, dependency_wait_s=0)
    if model == "gpt":
        error = await failure(suite.stream(model) if streamed else suite.generate(model))
        assert (error.code, error.reason) == (Code.UNAVAILABLE, "SAFETY_UNAVAILABLE")
        assert upstream.asked == []
        return
    for _ in range(2):
        receipt = (
            (await suite.stream(model))[-1].completed.receipt if streamed else (await suite.generate(model)).receipt
        )
        assert [one.unscreened for one in receipt.safety] == ([] if model == "unscreened" else [True, True])
    assert receipt.cache.outcome == (ev.CACHE_OUTCOME_EXACT if model == "unscreened" else ev.CACHE_OUTCOME_MISS)


@pytest.mark.parametrize("model", ["gpt", "open"])
async def test_safety_that_dies_midway(suite: Suite, upstream: OpenAIUpstream, model: str) -> None:
    """Closed ends the stream with an error; open lets out exactly the original text, once, and says so."""
    words = tuple(f"word{number} " for number in range(30))
    upstream.replies["gpt"] = Reply(words=words, gate_after=15)
    call = suite.start(model)
    asked = await upstream.next()
    await asked.began.wait()
    events: list[service_pb.StreamGenerateResponse] = []
    stream = aiter(call)
    while not text_of(events):
        events.append(await anext(stream))
    await suite.servers["safety"].stop(0)
    asked.gate.set()

    async def rest() -> None:
        async for event in stream:
            events.append(event)

    if model == "gpt":
        error = await failure(rest())
        assert (error.code, error.reason) == (Code.UNAVAILABLE, "SAFETY_UNAVAILABLE")
        assert "completed" not in kinds(events)
        return
    await rest()
    assert text_of(events) == "".join(words)
    assert kinds(events).count("choice_finished") == kinds(events).count("completed") == 1
    assert [one.unscreened for one in said(events)] == [True]
    assert [event.sequence for event in events] == list(range(1, len(events) + 1))


async def test_an_unknown_profile(suite: Suite) -> None:
    """The caller's mistake, named, even where the rule is open."""
    for model in ("gpt", "open"):
        for streamed in (True, False):
            asked = suite.stream(model, **safe("nope")) if streamed else suite.generate(model, **safe("nope"))
            error = await failure(asked)
            assert error.code is Code.INVALID_ARGUMENT
            assert error.field_violations[0].field == "spec.safety.profile"


async def test_moderation(suite: Suite) -> None:
    """Texts are judged apart, in OpenAI's categories."""
    asked = service_pb.ModerateRequest(texts=["a fine day", TERM])
    answer = await suite.stub.Moderate(asked)
    fine, foul = answer.results

    assert [one.flagged for one in answer.results] == [False, True]
    assert [one.name for one in foul.categories if one.flagged] == ["harassment"]
    assert len(fine.categories) == 13
    assert answer.model.startswith("millrace-moderation-")
