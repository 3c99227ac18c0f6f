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
