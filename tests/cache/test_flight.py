import asyncio
from contextlib import aclosing

from services.cache import flight as flight_module
from services.cache.flight import Flight, FlightTable, Joined
from services.cache.key import Address
from tests.cache.conftest import ManualClock, address_of, make_entry, make_key

KEY = address_of(make_key())
OTHER = address_of(make_key("other"))
SOON_S = 5


def until(seconds: float = SOON_S) -> float:
    return asyncio.get_running_loop().time() + seconds


async def lead(table: FlightTable, address: Address = KEY, ttl_s: float = SOON_S) -> Flight:
    joined = await table.join(address, ttl_s, 0)
    assert joined.flight is not None
    assert joined.leads
    return joined.flight


async def test_one_leads_and_the_others_join():
    """Of many that miss at once, exactly one leads; another key has a flight of its own."""
    table = FlightTable()
    joined = [await table.join(KEY, SOON_S, 0) for _ in range(100)]

    assert [each.leads for each in joined] == [True] + [False] * 99
    assert len({id(each.flight) for each in joined}) == 1
    await lead(table, OTHER)


async def test_landing_wakes_all_with_the_entry(clock: ManualClock):
    """Everyone who waits gets the answer that landed."""
    table, entry = FlightTable(), make_entry(make_key(), clock)
    flight = await lead(table)
    waiters = [asyncio.create_task(table.settlement(flight, until())) for _ in range(100)]
    table.land(entry, None)

    assert all(await asyncio.gather(*waiters))
    assert flight.entry is entry
    assert table.lease_count == 0


async def test_exactly_one_takes_over_from_a_leader_that_fails():
    """When a leader gives up, one of those who wait leads next and the others wait for it."""
    table = FlightTable()
    flight = await lead(table)
    leaders: list[Flight] = []

    async def wait() -> None:
        assert await table.settlement(flight, until())
        following = await table.join(KEY, SOON_S, 0)
        if following.leads and following.flight:
            leaders.append(following.flight)

    async with asyncio.TaskGroup() as group:
        for _ in range(100):
            group.create_task(wait())
        await asyncio.sleep(0)
        assert await table.release(flight.lease_id)

    assert len(leaders) == 1
    assert await table.lead(leaders[0].lease_id, KEY) is leaders[0]


async def test_lease_runs_out():
    """A leader that says nothing loses its lease, which wakes those who wait, and its later release is void."""
    table = FlightTable()
    flight = await lead(table, ttl_s=0.02)

    assert await table.settlement(flight, until())
    assert flight.entry is None
    assert not await table.release(flight.lease_id)
    await lead(table)


async def test_chunks_renew_the_lease():
    """Each chunk gives a streamed flight its whole lease again, and who waits for its end waits on."""
    table = FlightTable()
    flight = await lead(table, ttl_s=0.1)
    waiter = asyncio.create_task(table.settlement(flight, until(0.3)))
    await asyncio.sleep(0)
    flight.ttl_s = SOON_S
    table.append(flight, b"x")

    assert not await waiter
    assert await table.lead(flight.lease_id, KEY) is flight


async def test_wait_ends_in_time():
    """Who waits no longer than it may is told that nothing came, and the flight goes on."""
    table = FlightTable()
    flight = await lead(table)

    assert not await table.settlement(flight, until(0.01))
    assert not await table.progress(flight, until(0.01))
    assert await table.lead(flight.lease_id, KEY) is flight


async def test_followers_see_every_chunk_in_order(clock: ManualClock):
    """Whoever follows, from the start or late, sees all chunks once and in order."""
    table = FlightTable()
    flight = await lead(table)

    async def follow() -> list[bytes]:
        return [chunk async for chunk in table.follow(flight)]

    followers = [asyncio.create_task(follow())]
    for number in range(20):
        table.append(flight, bytes([number]))
        if number % 3 == 0:
            await asyncio.sleep(0)
        followers.append(asyncio.create_task(follow()))
    table.land(make_entry(make_key(), clock), None, flight)

    for seen in await asyncio.gather(*followers):
        assert seen == [bytes([number]) for number in range(20)]


async def test_followers_hear_that_the_process_lives():
    """Where nothing new comes they are told so, again and again."""
    table = FlightTable()
    flight = await lead(table)
    table.append(flight, b"one")
    async with aclosing(table.follow(flight)) as followed:
        assert [await anext(followed) for _ in range(3)] == [b"one", None, None]
        table.append(flight, b"two")
        assert await anext(followed) == b"two"


async def test_another_answer_does_not_cut_into_a_streamed_one(clock: ManualClock):
    """An answer stored by someone else ends a flight that says nothing, but not one that is being streamed."""
    table, entry = FlightTable(), make_entry(make_key(), clock)
    silent = await lead(table)
    table.land(entry, None)
    assert silent.entry is entry

    streamed = await lead(table)
    streamed.schema_tag = "test.v1"
    table.land(entry, None)
    assert not streamed.settled
    table.land(entry, None, streamed)
    assert streamed.entry is entry


async def test_landings_are_remembered(clock: ManualClock):
    """A lookup that was under way when an answer landed can tell; other keys are not disturbed."""
    table, address = FlightTable(), address_of(make_key())
    mark = table.mark()
    assert not table.landed_since(address, mark)
    table.land(make_entry(make_key(), clock), None)

    assert table.landed_since(address, mark)
    assert not table.landed_since(OTHER, mark)
    assert not table.landed_since(address, table.mark())


async def test_table_is_bounded(clock: ManualClock):
    """When there are too many flights nobody leads, and those that ended make room without anyone asking for them."""
    table = FlightTable(flights_max=2)
    addresses = [address_of(make_key(request=bytes([number]))) for number in range(4)]
    await lead(table, addresses[0], ttl_s=0.2)
    last = await lead(table, addresses[1], ttl_s=0.3)
    assert await table.join(addresses[2], SOON_S, 0) == Joined(None)

    assert await table.settlement(last, until())
    await lead(table, addresses[2])
    await lead(table, addresses[3])


async def test_forgotten_landings_count_as_landed(clock: ManualClock, monkeypatch):
    """When more has landed than is remembered, a lookup is told to look again rather than to lead in vain."""
    monkeypatch.setattr(flight_module, "LANDINGS_MAX", 2)
    table = FlightTable()
    mark = table.mark()
    for number in range(3):
        table.land(make_entry(make_key(request=bytes([number])), clock), None)

    assert table.landed_since(OTHER, mark)


async def test_lease_leads_its_own_address_only():
    """A lease is no key to another address, and none that was made up leads anything."""
    table = FlightTable()
    flight = await lead(table)

    assert await table.lead(flight.lease_id, KEY) is flight
    assert await table.lead(flight.lease_id, OTHER) is None
    assert await table.lead("made up", KEY) is None
