"""Semantic lookups as a whole, on a real store and a real index: what is found, what never is, and what is learned.

The model is a stand-in whose vectors are sums of one random vector per word: texts are as near as they share words.
"""

import asyncio
import hashlib
import itertools
import random
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest

from kit.errors import Unavailable
from services.cache.cache import Cache, Lifetime
from services.cache.entry import Entry, EntryDraft
from services.cache.flight import FlightTable
from services.cache.key import EntryKey, KeySpace, Namespace
from services.cache.query import (
    Completed,
    Found,
    Hit,
    HitKind,
    Miss,
    MissReason,
    Query,
    SemanticQuery,
    Shadow,
    ShadowVerdict,
)
from services.cache.refresh import RefreshWatch
from services.cache.semantic.encoding import Floats
from services.cache.semantic.matcher import FAR_COSINE, Bounds
from services.cache.semantic.semantics import Semantics, SemanticSettings
from services.cache.semantic.words import parse
from services.cache.stats import Stats
from services.cache.store import EntryStore
from tests.cache.conftest import ManualClock, sqlite_store

DEADLINE_S = 10.0
CONTEXT = b"c" * 32
STATIC = Bounds(error_max=1.0, similarity_min=0.7, timeout_s=5.0)
BOUNDED = Bounds(error_max=0.1, similarity_min=0.0, timeout_s=5.0)
TTL_MS = 60_000


class WordModel:
    """A model whose vectors are sums of random vectors of the words, and which can be made to fail or to hang."""

    version = "words"
    dimension = 64

    def __init__(self) -> None:
        self.error: Exception | None = None
        self.hold: asyncio.Event | None = None

    async def warm(self) -> None:
        """Has nothing to load."""

    async def close(self) -> None:
        """Has nothing to free."""

    async def encode(self, texts: Sequence[str]) -> Floats:
        if self.hold is not None:
            await self.hold.wait()
        if self.error is not None:
            raise self.error
        return np.stack([self._vector(text) for text in texts])

    def _vector(self, text: str) -> Floats:
        vector = np.full(self.dimension, 1e-6)
        for stem in parse(text).stems:
            seed = int.from_bytes(hashlib.sha256(stem.encode()).digest()[:8], "big")
            vector += np.random.default_rng(seed).normal(size=self.dimension)
        return (vector / np.linalg.norm(vector)).astype(np.float32)


@dataclass
class Suite:
    """A cache with semantic lookups, and what tests do with it."""

    cache: Cache
    semantics: Semantics
    model: WordModel
    clock: ManualClock
    groups: dict[str, str] = field(default_factory=dict)

    async def ask(self, text: str, key: EntryKey | None = None, **changes: object) -> Found:
        """Looks a question up."""
        semantic = SemanticQuery(text, **{n: changes.pop(n) for n in ("error_max", "similarity_min") if n in changes})  # type: ignore[arg-type]
        query = Query(key or make_key(text), "test.v1", semantic=semantic)
        return await self.cache.lookup(replace(query, **changes))  # type: ignore[arg-type]

    async def keep(self, text: str, key: EntryKey | None = None, verdict: ShadowVerdict | None = None) -> Entry:
        """Stores an answer."""
        draft = EntryDraft(key or make_key(text), "test.v1", text, TTL_MS, 0)
        return await self.cache.keep(draft, [f"answer to {text}".encode()], None, verdict)

    def known(self, entry: Entry) -> bool:
        """Whether an entry can be found."""
        assert self.cache.matcher is not None
        record = self.cache.matcher.records.get(entry.address.entry)
        return record is not None and record.nonce == entry.nonce

    async def play(self, text: str, group: str, **changes: object) -> tuple[Found, bool]:
        """Looks a question up as a caller does that compares by groups; also tells whether a hit was right."""
        found = await self.ask(text, **changes)
        if isinstance(found, Hit):
            return found, self.groups[found.entry.entry_id] == group
        verdict = None
        if found.shadow is not None:
            verdict = ShadowVerdict(found.shadow.shadow_id, self.groups[found.shadow.entry.entry_id] == group)
        self.groups[(await self.keep(text, verdict=verdict)).entry_id] = group
        return found, False


