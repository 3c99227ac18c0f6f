"""Where measurements are printed."""

from __future__ import annotations

import os
import sys

from rich.console import Console

# Of a file or a pipe: wider than any table here, so that no name and no number is cut.
FILE_COLUMNS = 160


def console() -> Console:
    """Prints to a terminal as wide as that is; elsewhere nothing tells how wide, unless COLUMNS does."""
    is_known = sys.stdout.isatty() or "COLUMNS" in os.environ
    return Console(width=None if is_known else FILE_COLUMNS)
