"""Keys in memory: fast, current, and honest about what nobody can know."""

from __future__ import annotations

import asyncio
import logging

import pytest

from kit.errors import Unauthenticated, Unavailable
from kit.identity import Caller
from services.inference.access import secret
from services.inference.access.key_store import DISABLED_MS, KeyStore
from services.inference.access.keyring import LOOK_INTERVAL_S
from services.inference.access.user_store import UserStore
from services.inference.access.users import User
from services.inference.database.database import Database
from tests.inference.access.parts import Clock, Watched, make_key, ring, rotate


async def refusal(keyring, text) -> str:
    """The reason why a key is not good."""
    with pytest.raises(Unauthenticated) as caught:
        await keyring.caller_of(text)
    return caught.value.reason


async def test_a_known_key_asks_nobody(store: KeyStore, clock: Clock) -> None:
    """A thousand calls with it are a thousand look-ups in memory, and each gets the same caller."""
    key, text = await make_key(
        store, tenant="acme", principal="ada", role="service", tier="premium", models=("gpt-*",), endpoints=("embed",)
    )
    watched = Watched(store)
    keyring = ring(watched, clock)
    await keyring.refresh()
    callers = {id(await keyring.caller_of(text)) for _ in range(1000)}

    assert len(callers) == 1
    assert watched.question_count == 1
    assert await keyring.caller_of(text) == Caller(
        "ada", "acme", "service", key.key_id, "k", "premium", ("gpt-*",), ("embed",)
    )


async def test_guesses_do_not_reach_the_database(store: KeyStore, clock: Clock) -> None:
    """A thousand at once are one question, one after the other are ten a second, and malformed ones none at all."""
    watched = Watched(store)
    keyring = ring(watched, clock)
    await keyring.refresh()
    guesses = [secret.new_secret() for _ in range(1000)]
    assert set(await asyncio.gather(*(refusal(keyring, guess) for guess in guesses))) == {"KEY_INVALID"}
    assert watched.question_count == 2
    begun = clock.now
    for guess in guesses[:50]:
        assert await refusal(keyring, guess) == "KEY_INVALID"
    assert watched.question_count - 2 <= (clock.now - begun) / LOOK_INTERVAL_S + 1
    asked = watched.question_count
    assert await refusal(keyring, "mr_nonsense") == "KEY_INVALID"
    assert watched.question_count == asked


async def test_a_key_that_another_replica_just_made_is_found(store: KeyStore, clock: Clock) -> None:
    """The first call with it does not wait for the next poll, however short the last question lies back."""
    keyring = ring(Watched(store), clock)
    await keyring.refresh()
    for number in range(3):
        _, text = await make_key(store, f"k{number}")
        assert (await keyring.caller_of(text)).key_name == f"k{number}"


async def test_a_revoked_key_is_refused_after_the_next_poll_on_every_replica(store: KeyStore, clock: Clock) -> None:
    """Each learns of it by itself, and says to the holder what became of the key."""
    key, text = await make_key(store)
    replicas = [ring(Watched(store), clock) for _ in range(3)]
    for one in replicas:
        await one.refresh()
        await one.caller_of(text)
        assert one.is_good(key.caller)
    await store.revoke(key.key_id)
    for one in replicas:
        await one.refresh()

    assert [await refusal(one, text) for one in replicas] == ["KEY_REVOKED"] * 3
    assert not any(one.is_good(key.caller) for one in replicas)


async def test_a_key_that_another_replica_just_made_is_good(store: KeyStore, clock: Clock) -> None:
    """What its holder began there may go on here before the next poll; a revocation that is heard of ends it."""
    keyring = ring(Watched(store), clock)
    await keyring.refresh()
    key, _ = await make_key(store)
    assert keyring.is_good(key.caller)
    await store.revoke(key.key_id)
    await keyring.refresh()

    assert not keyring.is_good(key.caller)


async def test_a_disabled_user_is_known_after_the_next_poll(database: Database, store: KeyStore, clock: Clock) -> None:
    """By name and tenant: keys of that name, another tenant's user and an issuer's subject go on."""
    users = UserStore(database, clock)
    await users.create(User("ada", "acme"), "hash")
    keyring = ring(store, clock)
    await keyring.refresh()
    ada = Caller("ada", "acme")
    assert keyring.is_good(ada)
    await users.disable("ada")
    await keyring.refresh()
    key, _ = await make_key(store, principal="ada", tenant="acme")
    await keyring.refresh()

    assert keyring.is_disabled(ada)
    assert not keyring.is_good(ada)
    others = (
        key.caller,
        Caller("ada", "acme", key_name="admin"),
        Caller("ada", "other"),
        Caller("ada", "acme", issuer="https://login.example"),
    )
    assert all(keyring.is_good(one) for one in others)


