"""What every store must do; each test runs on each kind of store."""

import asyncio
import random
from collections.abc import AsyncIterator

import msgspec
import pytest

from services.cache.changes import Behind, Change, Removed, Stored
from services.cache.entry import Entry, Savings, encode, encode_outline, outline_of
from services.cache.key import Address
from services.cache.store import Selector, Size
from services.cache.worth import EvictionReason
from tests.cache.conftest import MakeStore, ManualClock, address_of, make_entry, make_key

SOON_S = 10


async def test_entry_comes_back_whole(make_store: MakeStore, clock: ManualClock):
    """Every field of an entry is found as it was put."""
    store = await make_store()
    entry = make_entry(make_key(user="ann"), clock, chunks=(b"\x00one", b"two\xff"), tags=("kb", "faq"))
    entry = type(entry)(
        **{name: getattr(entry, name) for name in entry.__struct_fields__}
        | {"savings": Savings(3, 5, 7, 11), "compare_text": "Wie geht's? ✓", "context_digest": b"c" * 32}
    )

    await store.put(entry)

    assert await store.get(entry.address) == entry


async def test_other_addresses_are_empty(make_store: MakeStore, clock: ManualClock):
    """An entry is found at its own address only."""
    store = await make_store()
    await store.put(make_entry(make_key(), clock))

    for other in (make_key("other"), make_key(user="ann"), make_key(request=b"x"), make_key(model="n")):
        assert await store.get(address_of(other)) is None


async def test_large_entry_fits(make_store: MakeStore, clock: ManualClock):
    """An answer of 4 MiB is kept."""
    store = await make_store()
    entry = make_entry(make_key(), clock, chunks=(b"x" * (4 << 20),))

    await store.put(entry)

    assert await store.get(entry.address) == entry


async def test_later_entry_replaces(make_store: MakeStore, clock: ManualClock):
    """An entry replaces the one at its address, which is no longer counted or found by its tags."""
    store = await make_store()
    first = make_entry(make_key(), clock, tags=("old",))
    second = make_entry(make_key(), clock, chunks=(b"longer answer",), tags=("new",))
    await store.put(first)
    await store.put(second)

    assert await store.get(second.address) == second
    assert (await store.size(None)).entry_count == 1
    assert await store.delete(Selector(first.address.tenant, tag="old")) == 0
    assert await store.get(second.address) == second
    assert await store.delete(Selector(first.address.tenant, tag="new")) == 1
    assert await store.size(None) == Size(0, 0)


async def test_entry_is_gone_at_its_instant(make_store: MakeStore, clock: ManualClock):
    """An entry is kept while stale and forgotten at `gone_ms`, however often it was used."""
    store = await make_store()
    entry = make_entry(make_key(), clock)
    await store.put(entry)

    clock.now_ms = entry.gone_ms - 1
    assert await store.get(entry.address) == entry
    clock.now_ms = entry.gone_ms
    assert await store.get(entry.address) is None


async def test_gone_entries_leave_the_count(make_store: MakeStore, clock: ManualClock):
    """What is gone is not counted once something else has been put."""
    store = await make_store()
    for number in range(5):
        await store.put(make_entry(make_key(request=bytes([number])), clock))
    clock.now_ms += 120_000
    last = make_entry(make_key(), clock)
    await store.put(last)

    assert (await store.size(last.address.tenant)).entry_count == 1


async def test_delete_one_version(make_store: MakeStore, clock: ManualClock):
    """Deleting an entry spares one that was stored later under the same key."""
    store = await make_store()
    first, second = make_entry(make_key(), clock), make_entry(make_key(), clock)
    await store.put(first)
    await store.put(second)
    tenant, namespace, digest = first.address.tenant, first.address.namespace, first.address.entry

    assert await store.delete(Selector(tenant, namespace, (digest, first.nonce))) == 0
    assert await store.get(second.address) == second
    assert await store.delete(Selector(tenant, namespace, (digest, second.nonce))) == 1
    assert await store.get(second.address) is None
    assert await store.delete(Selector(tenant, namespace, (digest, second.nonce))) == 0


