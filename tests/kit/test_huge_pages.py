"""Huge pages: the memory of a process moves, and what is in it stays."""

import mmap

import numpy as np

from kit.huge_pages import HUGE_PAGE_BYTES, collapse_all


def test_what_is_in_memory_stays():
    """Numbers that lie in many small pages are the same behind the move, also where only a part of a page is theirs."""
    memory = mmap.mmap(-1, 3 * HUGE_PAGE_BYTES + mmap.PAGESIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    numbers = np.frombuffer(memory, np.int64)
    numbers[:] = np.arange(len(numbers))
    collapse_all()

    assert np.array_equal(numbers, np.arange(len(numbers)))


def test_a_system_without_such_pages_is_left_as_it_is(tmp_path, monkeypatch):
    """Where the system does not tell what memory there is, nothing happens."""
    monkeypatch.setattr("kit.huge_pages.MAPS", tmp_path / "maps")

    collapse_all()