async def test_who_was_disabled_long_ago_is_forgotten(database: Database, store: KeyStore, clock: Clock) -> None:
    """What they began has ended by then; a keyring does not grow by everybody who ever left."""
    users = UserStore(database, clock)
    await users.create(User("ada"), "hash")
    await users.disable("ada")
    clock.now += DISABLED_MS / 1000 + 1
    keyring = ring(store, clock)
    await keyring.refresh()

    assert keyring.is_good(Caller("ada"))


async def test_the_poll_carries_a_revocation(store: KeyStore, clock: Clock) -> None:
    """The task that polls is all it takes, and an outage between does not end it."""
    key, text = await make_key(store)
    watched = Watched(store)
    keyring = ring(watched, clock)
    await keyring.refresh()
    polling = asyncio.create_task(keyring.poll(0.001))
    watched.is_away = True
    await watched.asked(2)
    await store.revoke(key.key_id)
    watched.is_away = False
    await watched.asked(2)
    polling.cancel()
    await asyncio.gather(polling, return_exceptions=True)

    assert await refusal(keyring, text) == "KEY_REVOKED"


async def test_a_rotated_key_works_under_both_secrets_for_its_overlap(store: KeyStore, clock: Clock) -> None:
    """Then only under the new one; both are the same caller."""
    key, old = await make_key(store)
    new = await rotate(store, key, overlap_ms=10_000)
    keyring = ring(Watched(store), clock)
    await keyring.refresh()
    assert await keyring.caller_of(old) == await keyring.caller_of(new)
    clock.now += 9.9
    await keyring.caller_of(old)
    clock.now += 0.1

    assert await refusal(keyring, old) == "KEY_EXPIRED"
    assert (await keyring.caller_of(new)).key_id == key.key_id


async def test_a_second_rotation_does_not_lengthen_the_first_secret(store: KeyStore, clock: Clock) -> None:
    """What was to end soon ends then, whatever the later overlap."""
    key, first = await make_key(store)
    await rotate(store, key, overlap_ms=5_000)
    await rotate(store, key, overlap_ms=60_000)
    keyring = ring(Watched(store), clock)
    await keyring.refresh()
    clock.now += 5

    assert await refusal(keyring, first) == "KEY_EXPIRED"


async def test_a_key_ends_at_its_instant(store: KeyStore, clock: Clock) -> None:
    """Without a poll: the clock is enough."""
    _, text = await make_key(store, expire_time_ms=int((clock.now + 10) * 1000))
    keyring = ring(Watched(store), clock)
    await keyring.refresh()
    clock.now += 9.999
    await keyring.caller_of(text)
    clock.now += 0.001

    assert await refusal(keyring, text) == "KEY_EXPIRED"


async def test_while_the_store_is_away_known_keys_go_on_and_others_are_not_called_bad(
    store: KeyStore, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """An unknown key may be good, so it is 503 and never 401; the log tells once of the outage and once of its end."""
    caplog.set_level(logging.INFO)
    _, text = await make_key(store)
    watched = Watched(store)
    keyring = ring(watched, clock, outage_s=60)
    await keyring.refresh()
    watched.is_away = True
    clock.now += 1
    for _ in range(50):
        clock.now += 0.2
        with pytest.raises(Unavailable) as caught:
            await keyring.caller_of(secret.new_secret())
        assert caught.value.reason == "STORE_UNAVAILABLE"
        await keyring.caller_of(text)
    watched.is_away = False
    clock.now += 1
    reason = await refusal(keyring, secret.new_secret())

    assert reason == "KEY_INVALID"
    assert [record.message for record in caplog.records if "store of keys" in record.message] == [
        "the store of keys is away",
        "the store of keys is back",
    ]


async def test_after_the_set_time_of_an_outage_nobody_knows_any_more(store: KeyStore, clock: Clock) -> None:
    """A key may have been revoked meanwhile, so that it is 503; a permanent one goes on, and so does a typo."""
    _, text = await make_key(store)
    watched = Watched(store)
    keyring = ring(watched, clock, outage_s=60)
    root = secret.new_secret()
    keyring.add_permanent(root, Caller("root", role="admin"))
    await keyring.refresh()
    watched.is_away = True
    clock.now += 60
    await keyring.caller_of(text)
    clock.now += 0.1
    with pytest.raises(Unavailable):
        await keyring.caller_of(text)

    assert (await keyring.caller_of(root)).principal == "root"
    assert await refusal(keyring, "mr_typo") == "KEY_INVALID"


async def test_before_the_first_answer_of_the_store_nobody_is_a_stranger(store: KeyStore, clock: Clock) -> None:
    """A replica that starts during an outage does not send good keys away."""
    watched = Watched(store)
    watched.is_away = True

    with pytest.raises(Unavailable):
        await ring(watched, clock).caller_of(secret.new_secret())