def make_key(text: str, tenant: str = "acme", **changes: object) -> EntryKey:
    """The key of a question."""
    key = EntryKey(Namespace(tenant), "m", hashlib.sha256(text.encode()).digest(), 1, CONTEXT)
    return replace(key, **changes)  # type: ignore[arg-type]


async def until(condition: Callable[[], bool]) -> None:
    """Waits for a condition that other tasks bring about."""
    end = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < end, "it did not come true"
        await asyncio.sleep(0)


@asynccontextmanager
async def serving(store: EntryStore, clock: ManualClock, bounds: Bounds, seed: int = 1) -> AsyncIterator[Suite]:
    """A cache on an opened store."""
    model = WordModel()
    settings = SemanticSettings(bounds, held_share_max=0.1, entries_max=10_000)
    semantics = Semantics(model, store, settings, clock, random.Random(seed).random)
    cache = Cache(
        store,
        FlightTable(),
        Stats(clock()),
        KeySpace(b""),
        Lifetime(TTL_MS, 0.0, 0),
        RefreshWatch(0, 1),
        await semantics.open(),
        clock=clock,
        random=lambda: 0.0,
    )
    try:
        yield Suite(cache, semantics, model, clock)
    finally:
        await semantics.close()


@pytest.fixture
async def store(tmp_path: Path, clock: ManualClock) -> AsyncIterator[EntryStore]:
    """An opened store on a file."""
    store = sqlite_store(tmp_path / "entries.sqlite3", clock, entries_max=10_000)
    await store.open()
    yield store
    await store.close()


@pytest.fixture
async def static(store: EntryStore, clock: ManualClock) -> AsyncIterator[Suite]:
    """A cache for which similarity is enough."""
    async with serving(store, clock, STATIC) as suite:
        yield suite


@pytest.fixture
async def bounded(store: EntryStore, clock: ManualClock) -> AsyncIterator[Suite]:
    """A cache that keeps to a bound."""
    async with serving(store, clock, BOUNDED) as suite:
        yield suite


ASKED = "how can I change the delivery address of my order"
SIMILAR = "please how can I change the address for delivery of my order"
FORMED = "How can I change the delivery address of my order?!"


async def test_a_similar_question_is_answered(static: Suite):
    """An answer to a similar question is a semantic hit that says how similar, how old and why."""
    entry = await static.keep(ASKED)
    static.clock.now_ms += 5000
    found = await static.ask(SIMILAR)

    assert isinstance(found, Hit)
    assert (found.kind, found.entry.entry_id, found.age_ms) == (HitKind.SEMANTIC, entry.entry_id, 5000)
    assert found.entry.chunks == entry.chunks
    assert found.acceptance is not None
    assert 0.7 <= found.acceptance.similarity < 1
    assert found.acceptance.reason == "similar"


async def test_the_same_question_is_an_exact_hit(static: Suite):
    """Exact matching comes first, and asks no model."""
    await static.keep(ASKED)
    static.model.error = Unavailable("MODEL_NOT_READY", "the model is being loaded; retry")
    found = await static.ask(ASKED)

    assert isinstance(found, Hit)
    assert found.kind is HitKind.EXACT


async def test_a_stream_replays_a_similar_answer(static: Suite):
    """A streamed lookup replays the answer that was found by similarity."""
    entry = await static.keep(ASKED)
    query = Query(make_key(SIMILAR), "test.v1", semantic=SemanticQuery(SIMILAR))
    events = [event async for event in static.cache.lookup_stream(query)]

    assert isinstance(events[0], Hit)
    assert events[1:-1] == list(entry.chunks)
    assert isinstance(events[-1], Completed)


@pytest.mark.parametrize(
    "other",
    [
        make_key(SIMILAR, "globex"),
        make_key(SIMILAR, namespace=Namespace("acme", "ann")),
        make_key(SIMILAR, model="n"),
        make_key(SIMILAR, context_digest=b"d" * 32),
        make_key(SIMILAR, context_digest=b""),
        make_key(SIMILAR, canonical_version=2),
    ],
    ids=["tenant", "user", "model", "context", "no context", "version"],
)
async def test_nothing_is_found_across_a_border(static: Suite, other: EntryKey):
    """An entry of another tenant, user, model, context or version is not even looked at."""
    await static.keep(ASKED)
    found = await static.ask(SIMILAR, other)

    assert found == Miss(MissReason.NOT_FOUND)


