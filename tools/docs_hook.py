"""What mkdocs does not know by itself: documents link to the sources they speak of, and others may add documents.

A link that leaves docs/ becomes one to the repository, if there is such a file; else the build fails, as it does for
every other link. Documents that mkdocs.yml does not name are added to the end of its list. The tables of settings come
from the settings classes, and those of capacity from what was measured, so that nobody has to keep them.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mkdocs.exceptions import PluginError

from cli import tables

ROOT = Path(__file__).resolve().parents[1]
CAPACITY = re.compile(r"<!-- capacity: .*? -->")
COST = re.compile(r"^\| (policies .*?) \| ([\d.]+) ms \| ([\d.]+) ms \|", re.MULTILINE)
RATES = (50, 500, 2_000, 5_000)  # requests a second
BUSY_MAX = 0.6  # of a core, beyond which queues grow
SETTINGS = re.compile(r"<!-- settings: .*? -->")
LINK = re.compile(r"(?<=\]\()([^)\s#:]*\.\./[^)\s#]+)(?=[)#])")


def on_page_markdown(markdown: str, page: Any, config: Any, **_: Any) -> str:
    """Points links to sources at the repository, and puts the settings in their place."""
    folder = (Path(config["docs_dir"]) / page.file.src_uri).parent

    def replace(match: re.Match[str]) -> str:
        target = (folder / match[1]).resolve()
        if target.is_relative_to(config["docs_dir"]):
            return match[1]
        if not target.exists() or not target.is_relative_to(ROOT):
            raise PluginError(f"{page.file.src_uri}: {match[1]} is not there")
        kind = "tree" if target.is_dir() else "blob"
        return f"{config['extra']['repository']}/{kind}/main/{target.relative_to(ROOT).as_posix()}"

    markdown = CAPACITY.sub(lambda _: _capacity(Path(config["docs_dir"])), LINK.sub(replace, markdown))
    return SETTINGS.sub(lambda _: tables.markdown(), markdown)


def on_files(files: Any, config: Any) -> None:
    """Adds what is in no list."""
    named = set(_named(config["nav"]))
    more = sorted(file.src_uri for file in files.documentation_pages() if file.src_uri not in named)
    if more:
        config["nav"].append({"More": more})


def _capacity(docs: Path) -> str:
    """How many cores some rates need, by what was measured of one request."""
    costs = COST.findall((docs / "benchmarks.md").read_text())
    if not costs:
        raise PluginError("benchmarks.md has no table of what a request costs")
    lines = ["| cores at | " + " | ".join(f"{rate:,}/s" for rate in RATES) + " |", "|---|" + "---:|" * len(RATES)]
    for name, *each in costs:
        for kind, cost_ms in zip(("whole", "streamed"), map(float, each), strict=True):
            cores = (f"{rate * cost_ms / 1000 / BUSY_MAX:.1f}" for rate in RATES)
            lines.append(f"| {name}, {kind} ({cost_ms} ms) | " + " | ".join(cores) + " |")
    return "\n".join(lines)


def _named(items: Any) -> list[str]:
    """Every document of a list and of the lists in it."""
    if isinstance(items, str):
        return [items]
    parts = items.values() if isinstance(items, dict) else items
    return [name for part in parts for name in _named(part)]
