"""The command lines of `millrace backup` and `millrace restore`."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

PARTS = ("database", "cache")


def add(
    commands: Any, backup: Callable[[argparse.Namespace], int], restore: Callable[[argparse.Namespace], int]
) -> None:
    """Adds both commands, and what each of them runs."""
    away = commands.add_parser("backup", help="copy ledger, keys, jobs, files and cache into a folder, while in use")
    away.add_argument("folder", type=Path, help="a new folder")
    away.add_argument("--only", choices=PARTS, help="leave the other out")
    away.set_defaults(run=backup)

    back = commands.add_parser("restore", help="put a backup back, with inference and cache stopped")
    back.add_argument("folder", type=Path, help="what `millrace backup` made")
    back.add_argument("--only", choices=PARTS, help="leave the other as it is")
    back.add_argument("--force", action="store_true", help="overwrite what is there")
    back.add_argument("--check", action="store_true", help="change nothing: say whether it could be done")
    back.set_defaults(run=restore)