async def test_another_format_is_not_found(static: Suite):
    """An entry with another schema tag is no answer."""
    await static.keep(ASKED)

    assert await static.ask(SIMILAR, schema_tag="other.v1") == Miss(MissReason.NOT_FOUND)


async def test_what_was_not_asked_for_is_not_done(static: Suite):
    """A lookup that does not ask for similar answers gets none."""
    await static.keep(ASKED)

    assert await static.ask(SIMILAR, semantic=None) == Miss(MissReason.NOT_FOUND)


async def test_the_guards_overrule_similarity(static: Suite):
    """A question with another number is a miss, however similar it is, and the next one is tried."""
    await static.keep("how many users can share the plan with 5 seats per month")
    other = await static.keep("please how many users can share the plan with 7 seats per month")
    found = await static.ask("how many users can share the plan with 7 seats per month")

    assert isinstance(found, Hit)
    assert found.entry.entry_id == other.entry_id
    assert await static.ask("how many users can share the plan with 9 seats per month") == Miss(MissReason.NOT_FOUND)


async def test_callers_may_only_be_stricter(static: Suite, bounded: Suite):
    """A caller's bound counts where it is stricter than the operator's, and not where it is laxer."""
    await static.keep(ASKED)
    await until(lambda: bounded.cache.matcher is not None and len(bounded.cache.matcher.records) == 1)

    assert isinstance(await static.ask(SIMILAR, similarity_min=0.1), Hit)
    assert not isinstance(await static.ask(SIMILAR, similarity_min=0.999), Hit)
    assert isinstance(await static.ask("change of the address of order please"), Miss)
    lax = await bounded.ask(SIMILAR, error_max=1.0)
    assert isinstance(lax, Miss)
    assert lax.shadow is not None
    assert lax.shadow.acceptance.error_max == 0.1


async def test_what_is_unsure_is_a_comparison_to_make(bounded: Suite):
    """Before there is evidence a similar entry is only handed over to be compared; the same words are given."""
    entry = await bounded.keep(ASKED)
    unsure, same = await bounded.ask(SIMILAR), await bounded.ask(FORMED)

    assert isinstance(unsure, Miss)
    assert unsure.reason is MissReason.UNSURE
    assert unsure.shadow is not None
    assert unsure.shadow.entry.chunks == entry.chunks
    assert isinstance(same, Hit)
    assert same.acceptance is not None
    assert same.acceptance.reason == "same words"


async def test_an_entry_that_has_gone_is_never_given(static: Suite):
    """Deleted, replaced and expired entries are not found, though the index may lag behind."""
    entry = await static.keep(ASKED)
    found = await static.ask(SIMILAR)
    assert isinstance(found, Hit)
    await static.cache.report_false_hit(Namespace("acme"), entry.entry_id)
    assert isinstance(await static.ask(SIMILAR), Miss)

    again = await static.keep(ASKED)
    found = await static.ask(SIMILAR)
    assert isinstance(found, Hit)
    assert found.entry.entry_id == again.entry_id
    static.clock.now_ms += TTL_MS + 1
    assert isinstance(await static.ask(SIMILAR), Miss)


async def test_the_age_that_is_asked_for_counts(static: Suite):
    """A similar entry that is older than the lookup allows is no answer."""
    await static.keep(ASKED)
    static.clock.now_ms += 5000

    assert isinstance(await static.ask(SIMILAR, age_max_ms=1000), Miss)
    assert isinstance(await static.ask(SIMILAR, age_max_ms=10_000), Hit)


async def test_trouble_is_a_miss(static: Suite):
    """A model that fails or hangs costs the lookup its deadline at most, and an answer is stored all the same."""
    await static.keep(ASKED)
    static.model.error = Unavailable("MODEL_NOT_READY", "the model is being loaded; retry")
    assert await static.ask(SIMILAR) == Miss(MissReason.NOT_FOUND)
    entry = await static.cache.keep(EntryDraft(make_key("x y"), "test.v1", "x y"), [b"z"], None)
    assert isinstance(await static.cache.lookup(Query(make_key("x y"), "test.v1")), Hit)
    assert not static.known(entry)


