"""What was recorded in a run of the tests: each distinct text once, with where it stood and during which test.

Texts are all that can leak: names, attribute values, label values, log lines. Numbers and ids that the suite draws
itself are let go.
"""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry

from kit import logs
from kit.spans import Span

# Ids of traces, spans, requests and instances, and numbers.
_ID = re.compile(r"(?=.*[a-f])[0-9a-f]{16}|(?=.*[a-f])[0-9a-f]{32}|[0-9a-f-]{36}|-?[0-9]{0,10}(\.[0-9]+)?")
# Drawn at random by the suite: an id of 16 digits and no letter may look like a card.
_DRAWN = ("trace_id", "span_id")
_FORMAT = logging.Formatter()


class Recorder:
    """Writes down what one process has recorded.

    Args:
        folder: Of the run; the file `now` in it names the test that runs.
        name: Of the process.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self._now = folder / "now"
        self._file = (folder / f"{name}-{os.getpid()}.jsonl").open("a")
        self._seen: set[int] = set()

    def saw(self, where: str, text: object) -> None:
        """Notes a text; once for each place."""
        if not isinstance(text, str) or _ID.fullmatch(text) or (key := hash((where, text))) in self._seen:
            return
        self._seen.add(key)
        test = self._now.read_text() if self._now.exists() else ""
        self._file.write(json.dumps([where, text, test]) + "\n")
        self._file.flush()

    def span(self, span: Span) -> None:
        """Notes a span that ended."""
        self.saw("span name", span.name)
        self.saw(f"status of span {span.name}", span.status_text)
        constants = span.constants.values if span.constants is not None else {}
        for key, value in {**constants, **span.attributes}.items():
            for one in value if isinstance(value, Sequence) and not isinstance(value, str) else (value,):
                self.saw(f"attribute {key} of span {span.name}", one)

    def log(self, record: logging.LogRecord) -> None:
        """Notes a log record as both of its ways out show it."""
        self.saw(f"log of {record.name}", record.getMessage())
        for key, value in logs.extra(record).items():
            self.saw(f"field {key} of a log of {record.name}", str(value))
        if record.exc_info:
            self.saw(f"traceback in a log of {record.name}", _FORMAT.formatException(record.exc_info))

    def metrics(self, registries: Iterable[CollectorRegistry]) -> None:
        """Notes the labels of every sample, and of the examples beside them."""
        for registry in registries:
            for family in registry.collect():
                for sample in family.samples:
                    self.labels(sample.name, sample.labels)
                    self.labels(sample.name, sample.exemplar.labels if sample.exemplar else {})

    def labels(self, name: str, labels: dict[str, Any]) -> None:
        """Notes the labels of a sample."""
        for key, value in labels.items():
            self.saw(f"label {key} of metric {name}", value)

    def line(self, line: str) -> None:
        """Notes a line that a process has written: an object as `kit.logs` writes it, or whatever else it said."""
        try:
            fields = json.loads(line)
        except ValueError:
            fields = {"": line}
        for key, value in fields.items() if isinstance(fields, dict) else [("", line)]:
            if key in _DRAWN:
                continue
            self.saw(f"field {key} of an output" if key else "output", value if isinstance(value, str) else str(value))

    def close(self) -> None:
        """Ends the file."""
        self._file.close()


def entries(folder: Path) -> Iterable[tuple[str, str, str]]:
    """Everything that processes of a run have written down: where, what, and during which test."""
    for path in sorted(folder.glob("*.jsonl")):
        with path.open() as file:
            for line in file:
                where, text, test = json.loads(line)
                yield where, text, test