async def test_delete_by_tag(make_store: MakeStore, clock: ManualClock):
    """A tag reaches the entries of its namespace that have it, or those of the whole tenant."""
    store = await make_store()
    shared = make_entry(make_key(request=b"1"), clock, tags=("kb", "x"))
    own = make_entry(make_key(user="ann", request=b"2"), clock, tags=("kb",))
    other_tag = make_entry(make_key(request=b"3"), clock, tags=("faq",))
    other_tenant = make_entry(make_key("other", request=b"4"), clock, tags=("kb",))
    for entry in (shared, own, other_tag, other_tenant):
        await store.put(entry)

    assert await store.delete(Selector(shared.address.tenant, shared.address.namespace, tag="kb")) == 1
    assert await store.get(shared.address) is None
    assert await store.get(own.address) == own
    assert await store.delete(Selector(shared.address.tenant, tag="kb")) == 1
    assert await store.get(own.address) is None
    assert await store.get(other_tag.address) == other_tag
    assert await store.get(other_tenant.address) == other_tenant


async def test_delete_namespace_and_tenant(make_store: MakeStore, clock: ManualClock):
    """A namespace is deleted without its neighbours, a tenant with all of its users."""
    store = await make_store()
    entries = {
        name: make_entry(key, clock)
        for name, key in {
            "shared": make_key(),
            "shared_too": make_key(request=b"2"),
            "ann": make_key(user="ann"),
            "bob": make_key(user="bob"),
            "other": make_key("other"),
        }.items()
    }
    for entry in entries.values():
        await store.put(entry)
    ann, shared = entries["ann"].address, entries["shared"].address

    async def left() -> set[str]:
        return {name for name, entry in entries.items() if await store.get(entry.address)}

    assert await store.delete(Selector(ann.tenant, ann.namespace)) == 1
    assert await left() == {"shared", "shared_too", "bob", "other"}
    assert await store.delete(Selector(shared.tenant, shared.namespace)) == 2
    assert await left() == {"bob", "other"}
    assert await store.delete(Selector(shared.tenant)) == 1
    assert await left() == {"other"}


async def test_delete_of_many_pages(make_store: MakeStore, clock: ManualClock):
    """More entries than fit a page are all deleted."""
    store = await make_store()
    entries = [make_entry(make_key(request=number.to_bytes(2, "big")), clock, tags=("t",)) for number in range(700)]
    await asyncio.gather(*(store.put(entry) for entry in entries))

    assert await store.delete(Selector(entries[0].address.tenant, tag="t")) == 700
    assert await store.size(None) == Size(0, 0)


async def test_dry_run_deletes_nothing(make_store: MakeStore, clock: ManualClock):
    """A dry run counts what would be deleted, and what is gone is not counted."""
    store = await make_store()
    gone = make_entry(make_key(request=b"1"), clock, tags=("kb",))
    await store.put(gone)
    clock.now_ms += 60_000
    entry = make_entry(make_key(request=b"2"), clock, tags=("kb",))
    await store.put(entry)
    tenant, namespace = entry.address.tenant, entry.address.namespace

    assert await store.delete(Selector(tenant), dry_run=True) == 2
    assert await store.delete(Selector(tenant, tag="kb"), dry_run=True) == 2
    assert await store.delete(Selector(tenant, namespace, (entry.address.entry, entry.nonce)), dry_run=True) == 1
    assert await store.delete(Selector(tenant, tag="none"), dry_run=True) == 0
    assert await store.get(entry.address) == entry


async def test_size_is_per_tenant_and_total(make_store: MakeStore, clock: ManualClock):
    """Entries and bytes are counted for one tenant and for all."""
    store = await make_store()
    one, two = make_entry(make_key(), clock, chunks=(b"x" * 1000,)), make_entry(make_key("other"), clock)
    await store.put(one)
    await store.put(two)

    size, other, total = [await store.size(tenant) for tenant in (one.address.tenant, two.address.tenant, None)]
    assert (size.entry_count, other.entry_count, total.entry_count) == (1, 1, 2)
    assert size.size_bytes > 1000 > other.size_bytes > 0
    assert total.size_bytes == size.size_bytes + other.size_bytes


