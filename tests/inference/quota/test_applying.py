"""Which limits hold for whom."""

from __future__ import annotations

import pytest
import yaml

from kit.document import load_yaml
from kit.errors import ConfigError, InvalidArgument
from kit.identity import Caller
from services.inference.quota.applying import REMEMBERED_MAX, Applying
from services.inference.quota.limit import Unit, Window
from services.inference.quota.settings import BUILT_IN_FILE
from services.inference.quota.tiers import QuotaRules

RULES = """
tiers:
  free: {user: {requests_per_minute: 5}}
  team:
    key: {concurrent_requests: 2}
    user: {requests_per_minute: 600, requests_burst: 10, tokens_per_day: 1000, usd_per_month: 0.5}
  public: {client: {requests_per_minute: 3}}
roles: {user: free, anonymous: public}
tenants: {acme: {tokens_per_month: 77}, "*": {tokens_per_minute: 99}}
named: {chat-limited: {client: {requests_per_minute: 30}}}
"""


def rules(text: str = RULES) -> QuotaRules:
    return QuotaRules.model_validate({"version": 1, **yaml.safe_load(text)})


def names(caller: Caller, named: str = "", applying: Applying | None = None) -> list[str]:
    limits = (applying or Applying(rules())).limits_of(caller, named)
    return [f"{limit.subject} {limit.name} {limit.maximum}" for limit in limits]


def test_a_tier_limits_keys_and_users_apart() -> None:
    """A key's own limits hold beside those of its user, and those of the tenant beside both."""
    caller = Caller("alice", "acme", "user", key_id="k1", tier="team")

    assert names(caller) == [
        "key:k1 key_concurrent_requests 2",
        "user:alice user_requests_per_minute 600",
        "user:alice user_tokens_per_day 1000",
        "user:alice user_usd_per_month 500000",
        "tenant:acme tenant_tokens_per_month 77",
    ]


def test_bursts_units_and_windows() -> None:
    """Money is counted in millionths of a dollar, a burst may be smaller than a minute's worth."""
    limits = Applying(rules()).limits_of(Caller("alice", "acme", "user", tier="team"), "")

    assert [(one.unit, one.window, one.burst) for one in limits] == [
        (Unit.REQUESTS, Window.MINUTE, 10),
        (Unit.TOKENS, Window.DAY, 1000),
        (Unit.MICRO_USD, Window.MONTH, 500_000),
        (Unit.TOKENS, Window.MONTH, 77),
    ]


@pytest.mark.parametrize(
    ("caller", "expected"),
    [
        (Caller("bob", "other", "user"), ["user:bob user_requests_per_minute 5"]),
        (Caller("bob", "other", "user", tier="gone"), ["user:bob user_requests_per_minute 5"]),
        (Caller("root", "other", "admin"), []),
        (Caller("root", "other", "admin", tier="free"), ["user:root user_requests_per_minute 5"]),
        (Caller(tenant="other", client_id="10.0.0.1"), ["client:10.0.0.1 client_requests_per_minute 3"]),
        (Caller("bob", "other", "user", client_id="x"), ["user:bob user_requests_per_minute 5"]),
    ],
)
def test_the_tier_is_the_callers_or_its_roles(caller: Caller, expected: list[str]) -> None:
    """The caller's tier comes first, then its role's; who is known gets no more by a client id of its own making."""
    assert names(caller) == [*expected, "tenant:other tenant_tokens_per_minute 99"]


def test_a_named_limit_counts_client_ids_beside_the_rest() -> None:
    """The limit that a request names holds per client id, of the known and the unknown; without one per principal."""
    assert "chat-limited:client:c1 chat_limited_client_requests_per_minute 30" in names(
        Caller(client_id="c1"), "chat-limited"
    )
    assert "chat-limited:client:bob chat_limited_client_requests_per_minute 30" in names(
        Caller("bob", role="user"), "chat-limited"
    )


def test_an_unknown_named_limit_is_refused() -> None:
    """A limit that is not in the file is no limit: the request that names it is wrong."""
    with pytest.raises(InvalidArgument, match="chat-limited"):
        names(Caller(), "nope")


def test_keys_tell_no_names_and_subjects_share_none() -> None:
    """What a store sees is a digest, another for each kind, subject and limit."""
    applying = Applying(rules())
    callers = [Caller("alice", "acme", "user"), Caller("bob", "acme", "user"), Caller(client_id="alice")]
    keys = [limit.key for caller in callers for limit in applying.limits_of(caller, "")[:1]]

    assert len(set(keys)) == 3
    assert not [key for key in keys if "alice" in key or "bob" in key]


def test_no_more_callers_are_remembered_than_bounded() -> None:
    """Invented client ids do not pile up in memory."""
    applying = Applying(rules())
    for number in range(REMEMBERED_MAX + 10):
        applying.limits_of(Caller(client_id=str(number)), "")

    assert len(applying._remembered) <= REMEMBERED_MAX


def test_the_built_in_tiers() -> None:
    """Free 5, premium 20 a minute, chat-limited 30; whoever shows no key, admins and services are not limited."""
    applying = Applying(load_yaml(BUILT_IN_FILE, QuotaRules))

    assert names(Caller("a", role="user"), applying=applying) == ["user:a user_requests_per_minute 5"]
    assert names(Caller("a", role="user", tier="premium"), applying=applying) == ["user:a user_requests_per_minute 20"]
    assert names(Caller(client_id="c"), "chat-limited", applying) == [
        "chat-limited:client:c chat_limited_client_requests_per_minute 30"
    ]
    for caller in (Caller(), Caller("a", role="admin"), Caller("a", role="service")):
        assert names(caller, applying=applying) == []


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("version: 1\ntiers: {a: {user: {requests_per_minute: 0}}}", "quotas.yaml:2: tiers.a.user.requests_per_minute"),
        ("version: 1\ntiers: {a: {user: {requests_burst: 3}}}", "requests_burst needs requests_per_minute"),
        ("version: 1\nroles: {user: free}", "tier 'free' is not under `tiers`"),
        ("version: 1\ntiers: {a: {usr: {}}}", "there is no such field (allowed: client, key, user)"),
        ("version: 1\ntiers: {a: {user: {usd_per_day: -1}}}", "usd_per_day"),
    ],
)
def test_bad_files_are_refused_by_line_and_field(tmp_path, text: str, complaint: str) -> None:
    """A wrong limit stops the start, with the place and the cure."""
    path = tmp_path / "quotas.yaml"
    path.write_text(text)

    with pytest.raises(ConfigError) as caught:
        load_yaml(path, QuotaRules)

    assert complaint in caught.value.message
