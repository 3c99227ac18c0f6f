"""What a server process asks of the kernel, and of its own interpreter."""

from __future__ import annotations

import ctypes
import gc
import logging
import os
import resource
import sys
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

# By default the youngest objects are gone through after 700, which a single request makes: nearly all of them are still
# in use then, and the search was for nothing.
_YOUNG_COUNT = 10_000


def calm_collector() -> None:
    """Keeps the garbage collector away from what was there when a service began to serve: call it once, then.

    Modules, models and settings stay for good, and yet each full collection looks at all of them: 70 ms in which an
    inference process answers nobody. What is made later is collected as ever, in larger portions.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG_COUNT, *gc.get_threshold()[1:])


def give_memory_back() -> None:
    """Collects all garbage and returns what is free to the system: for when something large has been let go.

    The calmed collector would find cycles much later, and the allocator keeps what it has, in case.
    """
    gc.collect()
    with suppress(AttributeError, OSError, TypeError):  # not the GNU C library
        ctypes.CDLL(None).malloc_trim(0)


def leave(code: int) -> NoReturn:
    """Ends the process now: what was logged and printed is written, threads are not asked.

    Python's own end stops a thread that returns from a native library in the middle of that library's code, which
    aborts the process: a service that is stopped while a model is being loaded would count as crashed.
    """
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):  # nobody reads any more
            stream.flush()
    os._exit(code)


def raise_open_files() -> int:
    """Raises the limit of open files to the most that is allowed and returns it.

    Every stream holds a connection on each side; the usual soft limit of 1,024 would refuse the thousandth caller.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def resident_mib() -> int:
    """Memory that this process holds now, in MiB; where the kernel does not say, the most that it ever held."""
    with suppress(OSError):
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") >> 20
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # in KiB, but in bytes on macOS
    return peak >> (20 if sys.platform == "darwin" else 10)