@pytest.mark.parametrize("bounds", [{"entries_max": 10}, {"bytes_max": 14_000}])
async def test_bounds_hold(make_store: MakeStore, clock: ManualClock, bounds: dict[str, float]):
    """Entries or bytes never pass their bound, and what has just been put is there."""
    store = await make_store(**bounds)
    for number in range(30):
        clock.now_ms += 1
        entry = make_entry(make_key(request=bytes([number])), clock, chunks=(b"x" * 1000,))
        await store.put(entry)
        assert await store.get(entry.address) == entry

    size = await store.size(None)
    assert 9 <= size.entry_count <= bounds.get("entries_max", 30)
    assert size.size_bytes <= bounds.get("bytes_max", 1 << 30)
    reason = EvictionReason.ENTRIES if "entries_max" in bounds else EvictionReason.BYTES
    assert {reason: count for reason, count in store.evictions.items() if count} == {reason: 30 - size.entry_count}


async def test_what_saves_most_per_byte_stays(make_store: MakeStore, clock: ManualClock):
    """A full store keeps entries that were dear to make, small, or used often, and lets the others go."""
    store = await make_store(entries_max=20)
    plain = {"chunks": (b"x" * 1000,)}
    dear = make_entry(make_key(request=b"dear"), clock, savings=Savings(cost_micro_usd=5_000), **plain)
    slow = make_entry(make_key(request=b"slow"), clock, savings=Savings(generation_ms=60_000), **plain)
    used = make_entry(make_key(request=b"used"), clock, **plain)
    small = make_entry(make_key(request=b"small"), clock, chunks=(b"x",))
    large = make_entry(make_key(request=b"large"), clock, chunks=(b"x" * 100_000,))
    for entry in (dear, slow, used, small, large):
        await store.put(entry)
    for number in range(30):
        for _ in range(5):
            await store.get(used.address)
        await store.put(make_entry(make_key(request=bytes([number])), clock, **plain))

    assert [await store.get(entry.address) for entry in (dear, slow, used, small)] == [dear, slow, used, small]
    assert await store.get(large.address) is None


async def test_what_was_used_long_ago_leaves(make_store: MakeStore, clock: ManualClock):
    """However often an entry was used, it leaves once enough others have come and gone since."""
    store = await make_store(entries_max=5)
    used = make_entry(make_key(request=b"used"), clock)
    await store.put(used)
    for _ in range(10):
        await store.get(used.address)
    for number in range(100):
        await store.put(make_entry(make_key(request=bytes([number])), clock))

    assert await store.get(used.address) is None


async def test_size_is_exact(make_store: MakeStore, clock: ManualClock):
    """After any mixture of steps the size is that of the entries that are there, to the byte."""
    store, draw = await make_store(entries_max=12), random.Random(5)
    tags, entries = ("a", "b", "c"), dict[Address, Entry]()
    for _ in range(300):
        request, tenant = bytes([draw.randrange(30)]), draw.choice(("acme", "other"))
        match draw.randrange(8):
            case 0:
                clock.now_ms += draw.randrange(20_000)
            case 1:
                await store.delete(Selector(address_of(make_key(tenant)).tenant, tag=draw.choice(tags)))
            case _:
                chunks, embedding = (b"x" * draw.randrange(1, 500),), b"e" * draw.randrange(2)
                entry = make_entry(make_key(tenant, request=request), clock, chunks=chunks, tags=(draw.choice(tags),))
                entry = msgspec.structs.replace(entry, embedding=embedding)
                await store.put(entry)
                entries[entry.address] = entry
    held = [entry for entry in entries.values() if await store.get(entry.address)]

    assert len(held) > 5
    for tenant in {entry.address.tenant for entry in held}:
        own = [entry for entry in held if entry.address.tenant == tenant]
        size_bytes = sum(len(encode(entry)) + len(encode_outline(entry) or b"") for entry in own)
        assert await store.size(tenant) == Size(len(own), size_bytes)
    assert (await store.size(None)).entry_count == len(held)


