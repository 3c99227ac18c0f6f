"""Huge pages: the memory of a process moves, and what is in it stays."""

import mmap

import numpy as np

from kit.huge_pages import HUGE_PAGE_BYTES, collapse, collapse_all


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


def test_collapsed_memory_keeps_its_numbers():
    """Moving a part of memory changes no number, whether the system does it or refuses."""
    numbers = np.arange(4 << 20)

    collapse(numbers.ctypes.data, numbers.nbytes)

    assert np.array_equal(numbers, np.arange(4 << 20))


def test_less_than_a_page_is_left_as_it_is():
    """Memory that holds no whole huge page needs none."""
    numbers = np.ones(8)

    assert collapse(numbers.ctypes.data, numbers.nbytes)
