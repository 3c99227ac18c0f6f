"""`millrace bench safety`: what the safety service finds in labelled texts, and how long it takes, over gRPC.

It starts a safety service of its own, or asks a running one, and judges every row as a prompt of a user; rows whose
`kind` says that they are indirect, as a document. It measures and never tunes: thresholds are the policy's.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import track
from rich.table import Table

from cli.errors import CommandError
from cli.ranking import Span, auprc, false_positive_rate, rates, roc_auc, span_rates
from cli.safety_process import safety_service
from kit.dial import dial
from millrace.safety.v1 import safety_service_pb2 as pb
from millrace.safety.v1 import verdict_pb2 as verdict
from millrace.safety.v1.safety_service_pb2_grpc import SafetyServiceStub

if TYPE_CHECKING:  # Exists for type checkers only.
    from millrace.safety.v1.safety_service_pb2_grpc import SafetyServiceAsyncStub

Row = dict[str, Any]
Record = dict[str, Any]

CALL_TIMEOUT_S = 60
LENGTHS = (25, 100, 400)
# Of two texts in flight one is encoded while the other travels; latency is then that of a lightly used service.
CALLS_AT_ONCE = 2
PII_ALIASES = {"GPE": "LOCATION", "ZIP_CODE": "LOCATION", "STREET_ADDRESS": "LOCATION"}


@dataclass(frozen=True, slots=True)
class Options:
    """What to measure: a file for each kind, whose service, by which profile."""

    moderation: Path | None = None
    pii: Path | None = None
    injection: Path | None = None
    json: Path | None = None
    target: str | None = None
    profile: str = ""


@dataclass(frozen=True, slots=True)
class Judged:
    """A row, what the service said about it, and how long that took."""

    row: Row
    assessment: Any
    seconds: float

    def score(self, is_wanted: Callable[[str], bool]) -> float:
        """The highest score among some categories."""
        return max((each.score for each in self.assessment.scores if is_wanted(each.category)), default=0.0)

    def is_flagged(self, is_wanted: Callable[[str], bool]) -> bool:
        """Whether the policy acts on a category."""
        return any(each.flagged for each in self.assessment.scores if is_wanted(each.category))


def bench_safety(options: Options) -> int:
    """Runs the measurements that files were given for, prints tables, and writes the records."""
    sets = {name: _read(path) for name in ("moderation", "pii", "injection") if (path := getattr(options, name))}
    if not sets:
        raise CommandError("nothing to measure: give --moderation, --pii or --injection")
    records = asyncio.run(_measure(sets, options))
    _print(records)
    if options.json:
        options.json.write_text(json.dumps(records, indent=1) + "\n")
    return 0


async def _measure(sets: dict[str, list[Row]], options: Options) -> list[Record]:
    async with safety_service(options.target) as target:
        channel = dial(target, service="millrace.safety.v1.SafetyService")
        try:
            stub = SafetyServiceStub(channel)
            await stub.ListPolicies(pb.ListPoliciesRequest(), wait_for_ready=True, timeout=CALL_TIMEOUT_S)
            records: list[Record] = []
            everything: list[Judged] = []
            for kind, rows in sets.items():
                judged = await _judge(stub, rows, options.profile, kind)
                records += MEASURES[kind](judged)
                everything += judged
            return records + latency_records(everything)
        finally:
            await channel.close()


async def _judge(stub: SafetyServiceAsyncStub, rows: Sequence[Row], profile: str, kind: str) -> list[Judged]:
    judged: list[Judged] = []
    for begin in track(range(0, len(rows), CALLS_AT_ONCE), description=kind):
        judged += await asyncio.gather(*(_ask(stub, row, profile) for row in rows[begin : begin + CALLS_AT_ONCE]))
    return judged


async def _ask(stub: SafetyServiceAsyncStub, row: Row, profile: str) -> Judged:
    indirect = str(row.get("kind", "")).startswith("indirect")
    segment = pb.Segment(role=verdict.ROLE_DOCUMENT if indirect else verdict.ROLE_USER, text=row["text"])
    begin = time.perf_counter()
    response = await stub.CheckInput(pb.CheckInputRequest(profile=profile, segments=[segment]), timeout=CALL_TIMEOUT_S)
    return Judged(row, response.assessment, time.perf_counter() - begin)


def moderation_records(judged: Sequence[Judged]) -> list[Record]:
    """One record per labelled category, over the rows that know it, and one for any harm."""
    categories = sorted({category for each in judged for category in each.row["labels"]})
    records = []
    for category in categories:
        known = [each for each in judged if category in each.row["labels"]]
        labels = [bool(each.row["labels"][category]) for each in known]
        records.append(_ranked("moderation", category, known, labels, category.__eq__))
    harm = [any(each.row["labels"].values()) for each in judged]
    return [*records, _ranked("moderation", "any", judged, harm, set(categories).__contains__)]


def injection_records(judged: Sequence[Judged]) -> list[Record]:
    """One record for all rows, and one for direct and for indirect attacks against all that are none."""
    records = []
    for category in ("any", "direct", "indirect"):
        known = [
            each for each in judged if category == "any" or not each.row["injection"] or _way(each.row) == category
        ]
        labels = [bool(each.row["injection"]) for each in known]
        records.append(_ranked("injection", category, known, labels, _is_injection))
    return records


def pii_records(judged: Sequence[Judged]) -> list[Record]:
    """Two records per type: spans that are equal, and spans that overlap."""
    wanted: dict[str, list[Span]] = {}
    found: dict[str, list[Span]] = {}
    for index, each in enumerate(judged):
        for span in each.row["spans"]:
            wanted.setdefault(_type(span["type"]), []).append(Span(index, span["start"], span["end"]))
        for finding in each.assessment.findings:
            spans = found.setdefault(_type(finding.category), [])
            spans.append(Span(index, finding.span.start, finding.span.end))
    records = []
    for category in sorted(wanted):
        for match in ("exact", "overlap"):
            got = span_rates(wanted[category], found.get(category, []), match == "exact")
            counts = {"rows": len(judged), "positives": len(wanted[category])}
            values = {"precision": got.precision, "recall": got.recall, "f1": got.f(1), "f2": got.f(2)}
            records.append({"kind": "pii", "category": category, "match": match, **counts, **_rounded(values)})
    return records


def latency_records(judged: Sequence[Judged]) -> list[Record]:
    """Median and 95th percentile of calls, by the number of words."""
    records = []
    for low, high in zip((0, *LENGTHS), (*LENGTHS, 10**9), strict=True):
        times = [each.seconds * 1000 for each in judged if low < len(each.row["text"].split()) <= high]
        if len(times) > 1:
            values = {"p50_ms": statistics.median(times), "p95_ms": statistics.quantiles(times, n=20)[18]}
            name = f"up to {high} words" if high in LENGTHS else f"more than {low} words"
            records.append({"kind": "latency", "category": name, "rows": len(times), **_rounded(values)})
    return records


MEASURES = {"moderation": moderation_records, "pii": pii_records, "injection": injection_records}


def _ranked(
    kind: str, category: str, judged: Sequence[Judged], labels: Sequence[bool], is_wanted: Callable[[str], bool]
) -> Record:
    scores = [each.score(is_wanted) for each in judged]
    flagged = [each.is_flagged(is_wanted) for each in judged]
    got = rates(labels, flagged)
    values = {"auprc": auprc(labels, scores), "roc_auc": roc_auc(labels, scores)} if any(labels) else {}
    values |= {"precision": got.precision, "recall": got.recall, "f1": got.f(1)} if any(labels) else {}
    values["fpr"] = false_positive_rate(labels, flagged)
    return {"kind": kind, "category": category, "rows": len(labels), "positives": sum(labels), **_rounded(values)}


def _print(records: Iterable[Record]) -> None:
    console = Console()
    tables: dict[str, list[Record]] = {}
    for record in records:
        tables.setdefault(record["kind"], []).append(record)
    for kind, rows in tables.items():
        columns = list(dict.fromkeys(name for row in rows for name in row if name != "kind"))
        table = Table(title=kind)
        for name in columns:
            table.add_column(name, justify="left" if name in ("category", "match") else "right")
        for row in rows:
            table.add_row(*(str(row.get(name, "")) for name in columns))
        console.print(table)


def _read(path: Path) -> list[Row]:
    """Reads JSON lines, compressed or not."""
    try:
        with gzip.open(path, "rt") if path.suffix == ".gz" else path.open() as lines:
            return [json.loads(line) for line in lines if line.strip()]
    except (OSError, ValueError) as error:
        raise CommandError(f"{path} cannot be read as JSON lines: {error}") from error


def _rounded(values: dict[str, float]) -> dict[str, float]:
    return {name: round(value, 4) for name, value in values.items()}


def _is_injection(category: str) -> bool:
    return category.startswith("injection")


def _way(row: Row) -> str:
    return "indirect" if str(row.get("kind", "")).startswith("indirect") else "direct"


def _type(name: str) -> str:
    return PII_ALIASES.get(name, name)
