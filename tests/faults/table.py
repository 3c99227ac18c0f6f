"""The page of faults, made of what the wall proves: `python -m tests.faults.table docs/faults.md` writes it."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.faults.fault import Fault
from tests.faults.faults import GROUPS

HEAD = """\
# What happens when an upstream fails

<!-- Written by `make docs-faults` from tests/faults/; do not edit. -->

Each line is a fault that the test suite brings about on real sockets. It is met by calls over gRPC and over REST,
streamed and whole, once with the upstream alone and once with a healthy one behind it; `tests/faults/test_wall.py`
checks every cell, and that afterwards no connection, task, queue place or slot is left.

- **gRPC**, **REST**: how the call ends with this upstream alone. A stream of which text has left before the fault ends
  with an error within it: a status over gRPC; over REST, after a status of 200, an `error` object and no `[DONE]`.
- **Tries**: how often the upstream is asked where it is alone and nothing has left, with `retries_max: 1`. A fault that
  a moment cannot cure, or that asks for a longer wait than the call has, is not tried again.
- **Behind it**: what the caller gets where a healthy upstream follows. Once text has left, the upstream never changes.
- **Breaker**: its state after the fault where one failure is enough to open it (`failures_in_a_row: 1`).
- **Wait**: what bounds the time until the caller knows. "At once" is as fast as the upstream fails.
"""
COLUMNS = ("The upstream", "gRPC", "REST", "Tries", "Behind it", "Breaker", "Wait")


def render() -> str:
    """The whole page."""
    return "\n".join([HEAD, *(line for name, faults in GROUPS.items() for line in _section(name, faults))])


def _section(name: str, faults: tuple[Fault, ...]) -> Iterator[str]:
    yield f"## {name}\n"
    yield _row(COLUMNS)
    yield _row(["---"] * len(COLUMNS))
    for fault in faults:
        ends = (_grpc(fault), _rest(fault), str(fault.tries), _behind(fault))
        yield _row((fault.says, *ends, "open" if fault.opens else "closed", fault.wait.value))
    yield ""


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _grpc(fault: Fault) -> str:
    code, _, reason = fault.outcome("gRPC").partition(" ")
    if fault.is_harmless:
        return "OK, usage estimated" if fault.estimated else "OK"
    return f"{code} `{reason}`"


def _rest(fault: Fault) -> str:
    if fault.is_harmless:
        return "200"
    status, _, word = fault.outcome("REST").partition(" ")
    return f"{status} `{word}`" + ("; stream: 200, then the error" if fault.begun else "")


def _behind(fault: Fault) -> str:
    if fault.is_harmless:
        return "not needed"
    if not fault.spared:
        return "not asked"
    return "answers; stream: not asked" if fault.begun else "answers"


def main() -> None:
    """Writes the page into the file that is named."""
    Path(sys.argv[1]).write_text(render(), encoding="utf-8")


if __name__ == "__main__":
    main()
