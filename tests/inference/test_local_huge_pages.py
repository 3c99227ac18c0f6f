"""Memory in huge pages: the same numbers, whatever the system makes of it."""

from __future__ import annotations

import mmap

import pytest
import torch

from kit.process import resident_mib
from services.inference.engines.local import huge_pages


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_zeros_are_zeros_that_can_be_written(dtype: torch.dtype) -> None:
    """Every number is 0 at first, and keeps what is written to it."""
    numbers = huge_pages.zeros(3_000_000, dtype)

    numbers[1_234_567] = 2.0

    assert numbers.dtype == dtype
    assert numbers.sum() == 2.0


def test_zeros_take_memory_when_they_are_written() -> None:
    """A cache for 512 MiB costs nothing before it is used."""
    before_mib = resident_mib()

    numbers = huge_pages.zeros(128 << 20, torch.float32)

    assert len(numbers) == 128 << 20
    assert resident_mib() - before_mib < 64


def test_zeros_do_without_huge_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """A system that knows no huge pages has the same zeros."""
    monkeypatch.delattr(mmap, "MADV_HUGEPAGE", raising=False)

    assert torch.equal(huge_pages.zeros(5, torch.float32), torch.zeros(5))


def test_collapsed_memory_keeps_its_numbers() -> None:
    """Moving memory changes no number, whether the system does it or refuses."""
    numbers = torch.arange(4 << 20)

    huge_pages.collapse(numbers.data_ptr(), numbers.nbytes)

    assert torch.equal(numbers, torch.arange(4 << 20))


def test_less_than_a_page_is_left_as_it_is() -> None:
    """Memory that holds no whole huge page needs none."""
    numbers = torch.ones(8)

    assert huge_pages.collapse(numbers.data_ptr(), numbers.nbytes)
