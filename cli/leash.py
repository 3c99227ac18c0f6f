"""Runs a module as a child that does not outlive its parent: `python -m cli.leash PARENT_PID MODULE [ARGUMENT]...`.

The kernel sends it SIGTERM when the parent dies, however that came about, so no service keeps a port after its terminal
was closed or its parent killed (Linux; elsewhere the module just runs). The child asks for this itself: done by the
parent between fork and exec, it would run gRPC's fork handlers, which can deadlock.
"""

from __future__ import annotations

import ctypes
import os
import runpy
import signal
import sys

# From <linux/prctl.h>: the signal that the kernel sends a process whose parent has died.
PR_SET_PDEATHSIG = 1


def main() -> None:
    """Takes the leash and becomes the module."""
    parent, module = int(sys.argv[1]), sys.argv[2]
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:
            sys.exit("the parent died before its child was up")
    del sys.argv[1:3]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