def embedded(entry: Entry, text: str) -> Entry:
    """An entry that takes part in semantic lookups."""
    changes = {"compare_text": text, "embedding": text.encode() * 3, "embedding_version": "v1"}
    return msgspec.structs.replace(entry, **changes)


async def next_change(changes: AsyncIterator[Change]) -> Change:
    async with asyncio.timeout(SOON_S):
        return await anext(changes)


async def test_outlines_are_what_an_index_needs(make_store: MakeStore, clock: ManualClock):
    """Every entry with an embedding is told of, over tenants and pages, without its chunks and unless it is gone."""
    store = await make_store()
    gone = embedded(make_entry(make_key(request=b"gone"), clock), "gone")
    await store.put(gone)
    clock.now_ms += 120_000
    entries = [
        embedded(make_entry(make_key(f"t{number % 3}", request=number.to_bytes(2, "big")), clock), str(number))
        for number in range(400)
    ]
    plain = make_entry(make_key(request=b"plain"), clock)
    await asyncio.gather(*(store.put(entry) for entry in (plain, *entries)))
    found = {entry.address: entry async for entry in store.outlines()}

    assert found == {entry.address: outline_of(entry) for entry in entries}
    whole = await store.get(entries[7].address)
    assert whole == msgspec.structs.replace(entries[7], embedding=b"")


async def test_changes_are_followed(make_store: MakeStore, clock: ManualClock):
    """A follower begins behind, then hears of every entry with an embedding that is stored, replaced or removed."""
    store = await make_store()
    first, second, third = (embedded(make_entry(make_key(), clock), text) for text in ("1", "2", "3"))
    await store.put(first)
    changes = store.changes()
    assert await next_change(changes) == Behind()
    assert [entry async for entry in store.outlines()] == [outline_of(first)]

    await store.put(second)
    seen = [await next_change(changes)]
    if isinstance(seen[-1], Removed):  # A store may tell of the one that was replaced.
        seen.append(await next_change(changes))
    assert seen[-1] == Stored(outline_of(second))
    await store.put(make_entry(make_key(), clock))
    assert await next_change(changes) == Removed(((second.address, second.nonce),))
    await store.put(third)
    while (change := await next_change(changes)) != Stored(outline_of(third)):
        assert isinstance(change, Removed)
    assert await store.delete(Selector(third.address.tenant)) == 1
    assert await next_change(changes) == Removed(((third.address, third.nonce),))


async def test_changes_end_with_the_store(make_store: MakeStore, clock: ManualClock):
    """Whoever follows a store that is closed is told that nothing comes any more."""
    store = await make_store()
    changes = store.changes()
    assert await next_change(changes) == Behind()
    await store.close()

    with pytest.raises(StopAsyncIteration):
        await next_change(changes)


async def test_racing_entries_leave_one_whole(make_store: MakeStore, clock: ManualClock):
    """Of many entries put at one address at once, one stays, whole, and is counted once."""
    store = await make_store()
    entries = [make_entry(make_key(), clock, chunks=(bytes([number]) * 500,) * 3) for number in range(50)]
    await asyncio.gather(*(store.put(entry) for entry in entries))

    assert await store.get(entries[0].address) in entries
    assert (await store.size(None)).entry_count == 1


async def test_deleted_entry_is_never_found_again(make_store: MakeStore, clock: ManualClock):
    """While others look an entry up all the time, none finds it after its deletion was acknowledged."""
    store = await make_store()
    for number in range(20):
        entry = make_entry(make_key(request=bytes([number])), clock)
        await store.put(entry)
        lookups = [asyncio.create_task(store.get(entry.address)) for _ in range(10)]
        await store.delete(Selector(entry.address.tenant, entry.address.namespace))
        assert await store.get(entry.address) is None
        await asyncio.gather(*lookups)
        assert await store.get(entry.address) is None
