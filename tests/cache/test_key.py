from hypothesis import given
from hypothesis import strategies as st

from services.cache.key import EntryKey, KeySpace, Namespace

PLAIN = KeySpace()
# Few letters and digests, so that fields are often equal, empty or a part of one another.
NAMES = st.text("ab\0", max_size=3)
DIGESTS = st.sampled_from([bytes([value]) * 32 for value in range(3)])
KEYS = st.builds(
    EntryKey,
    namespace=st.builds(Namespace, tenant=NAMES, user=st.none() | NAMES),
    model=NAMES,
    request_digest=DIGESTS,
    canonical_version=st.integers(1, 3),
    context_digest=DIGESTS | st.just(b""),
)


@given(KEYS, KEYS)
def test_addresses_are_equal_exactly_when_keys_are(one: EntryKey, other: EntryKey):
    """No two keys share an address, however their fields run into one another."""
    assert (PLAIN.address(one) == PLAIN.address(other)) == (one == other)
    assert (PLAIN.address(one).entry == PLAIN.address(other).entry) == (one == other)


@given(KEYS, KEYS)
def test_namespaces_are_apart(one: EntryKey, other: EntryKey):
    """Namespaces share a digest exactly when tenant and user are equal, and tenants when their names are."""
    assert (PLAIN.address(one).namespace == PLAIN.address(other).namespace) == (one.namespace == other.namespace)
    assert (PLAIN.address(one).tenant == PLAIN.address(other).tenant) == (
        one.namespace.tenant == other.namespace.tenant
    )


def test_address_is_pinned():
    """Digests stay as they are: a change would silently empty every cache, so it must be meant."""
    key = EntryKey(Namespace("acme", "ann"), "model", b"d" * 32, 1, b"c" * 32)

    assert PLAIN.address(key).entry.hex() == "2059f838f38377467171f3869fbd0c59a346ae881d9b588f2959b53616a080dd"


@given(KEYS)
def test_secrets_make_key_spaces_apart(key: EntryKey):
    """With another secret, or none, everything is somewhere else; with the same one it is where it was."""
    spaces = [KeySpace(), KeySpace(b"one secret of many"), KeySpace(b"another of as many")]
    addresses = [space.address(key) for space in spaces]

    for field in ("tenant", "namespace", "entry"):
        assert len({getattr(address, field) for address in addresses}) == 3
    assert KeySpace(b"one secret of many").address(key) == addresses[1]
