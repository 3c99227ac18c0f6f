"""What uploads are checked for before inference is asked."""

from __future__ import annotations

import pytest

from services.edge.fault import Fault
from services.edge.jobs.files import _ttl


@pytest.mark.parametrize("seconds", ["10", "3599", "2592001", "1e9", "", "-3600", "9" * 30, None])
def test_a_time_that_is_out_of_bounds_is_refused_at_once(seconds: str | None) -> None:
    """An upload that inference refuses while it is written may lose the reason, and be told as cut: 503."""
    with pytest.raises(Fault) as caught:
        _ttl(seconds)
    assert (caught.value.status, caught.value.param) == (400, "expires_after[seconds]")
    assert "3600 to 2592000 seconds" in caught.value.message


@pytest.mark.parametrize("seconds", [3_600, 2_592_000])
def test_the_bounds_themselves_are_taken(seconds: int) -> None:
    """As inference has them."""
    assert _ttl(str(seconds)).seconds == seconds
