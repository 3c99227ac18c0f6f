from services.cache.hot_entries import HotEntries
from tests.cache.conftest import ManualClock, make_entry, make_key


def test_least_recently_used_leaves(clock: ManualClock):
    """Bytes are bounded, and what was asked for longest ago leaves."""
    hot = HotEntries(bytes_max=30)
    one, two, three, four = (make_entry(make_key(request=bytes([number])), clock) for number in range(1, 5))
    for entry in (one, two, three):
        hot.put(entry, 10, hot.epoch)
    assert hot.get(one.address) is one
    hot.put(four, 10, hot.epoch)

    assert [hot.get(entry.address) for entry in (one, two, three, four)] == [one, None, three, four]


def test_what_is_too_large_is_not_held(clock: ManualClock):
    """An entry larger than all the room is not held, and drives nothing out."""
    hot = HotEntries(bytes_max=30)
    small, large = make_entry(make_key(), clock), make_entry(make_key("other"), clock)
    hot.put(small, 10, hot.epoch)
    hot.put(large, 31, hot.epoch)

    assert hot.get(large.address) is None
    assert hot.get(small.address) is small


def test_entry_read_before_a_deletion_is_turned_away(clock: ManualClock):
    """An entry that was read just before something was forgotten is not remembered: it might be that very one."""
    hot = HotEntries(bytes_max=30)
    entry = make_entry(make_key(), clock)
    epoch = hot.epoch
    hot.forget([entry.address.entry])
    hot.put(entry, 10, epoch)

    assert hot.get(entry.address) is None


def test_replaced_entry_counts_once(clock: ManualClock):
    """An entry put again takes the room of one."""
    hot = HotEntries(bytes_max=30)
    entries = [make_entry(make_key(), clock) for _ in range(9)]
    other = make_entry(make_key("other"), clock)
    hot.put(other, 10, hot.epoch)
    for entry in entries:
        hot.put(entry, 20, hot.epoch)

    assert hot.get(other.address) is other
    assert hot.get(entries[0].address) is entries[-1]


def test_uses_are_handed_over_once(clock: ManualClock):
    """Each entry is handed over once with how often it was used, in parts if there are many."""
    hot = HotEntries(bytes_max=0)
    entries = [make_entry(make_key(request=bytes([number])), clock) for number in range(3)]
    for entry in entries * 2:
        hot.put(entry, 10, hot.epoch)

    first, rest = hot.take_uses(2), hot.take_uses(2)
    assert (len(first), len(rest)) == (2, 1)
    assert dict(first + rest) == {entry.address.entry: 2 for entry in entries}
    assert hot.take_uses(2) == []
