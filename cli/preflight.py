"""Finds out whether the suite can start, before anything does, and says in one line what to do where it cannot."""

from __future__ import annotations

import errno
import itertools
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from cli.child import Part, hold, log_path
from cli.errors import CommandError

_EVERYWHERE = {"0.0.0.0", "::"}
# Ports below this one are the system's.
_FREE_FROM = 1024


class PortInUse(CommandError):
    """A port that a service needs is taken."""


def check(parts: Sequence[Part], log_dir: Path | None) -> None:
    """Makes sure that every service can have its port and its log file.

    Raises:
        PortInUse: Something else listens on a port.
        CommandError: Any other reason.
    """
    for one, other in itertools.combinations(parts, 2):
        _check_apart(one, other)
    for part in parts:
        _check_port(part)
    if log_dir is not None:
        for part in parts:
            _check_log(log_path(part, log_dir))


def _check_apart(one: Part, other: Part) -> None:
    """The kernel would let two services of one user share a port, and give each about half of the calls."""
    if one.port != other.port or not one.port:
        return
    if one.host == other.host or _EVERYWHERE & {one.host, other.host}:
        raise CommandError(
            f"{one.name} and {other.name} cannot share port {one.port}: "
            f"set {one.port_variable} or {other.port_variable} to another"
        )


def _check_port(part: Part) -> None:
    """Binds the port for a moment."""
    if part.port == 0:
        raise CommandError(f"{part.port_variable} is 0: here the services must know each other's ports")
    family = socket.AF_INET6 if ":" in part.host else socket.AF_INET
    try:
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((part.host, part.port))
    except OSError as error:
        raise _explain(part, error) from error


def _explain(part: Part, error: OSError) -> CommandError:
    """Says which variable moves the service to where it can listen."""
    another = part.port + 1000 if _FREE_FROM <= part.port + 1000 <= 65535 else 8080
    advice = f"{part.port_variable}={another} millrace up"
    if error.errno == errno.EADDRINUSE:
        return PortInUse(
            f"Port {part.port}, which {part.name} needs, is in use. Stop what listens there, or choose another: "
            f"{advice}"
        )
    if error.errno == errno.EACCES:
        return CommandError(
            f"{part.name} may not listen on port {part.port}: {error.strerror}. Ports below {_FREE_FROM} are the "
            f"system's; choose another: {advice}"
        )
    return CommandError(
        f"{part.name} cannot listen on {part.host}: {error.strerror}. Set {part.host_variable} to an address of this "
        "machine: 127.0.0.1 for callers on it, 0.0.0.0 for all"
    )


def _check_log(log: Path) -> None:
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as file:
            _check_free(file)
    except OSError as error:
        raise CommandError(
            f"{log} cannot be written: {error.strerror}. Make {log.parent} a folder that you may write to, or start "
            "in another place"
        ) from error


def _check_free(log: IO[bytes]) -> None:
    """A suite that runs would lose what it has logged, and both would write where the other does."""
    try:
        hold(log)
    except BlockingIOError as error:
        raise CommandError(
            f"{log.name} is written by a suite that runs. Stop it, or start this one in another folder"
        ) from error
    except OSError:  # a file system without locks
        return
