from hypothesis import given
from hypothesis import strategies as st

from services.cache.key import EntryKey, Namespace

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
    assert (one.address() == other.address()) == (one == other)
    assert (one.address().entry == other.address().entry) == (one == other)


@given(KEYS, KEYS)
def test_namespaces_are_apart(one: EntryKey, other: EntryKey):
    """Namespaces share a digest exactly when tenant and user are equal, and tenants when their names are."""
    assert (one.address().namespace == other.address().namespace) == (one.namespace == other.namespace)
    assert (one.address().tenant == other.address().tenant) == (one.namespace.tenant == other.namespace.tenant)


def test_address_is_pinned():
    """Digests stay as they are: a change would silently empty every cache, so it must be meant."""
    key = EntryKey(Namespace("acme", "ann"), "model", b"d" * 32, 1, b"c" * 32)

    assert key.address().entry.hex() == "2059f838f38377467171f3869fbd0c59a346ae881d9b588f2959b53616a080dd"
