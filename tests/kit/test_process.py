"""What a server process asks of the kernel, and of its own interpreter."""

from __future__ import annotations

import gc
import mmap
import subprocess
import sys

from kit.process import give_memory_back, resident_mib


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
    with mmap.mmap(-1, 64 << 20) as taken:  # what is freed and held on to cannot be given for it
        before = resident_mib()
        for page in range(0, len(taken), mmap.PAGESIZE):
            taken[page] = 1

        assert 32 < resident_mib() - before < 200


def test_the_collector_leaves_alone_what_was_there_and_finds_what_comes() -> None:
    """What a service holds when it begins to serve is no longer gone through; a cycle made later is still collected."""
    code = """
import gc, weakref
from kit.process import calm_collector

class Node:
    pass

calm_collector()
assert gc.get_freeze_count() > 1_000 > len(gc.get_objects())
node = Node()
node.itself, found = node, weakref.ref(node)
del node
made = []
while found() is not None:
    assert len(made) < 1_000_000
    made.append([])
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_what_was_let_go_is_given_back() -> None:
    """Memory that only a cycle holds, and that the collector has not come to, is the system's again."""

    class Holder:
        def __init__(self) -> None:
            self.itself = self
            self.parts = [bytes(60_000) for _ in range(2_000)]

    gc.disable()
    try:
        Holder()
        before_mib = resident_mib()
        give_memory_back()
    finally:
        gc.enable()

    assert before_mib - resident_mib() > 60


def test_a_process_leaves_while_a_thread_is_in_a_library() -> None:
    """Where Python's own end aborts, it exits as it was told to, and what it had printed is there."""
    code = """
import sys, threading, torch
from kit.process import leave

inside = threading.Event()

def compute():
    square = torch.ones(800, 800)
    while True:
        inside.set()
        torch.mm(square, square)

threading.Thread(target=compute, daemon=True).start()
inside.wait()
print("stopped")
leave(7)
"""
    ended = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)

    assert (ended.returncode, ended.stdout, ended.stderr) == (7, "stopped\n", "")
