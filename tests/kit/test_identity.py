from __future__ import annotations

import asyncio
import time
from contextlib import suppress

import pytest

from kit import identity
from kit.errors import InvalidArgument
from kit.identity import CallContext, Caller, Role


def test_outside_of_a_call_everybody_is_anonymous() -> None:
    """There is always an identity; a made one has a request id of its own."""
    first, second = identity.current(), identity.current()

    assert identity.active() is None
    assert (first.tenant, first.principal, first.deadline) == ("default", "anonymous", None)
    assert first.request_id != second.request_id


def test_a_context_is_current_for_its_block_only() -> None:
    """The one before is back afterwards, also after an error."""
    outer, inner = CallContext("outer"), CallContext("inner")
    with identity.use(outer):
        with suppress(ValueError), identity.use(inner):
            assert identity.current() is inner
            raise ValueError("x")
        assert identity.current() is outer
    assert identity.active() is None


async def test_concurrent_tasks_keep_their_own_context() -> None:
    """What one call's task enters, another's never sees."""
    both_entered = asyncio.Barrier(2)

    async def serve(request_id: str) -> str:
        identity.enter(CallContext(request_id))
        await both_entered.wait()
        return identity.current().request_id

    assert await asyncio.gather(serve("a"), serve("b")) == ["a", "b"]


def test_remaining_time_is_that_of_the_deadline() -> None:
    """Without a deadline it is the default; after it, 0 and never less."""
    assert identity.remaining_s(7.0) == 7.0
    with identity.use(CallContext("r", deadline=None)):
        assert identity.remaining_s(7.0) == 7.0
    with identity.use(CallContext("r", deadline=time.monotonic() + 100)):
        assert 99 < identity.remaining_s(7.0) <= 100
        assert identity.at_most_s(7.0) == 7.0
    with identity.use(CallContext("r", deadline=time.monotonic() + 1)):
        assert 0 < identity.at_most_s(7.0) <= 1
    with identity.use(CallContext("r", deadline=time.monotonic() - 1)):
        assert identity.remaining_s(7.0) == 0.0


def test_work_that_outlives_its_caller_keeps_who_it_was_for() -> None:
    """The deadline goes; the ids stay."""
    with identity.use(CallContext("r", "acme", "ada", time.monotonic() - 1)), identity.outlive() as context:
        assert context == identity.current() == CallContext("r", "acme", "ada", None)


def test_metadata_carries_a_context_and_back() -> None:
    """All but the deadline, which travels as grpc's timeout."""
    context = CallContext("r:1", "acme", "ada@x")

    assert identity.from_metadata(identity.to_metadata(context)) == context


@pytest.mark.parametrize("bad", ["", "a b", "x" * 129, "é", "a\nb", "../x"])
def test_a_request_id_that_is_not_sane_is_replaced(bad: str) -> None:
    """Whatever would break a header or a log line gets a fresh id."""
    made = identity.sane_request_id(bad)

    assert made != bad
    assert identity.sane_request_id(made) == made


@pytest.mark.parametrize("good", ["a", "0af7-19.c_d:e", "x" * 128])
def test_a_sane_request_id_is_kept(good: str) -> None:
    """The caller's id is the one that it will look for."""
    assert identity.sane_request_id(good) == good


@pytest.mark.parametrize("key", ["x-millrace-tenant", "x-millrace-principal"])
@pytest.mark.parametrize("bad", ["", "a b", "x" * 257, "é"])
def test_a_name_that_is_none_is_refused(key: str, bad: str) -> None:
    """A tenant that cannot be read is an error and never the default tenant."""
    with pytest.raises(InvalidArgument) as caught:
        identity.from_metadata([(key, bad)])

    assert caught.value.reason == "IDENTITY_INVALID"
    assert caught.value.field_violations[0].field == key


@pytest.mark.parametrize(
    ("role", "trusted"),
    [("admin", True), ("service", True), ("user", False), ("guest", False), ("anonymous", False)],
)
def test_only_services_and_administrators_act_for_others(role: Role, trusted: bool) -> None:
    """Everybody else is who the credential says, and nobody in particular is nobody's deputy."""
    assert Caller("ada", "acme", role).is_trusted is trusted
    assert not CallContext("r").caller.is_trusted
