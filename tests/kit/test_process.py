"""What a server process asks of the kernel."""

from __future__ import annotations

import subprocess
import sys

from kit.process import resident_mib


def test_open_files_are_raised_to_the_hard_limit() -> None:
    """A process that starts with a low soft limit gets all that the hard one allows."""
    code = (
        "import resource as r; from kit.process import raise_open_files;"
        "r.setrlimit(r.RLIMIT_NOFILE, (64, 512)); assert raise_open_files() == 512;"
        "assert r.getrlimit(r.RLIMIT_NOFILE) == (512, 512)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_resident_memory_is_told() -> None:
    """What is held now grows with what is taken."""
    before = resident_mib()
    taken = bytearray(64 << 20)

    assert 32 < resident_mib() - before < 200
    assert len(taken) == 64 << 20
