"""What services show to Prometheus, and what rules and dashboards ask for."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import yaml

from kit.signals import BY_NAME, Signal

ROOT = Path(__file__).resolve().parents[2]
_SUFFIX = re.compile(r"_(bucket|sum|count|created)$")
_NAME = re.compile(r"\b(?:millrace|gen_ai|rpc)_[a-z_]+\b(?!\s*=)")


def signal_of(sample: str) -> Signal | None:
    """The signal that a sample, such as a histogram's bucket, belongs to; None of one that nobody has declared."""
    bare = _SUFFIX.sub("", sample)
    return BY_NAME.get(sample) or BY_NAME.get(bare) or BY_NAME.get(f"{bare}_total")


def asked() -> Iterator[tuple[str, str]]:
    """Every expression of the rules and dashboards, with the place where it stands."""
    for path in sorted((ROOT / "deploy/prometheus/rules").glob("*.yml")):
        for group in yaml.safe_load(path.read_text())["groups"]:
            yield from ((path.name, rule["expr"]) for rule in group["rules"])
    for path in sorted((ROOT / "deploy/grafana/dashboards").glob("*.json")):
        for panel in json.loads(path.read_text())["panels"]:
            yield from ((path.name, target["expr"]) for target in panel["targets"])


def metrics_of(expressions: Iterable[str]) -> set[str]:
    """The metrics, by their declared names, that expressions ask for; raises on one that nobody has declared."""
    found = set()
    for expression in expressions:
        bare = re.sub(r"\{[^}]*\}|(?:by|without) \([^)]*\)", "", expression)
        for name in _NAME.findall(bare):
            if ":" in name:
                continue
            signal = signal_of(name)
            assert signal is not None, f"{name} of {expression!r} is declared nowhere"
            found.add(signal.name)
    return found
