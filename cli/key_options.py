"""What `millrace keys` and `millrace users` may be told; `cli.keys` does it."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from typing import Any

ROLES = ("admin", "user", "guest", "service")
_SPAN = re.compile(r"([1-9][0-9]{0,8})([smhd])")
_SECONDS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}

Add = Callable[[argparse.ArgumentParser], None]


def add_keys(commands: Any, add_reach: Add) -> argparse.ArgumentParser:
    """Adds `millrace keys`; `add_reach` adds the options that say where inference is and who asks."""
    keys: argparse.ArgumentParser = commands.add_parser("keys", help="make, list, revoke and rotate keys")
    actions = keys.add_subparsers(required=True, metavar="WHAT")
    create = actions.add_parser("create", help="make a key and print it, this once")
    create.add_argument("name", help="what it is for")
    _add_person(create)
    create.add_argument("--principal", default="", help="who acts within the tenant (default: the key)")
    for scope, what in (("model", "model, or a prefix and *"), ("endpoint", "endpoint"), ("profile", "safety profile")):
        create.add_argument(f"--{scope}", action="append", default=[], help=f"{what} that it may use; repeat for more")
    create.add_argument("--expires", type=seconds, metavar="SPAN", help="how long it works, as 30d or 12h")
    rotate = actions.add_parser("rotate", help="give a key a new secret and print it, this once")
    rotate.add_argument("key_id")
    rotate.add_argument("--overlap", type=seconds, default=0, metavar="SPAN", help="how long the old secret works on")
    revoke = actions.add_parser("revoke", help="end a key at once and for good")
    revoke.add_argument("key_id")
    listing = actions.add_parser("list", help="list keys, newest first")
    for name, command in (("create", create), ("rotate", rotate), ("revoke", revoke), ("list", listing)):
        add_reach(command)
        command.set_defaults(act=f"keys {name}")
    secret = actions.add_parser("secret", help="print a fresh secret for MILLRACE_INFERENCE_ACCESS_ADMIN_KEY")
    secret.set_defaults(act="keys secret")
    return keys


def add_users(commands: Any, add_reach: Add) -> argparse.ArgumentParser:
    """Adds `millrace users`."""
    users: argparse.ArgumentParser = commands.add_parser("users", help="add, list and disable users who log in")
    actions = users.add_subparsers(required=True, metavar="WHAT")
    add = actions.add_parser("add", help="add a user; the password is asked for, or read from a pipe")
    add.add_argument("name")
    _add_person(add)
    disable = actions.add_parser("disable", help="let a user log in no more")
    disable.add_argument("name")
    listing = actions.add_parser("list", help="list users by name")
    for name, command in (("add", add), ("disable", disable), ("list", listing)):
        add_reach(command)
        command.set_defaults(act=f"users {name}")
    return users


def seconds(text: str) -> int:
    """Reads a span such as 90s, 15m, 12h or 30d.

    Raises:
        argparse.ArgumentTypeError: It is none.
    """
    match = _SPAN.fullmatch(text)
    if match is None:
        raise argparse.ArgumentTypeError("must be like 90s, 15m, 12h or 30d")
    return int(match[1]) * _SECONDS[match[2]]


def _add_person(command: argparse.ArgumentParser) -> None:
    command.add_argument("--role", choices=ROLES, default="user")
    command.add_argument("--tenant", default="", help="who pays (default: default)")
    command.add_argument("--tier", default="", help="name of the limits (default: those of the role)")
