"""Keys in SQLite and in PostgreSQL."""

from __future__ import annotations

import asyncio

import pytest
from sqlalchemy import inspect, text

from kit.errors import FailedPrecondition, InvalidArgument, NotFound
from services.inference.access import secret
from services.inference.access.key import KeyDraft
from services.inference.access.key_store import KeyStore, after_of, page_token
from services.inference.database.database import Database
from tests.inference.access.parts import PEPPER, Clock, make_key, ring, rotate


@pytest.fixture
def store(either_database: Database, clock: Clock) -> KeyStore:
    """Keys in a database of either kind."""
    return KeyStore(either_database, clock)


async def test_no_row_holds_a_secret(store: KeyStore, either_database: Database) -> None:
    """Every value of every table, after keys were made and rotated: prefixes and digests are all there is."""
    key, first = await make_key(store, "name", tenant="acme", models=("m",), expire_time_ms=2_000_000_000)
    second = await rotate(store, key, 60_000)
    async with either_database.reading() as connection:
        names = await connection.run_sync(lambda sync: inspect(sync).get_table_names())
        rows = [row for name in names for row in (await connection.execute(text(f"SELECT * FROM {name}"))).all()]

    told = repr(rows)
    assert secret.digest(second, PEPPER) in told
    for one in (first, second):
        assert one[secret.PREFIX_CHARS :] not in told
        assert one[secret.PREFIX_CHARS : secret.PREFIX_CHARS + 8] not in told


async def test_what_changed_is_told_once(store: KeyStore) -> None:
    """From a version on: new, revoked and rotated keys, whole with their secrets; nothing where none did."""
    first, _ = await make_key(store, "first")
    second, _ = await make_key(store, "second")
    begun = await store.changes(-1)
    assert begun is not None
    assert {key.name for key in begun.keys} == {"first", "second"}
    assert await store.changes(begun.version) is None
    await store.revoke(first.key_id)
    await rotate(store, second, 1000)
    later = await store.changes(begun.version)

    assert later is not None
    assert {key.name: key.revoke_time_ms is None for key in later.keys} == {"first": False, "second": True}
    assert sum(one.key_id == second.key_id for one in later.secrets) == 2


async def test_no_change_is_missed_while_many_write(store: KeyStore, clock: Clock) -> None:
    """Versions become visible in their order: a reader beside twenty writers knows every key in the end."""
    keyring = ring(store, clock)
    made = asyncio.gather(*(make_key(store, f"k{number}") for number in range(20)))
    while not made.done():
        await keyring.refresh()
    await keyring.refresh()

    assert {(await keyring.caller_of(secret_)).key_name for _, secret_ in await made} == {
        f"k{number}" for number in range(20)
    }


async def test_a_revoked_key_stays_revoked(store: KeyStore, clock: Clock) -> None:
    """Revoking again changes nothing, and a rotation does not bring it back."""
    key, _ = await make_key(store)
    revoked = await store.revoke(key.key_id)
    clock.now += 10

    assert (await store.revoke(key.key_id)).revoke_time_ms == revoked.revoke_time_ms == int((clock.now - 10) * 1000)
    with pytest.raises(FailedPrecondition) as caught:
        await rotate(store, key, 0)
    assert caught.value.reason == "KEY_NOT_ACTIVE"


async def test_an_expired_key_is_not_rotated(store: KeyStore, clock: Clock) -> None:
    """Its end was meant."""
    key, _ = await make_key(store, expire_time_ms=int((clock.now + 1) * 1000))
    clock.now += 1
    with pytest.raises(FailedPrecondition):
        await rotate(store, key, 0)


async def test_keys_are_listed_newest_first_in_pages(store: KeyStore, clock: Clock) -> None:
    """Also those made in the same millisecond; every key stands on exactly one page."""
    made = []
    for number in range(7):
        made.append((await make_key(store, f"k{number}"))[0].key_id)
        clock.now += number % 2
    seen, after = [], None
    while page := await store.list(3, after):
        seen += [key.key_id for key in page]
        after = after_of(page_token(page[-1]))

    assert sorted(seen) == sorted(made)
    assert seen[0] in made[-2:]
    assert seen[-1] in made[:2]


@pytest.mark.parametrize("token", ["x", "1", "1.", "-1.a", "1e9.a", "١.a", "9" * 20 + ".a"])
def test_a_page_token_that_is_none_is_refused(token: str) -> None:
    """Whoever makes one up is told so."""
    with pytest.raises(InvalidArgument, match="page_token"):
        after_of(token)


async def test_what_does_not_exist_is_not_found(store: KeyStore) -> None:
    """Whatever the id is, also one that means something to SQL."""
    for key_id in ("key_none", "", "' OR 1=1 --", "../x"):
        with pytest.raises(NotFound):
            await store.revoke(key_id)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", ""),
        ("name", "x" * 65),
        ("name", "a\nb"),
        ("tenant", ""),
        ("tenant", "a b"),
        ("tenant", "é"),
        ("principal", "x" * 257),
        ("tier", "a b"),
        ("models", ("",)),
        ("models", ("m",) * 65),
        ("endpoints", ("admin",)),
        ("safety_profiles", ("x" * 65,)),
        ("expire_time_ms", 1),
        ("expire_time_ms", -1),
    ],
)
async def test_a_draft_that_cannot_be_is_refused_by_its_field(store: KeyStore, field: str, value: object) -> None:
    """Nothing is kept of it."""
    draft = KeyDraft(**{"name": "k", field: value})  # type: ignore[arg-type]
    with pytest.raises(InvalidArgument) as caught:
        await store.create(draft, "mr_x", "d")

    assert caught.value.field_violations[0].field == f"key.{field}".removesuffix("_ms")
    assert await store.list(10) == []


async def test_the_first_key_is_made_once(store: KeyStore) -> None:
    """Of replicas that start together one makes it."""
    draft = KeyDraft("first", role="admin")
    made = await asyncio.gather(*(store.create_first(draft, "mr_x", f"digest-{number}") for number in range(4)))

    assert len([key for key in made if key]) == 1
    assert len(await store.list(10)) == 1
    assert await store.create_first(draft, "mr_x", "another") is None


async def test_a_wrong_pepper_is_noticed(store: KeyStore) -> None:
    """In place of good keys that are all refused."""
    assert await store.agree("one")
    assert await store.agree("one")
    assert not await store.agree("two")
