"""What a server process asks of the kernel."""

from __future__ import annotations

import resource


def raise_open_files() -> int:
    """Raises the limit of open files to the most that is allowed and returns it.

    Every stream holds a connection on each side; the usual soft limit of 1,024 would refuse the thousandth caller.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard
