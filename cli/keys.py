"""`millrace keys` and `millrace users`: who may call, administered over gRPC with an administrator's key.

A secret is printed alone on standard output, so that a script can take it; everything else goes beside it.
"""

from __future__ import annotations

import argparse
import getpass
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import grpc

from cli.answers import metadata_of, reason_of
from cli.errors import CommandError
from cli.proxies import DIRECT
from millrace.inference.v1 import access_service_pb2 as access
from millrace.inference.v1 import key_pb2, key_service_pb2
from millrace.inference.v1.access_service_pb2_grpc import AccessServiceStub
from millrace.inference.v1.key_service_pb2_grpc import KeyServiceStub

TIMEOUT_S = 10.0
PAGE_SIZE = 100


def run(args: argparse.Namespace) -> int:
    """Runs what `key_options` read."""
    acts: dict[str, Callable[[argparse.Namespace], int]] = {
        "keys create": _create,
        "keys rotate": _rotate,
        "keys revoke": _revoke,
        "keys list": _list,
        "keys secret": _secret,
        "users add": _add_user,
        "users disable": _disable_user,
        "users list": _list_users,
    }
    return acts[args.act](args)


def _create(args: argparse.Namespace) -> int:
    key = key_pb2.Key(
        name=args.name,
        role=_role(args.role),
        tenant=args.tenant,
        principal=args.principal,
        tier=args.tier,
        models=args.model,
        endpoints=args.endpoint,
        safety_profiles=args.profile,
    )
    if args.expires:
        key.expire_time.GetCurrentTime()
        key.expire_time.seconds += args.expires
    with _asking(args) as channel:
        made = _ask(args, KeyServiceStub(channel).CreateKey, key_service_pb2.CreateKeyRequest(key=key))
    return _show(made.key, made.secret)


def _rotate(args: argparse.Namespace) -> int:
    request = key_service_pb2.RotateKeyRequest(key_id=args.key_id)
    request.overlap.seconds = args.overlap
    with _asking(args) as channel:
        made = _ask(args, KeyServiceStub(channel).RotateKey, request)
    return _show(made.key, made.secret)


def _revoke(args: argparse.Namespace) -> int:
    with _asking(args) as channel:
        answer = _ask(args, KeyServiceStub(channel).RevokeKey, key_service_pb2.RevokeKeyRequest(key_id=args.key_id))
    print(f"{answer.key.key_id} ({answer.key.name}) is revoked")
    return 0


def _list(args: argparse.Namespace) -> int:
    rows: list[tuple[str, ...]] = [("ID", "NAME", "KEY", "ROLE", "TENANT", "TIER", "STATE")]
    request = key_service_pb2.ListKeysRequest(page_size=PAGE_SIZE)
    with _asking(args) as channel:
        while True:
            page = _ask(args, KeyServiceStub(channel).ListKeys, request)
            rows += [_row(key) for key in page.keys]
            if not page.next_page_token:
                break
            request.page_token = page.next_page_token
    return _table(rows)


def _secret(_: argparse.Namespace) -> int:
    from services.inference.access.secret import new_secret

    print(new_secret())
    return 0


def _add_user(args: argparse.Namespace) -> int:
    password = (
        getpass.getpass(f"Password of {args.name}: ") if sys.stdin.isatty() else sys.stdin.readline().rstrip("\n")
    )
    user = access.User(name=args.name, tenant=args.tenant, role=_role(args.role), tier=args.tier)
    with _asking(args) as channel:
        request = access.CreateUserRequest(user=user, password=password)
        made = _ask(args, AccessServiceStub(channel).CreateUser, request).user
    print(f"{made.name} may log in, as {_word(made.role)} of tenant {made.tenant}")
    return 0


def _disable_user(args: argparse.Namespace) -> int:
    with _asking(args) as channel:
        _ask(args, AccessServiceStub(channel).DisableUser, access.DisableUserRequest(name=args.name))
    print(f"{args.name} may not log in any more")
    return 0


def _list_users(args: argparse.Namespace) -> int:
    rows: list[tuple[str, ...]] = [("NAME", "ROLE", "TENANT", "TIER", "STATE")]
    request = access.ListUsersRequest(page_size=PAGE_SIZE)
    with _asking(args) as channel:
        while True:
            page = _ask(args, AccessServiceStub(channel).ListUsers, request)
            for user in page.users:
                state = "disabled" if user.HasField("disable_time") else "active"
                rows.append((user.name, _word(user.role), user.tenant, user.tier, state))
            if not page.next_page_token:
                break
            request.page_token = page.next_page_token
    return _table(rows)


@contextmanager
def _asking(args: argparse.Namespace) -> Iterator[grpc.Channel]:
    from cli.layout import Layout

    with grpc.insecure_channel(args.target or Layout.load().inference_target, DIRECT) as channel:
        yield channel


def _ask(args: argparse.Namespace, method: Any, request: Any) -> Any:
    """Makes one call; what goes wrong is one line, and says where a key comes from if that is what is missing."""
    try:
        return method(request, timeout=TIMEOUT_S, metadata=metadata_of(args.api_key))
    except grpc.RpcError as error:
        reason, details = reason_of(error), error.details()
        if reason == "UNAVAILABLE":
            raise CommandError("nothing answers: is `millrace up` running?") from error
        hint = "; set MILLRACE_API_KEY to an administrator's key" if not args.api_key else ""
        raise CommandError(f"{reason}: {details}{hint}") from error


def _show(key: key_pb2.Key, secret: str) -> int:
    print(f"{key.key_id} ({key.name}, {_word(key.role)} of tenant {key.tenant}); shown this once:", file=sys.stderr)
    print(secret)
    return 0


def _row(key: key_pb2.Key) -> tuple[str, ...]:
    state = "active"
    if key.HasField("expire_time"):
        state = f"until {key.expire_time.ToDatetime():%Y-%m-%d %H:%M} UTC"
    if key.HasField("revoke_time"):
        state = "revoked"
    return key.key_id, key.name, f"{key.prefix}...", _word(key.role), key.tenant, key.tier, state


def _table(rows: list[tuple[str, ...]]) -> int:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        print("  ".join(f"{text:<{width}}" for text, width in zip(row, widths, strict=True)).rstrip())
    return 0


def _role(word: str) -> Any:
    return key_pb2.KeyRole.Value(f"KEY_ROLE_{word.upper()}")


def _word(role: Any) -> str:
    return str(key_pb2.KeyRole.Name(role)).removeprefix("KEY_ROLE_").lower()