async def test_a_slow_model_is_not_waited_for(store: EntryStore, clock: ManualClock):
    """A lookup ends when its time is over, though the model has not answered."""
    async with serving(store, clock, replace(STATIC, timeout_s=0.01)) as suite:
        await suite.keep(ASKED)
        suite.model.hold = asyncio.Event()
        found = await suite.ask(SIMILAR)
        suite.model.hold.set()

    assert found == Miss(MissReason.NOT_FOUND)


async def test_the_bound_is_kept_and_used(bounded: Suite):
    """Played with comparisons, similar questions are answered more and more, and wrongly within the bound."""
    hits = wrong = late_hits = 0
    questions = questions_of(seed=3, count=900)
    for number, (text, group) in enumerate(questions):
        found, right = await bounded.play(text, group)
        if isinstance(found, Hit) and found.kind is HitKind.SEMANTIC:
            hits, wrong = hits + 1, wrong + (not right)
            late_hits += number >= 600

    assert late_hits >= 0.25 * 300
    assert wrong <= 0.1 * hits


async def test_another_field_is_compared_and_not_answered(bounded: Suite, monkeypatch: pytest.MonkeyPatch):
    """What is as far away as that is missed, and its entry is there to compare with, however sure the verifier is."""
    assert bounded.cache.matcher is not None
    verifier = await bounded.cache.matcher.verifiers.get(bounded.cache.keys.tenant("acme"))
    for name, told in (("probability", 1.0), ("threshold", 0.5)):
        monkeypatch.setattr(type(verifier.calibration.fitted), name, lambda *_, told=told: told)
    await bounded.keep(ASKED)

    near, far = await bounded.ask(SIMILAR), await bounded.ask("show me the weather of Oslo and the address of its port")

    assert isinstance(near, Hit) or (isinstance(near, Miss) and near.reason is MissReason.SHADOW)
    assert isinstance(far, Miss)
    assert far.reason is MissReason.UNSURE
    assert shadow_of(far).acceptance.similarity < FAR_COSINE


async def test_entries_that_fit_share_a_meaning(bounded: Suite):
    """An answer that was found to say the same as another's belongs to its meaning, in the store as well."""
    first = await bounded.keep(ASKED)
    found = await bounded.ask(SIMILAR)
    assert isinstance(found, Miss)
    assert found.shadow is not None
    second = await bounded.keep(SIMILAR, verdict=ShadowVerdict(found.shadow.shadow_id, True))
    outlines = {entry.entry_id: entry async for entry in bounded.cache.store.outlines()}

    assert outlines[second.entry_id].meaning == first.nonce


async def test_a_verdict_counts_once_and_for_its_tenant(bounded: Suite):
    """A comparison is learned from once, and not at all if another tenant sends it."""
    await bounded.keep(ASKED)
    shadow = shadow_of(await bounded.ask(SIMILAR))
    verdict = ShadowVerdict(shadow.shadow_id, True)
    matcher = bounded.cache.matcher
    assert matcher is not None
    await bounded.keep("elsewhere", make_key("elsewhere", "globex"), verdict)
    verifier = await matcher.verifiers.get(bounded.cache.keys.tenant("acme"))
    assert verifier.calibration.label_count == 0

    await bounded.keep(SIMILAR, verdict=verdict)
    await bounded.keep(SIMILAR, verdict=verdict)
    assert verifier.calibration.label_count == 1


async def test_a_report_removes_and_makes_stricter(bounded: Suite):
    """After a report the entry is gone, it was learned from, and what is near needs more than the same words."""
    entry, near = await bounded.keep(ASKED), await bounded.keep(SIMILAR)
    assert isinstance(await bounded.ask(SIMILAR + "?!", error_max=0.05), Hit)
    removed = await bounded.cache.report_false_hit(Namespace("acme"), entry.entry_id, SIMILAR)
    matcher = bounded.cache.matcher
    assert matcher is not None
    verifier = await matcher.verifiers.get(bounded.cache.keys.tenant("acme"))

    assert removed
    assert verifier.calibration.label_count == 1
    assert matcher.records.get(near.address.entry).strikes == 1  # type: ignore[union-attr]
    assert isinstance(await bounded.ask(SIMILAR + "?!"), Miss)


