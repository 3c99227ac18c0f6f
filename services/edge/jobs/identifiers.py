"""OpenAI's ids, which say by their prefix what they name, and the bare ids behind them."""

from __future__ import annotations

import re

from services.edge.fault import Fault

FILE, OUTPUT, ERRORS = "file-", "file-out-", "file-err-"
BATCH, RESPONSE = "batch_", "resp_"
_BARE = re.compile(r"[0-9a-f]{32}")


def bare(given: str, prefix: str, what: str, param: str = "") -> str:
    """The id behind a prefix.

    Args:
        given: The id as the caller has it.
        prefix: What such ids begin with.
        what: What it names, in the caller's word.
        param: Where the caller gave it, if not in the path.

    Raises:
        Fault: 404: it is none, and so nothing that there could be.
    """
    name = given.removeprefix(prefix)
    if name == given or not _BARE.fullmatch(name):
        message = f"There is no {what} {given[:80]!r} of yours."
        raise Fault(404, message, param=param or f"{what}_id", code=f"{what}_not_found")
    return name
