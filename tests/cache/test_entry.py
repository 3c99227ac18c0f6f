import msgspec

from services.cache.entry import Savings, decode, decode_outline, encode, encode_outline, parse_entry_id
from tests.cache.conftest import ManualClock, address_of, make_entry, make_key


def test_any_damage_is_noticed(clock: ManualClock):
    """Bytes of which one was changed, or some are missing or too many, are no entry."""
    entry = make_entry(make_key(), clock, chunks=(b"one", b"two"), tags=("kb",))
    whole = encode(entry)
    assert decode(whole, entry.address) == entry

    for position in range(len(whole)):
        damaged = bytearray(whole)
        damaged[position] ^= 0x10
        assert decode(bytes(damaged), entry.address) is None
        assert decode(whole[:position], entry.address) is None
    assert decode(whole + b"\x00", entry.address) is None


def test_wrong_address_is_noticed(clock: ManualClock):
    """A whole entry of another address is none."""
    entry = make_entry(make_key(), clock)

    assert decode(encode(entry), address_of(make_key("other"))) is None


def test_embedding_travels_without_the_answer(clock: ManualClock):
    """What a lookup reads has no embedding, what an index reads has no answer, and the rest is the same in both."""
    plain = make_entry(make_key(), clock)
    changes = {"compare_text": "How?", "embedding": b"\x00\x01", "embedding_version": "v1", "savings": Savings(1, 2)}
    entry = msgspec.structs.replace(plain, **changes)
    outline = encode_outline(entry)

    assert decode(encode(entry), entry.address) == msgspec.structs.replace(entry, embedding=b"")
    assert outline is not None
    assert decode_outline(outline) == msgspec.structs.replace(entry, chunks=(), savings=None)
    assert decode_outline(outline[:-1]) is None
    assert encode_outline(plain) is None


def test_entry_ids_are_read_or_refused(clock: ManualClock):
    """An id names the digest and the version it was made of; anything else is no id."""
    entry = make_entry(make_key(), clock)
    digest = entry.address.entry.hex()

    assert parse_entry_id(entry.entry_id) == (entry.address.entry, entry.nonce)
    for nonsense in ("", ".", digest, f"{digest}.", f"{digest[:-2]}.x", f"{'z' * 64}.x"):
        assert parse_entry_id(nonsense) is None