async def test_a_restart_keeps_what_was_known(store: EntryStore, clock: ManualClock):
    """After a restart the entries are found again, and what comparisons taught is still there."""
    async with serving(store, clock, BOUNDED) as suite:
        for text, group in questions_of(seed=4, count=150):
            await suite.play(text, group)
        assert suite.cache.matcher is not None
        before = await suite.cache.matcher.verifiers.get(suite.cache.keys.tenant("acme"))
        count = len(suite.cache.matcher.records)
    async with serving(store, clock, BOUNDED) as suite:
        matcher = suite.cache.matcher
        assert matcher is not None
        await until(lambda: len(matcher.records) == count)
        after = await matcher.verifiers.get(suite.cache.keys.tenant("acme"))

        assert after.calibration.label_count == before.calibration.label_count > 0


async def test_what_another_replica_stored_is_found(store: EntryStore, clock: ManualClock):
    """An index follows the store: what was stored, replaced or deleted elsewhere is so here."""
    async with serving(store, clock, STATIC) as here, serving(store, clock, STATIC) as there:
        entry = await there.keep(ASKED)
        await until(lambda: here.known(entry))
        assert isinstance(await here.ask(SIMILAR), Hit)
        again = await there.keep(ASKED)
        await until(lambda: here.known(again))
        await there.cache.report_false_hit(Namespace("acme"), again.entry_id)
        await until(lambda: not here.known(again))


async def test_expired_entries_leave_the_index(static: Suite):
    """Nobody tells of what expires, so the index looks for it."""
    entry = await static.keep(ASKED)
    static.clock.now_ms += TTL_MS + 1
    matcher, follower = static.cache.matcher, static.semantics.follower
    assert matcher is not None
    assert follower is not None
    await follower.tidy()

    assert not static.known(entry)
    assert len(matcher.records) == 0


def shadow_of(found: Found) -> Shadow:
    """The comparison that a miss asks for."""
    assert isinstance(found, Miss)
    assert found.shadow is not None
    return found.shadow


def questions_of(seed: int, count: int) -> list[tuple[str, str]]:
    """Questions about things, each asked in several ways; those about other things look alike."""
    source = random.Random(seed)
    forms = (
        "how do I return the {} that I bought last week",
        "I bought the {} last week and how do I return it",
        "what is the way to return the {} which was bought",
        "returning the {} how is it done",
    )
    things = [
        "".join(pair) for pair in itertools.product(("lam", "cha", "tab", "des", "sof"), ("pir", "rok", "lun", "vex"))
    ]
    questions = [(form.format(thing), thing) for form in forms for thing in things]
    asked = [
        (f"{source.choice(('', 'please ', 'hello '))}{text}", thing) for text, thing in questions for _ in range(9)
    ]
    source.shuffle(asked)
    unique = list(dict.fromkeys(f"{text} {number % 3 * '!'}|{thing}" for number, (text, thing) in enumerate(asked)))
    pairs = [tuple(one.split("|")) for one in unique]
    return [(text, thing) for text, thing in (pairs * 10)[:count]]


async def test_no_likeness_crosses_a_border(store: EntryStore, clock: ManualClock):
    """Where anything alike is given, thousands of lookups never get what was stored for another."""
    source = random.Random(5)
    keys = [
        EntryKey(Namespace(tenant, user), model, b"", 1, context)
        for tenant, user, model, context in itertools.product(
            ("acme", "globex"), (None, "ann"), ("m", "n"), (b"c" * 32, b"d" * 32)
        )
    ]
    hit_count = 0
    async with serving(store, clock, Bounds(1.0, 0.0, 5.0, guarded=False)) as suite:
        for number in range(4000):
            border = source.choice(keys)
            text = f"{source.choice(('where', 'when', 'how'))} is my {source.choice(('card', 'order', 'key'))} {number}"
            key = replace(border, request_digest=hashlib.sha256(text.encode()).digest())
            found = await suite.ask(text, key)
            if isinstance(found, Hit):
                hit_count += 1
                assert found.entry.chunks == (repr(border).encode(),)
            if number % 100 < 20:
                await suite.cache.keep(EntryDraft(key, "test.v1", text, TTL_MS, 0), [repr(border).encode()], None)

    assert hit_count > 3000
