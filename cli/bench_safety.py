"""`millrace bench safety`: what the safety service finds in labelled texts, and how long it takes, over gRPC.

It starts a safety service of its own, or asks a running one, and judges every row as a prompt of a user; rows whose
`kind` says that they are indirect, as a document. It measures and never tunes: thresholds are the policy's.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.progress import track

from cli import screen
from cli.errors import CommandError
from cli.ranking import Span, auprc, false_positive_rate, rates, roc_auc, span_rates
from cli.safety_files import Row, read_rows
from cli.safety_process import safety_service
from cli.safety_report import ranking_chart, rewrite, show
from kit.dial import dial
from millrace.safety.v1 import safety_service_pb2 as pb
from millrace.safety.v1 import verdict_pb2 as verdict
from millrace.safety.v1.safety_service_pb2_grpc import SafetyServiceStub

if TYPE_CHECKING:  # Exists for type checkers only.
    from millrace.safety.v1.safety_service_pb2_grpc import SafetyServiceAsyncStub

Record = dict[str, Any]

CALL_TIMEOUT_S = 60
LENGTHS = (25, 100, 400)
# Of two texts in flight one is encoded while the other travels; latency is then that of a lightly used service.
CALLS_AT_ONCE = 2
# Which profile judges where none is asked for: one that blocks stops reading, and would leave scores out.
PROFILES = {"moderation": "moderation"}
PII_ALIASES = {"GPE": "LOCATION", "ZIP_CODE": "LOCATION", "STREET_ADDRESS": "LOCATION"}


@dataclass(frozen=True, slots=True)
class Options:
    """What to measure: a file for each kind, whose service, by which profile."""

    moderation: Path | None = None
    pii: Path | None = None
    injection: Path | None = None
    json: Path | None = None
    document: Path | None = None
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
    """Runs the measurements that files were given for, prints tables and charts, and writes what is wanted."""
    paths = {kind: path for kind in ("moderation", "pii", "injection") if (path := getattr(options, kind))}
    if not paths:
        raise CommandError("nothing to measure: give --moderation, --pii or --injection")
    judged = asyncio.run(_measure({kind: read_rows(path, kind) for kind, path in paths.items()}, options))
    records = [record for kind, rows in judged.items() for record in _records(kind, rows)]
    records += latency_records([each for rows in judged.values() for each in rows])
    console = screen.console()
    show(console, records)
    for kind in judged.keys() & RANKINGS.keys():
        curves = {name: (ranked.labels, ranked.scores) for name, ranked in RANKINGS[kind](judged[kind]).items()}
        console.print(ranking_chart(kind, {"any": curves["any"]}).text(), highlight=False)
        if options.json:
            options.json.with_name(f"{options.json.stem}-{kind}.svg").write_text(ranking_chart(kind, curves).svg())
    if options.json:
        options.json.write_text(json.dumps(records, indent=1) + "\n")
    if options.document:
        rewrite(options.document, records)
    return 0


async def _measure(sets: Mapping[str, list[Row]], options: Options) -> dict[str, list[Judged]]:
    async with safety_service(options.target) as target:
        channel = dial(target, service="millrace.safety.v1.SafetyService")
        try:
            stub = SafetyServiceStub(channel)
            await stub.ListPolicies(pb.ListPoliciesRequest(), wait_for_ready=True, timeout=CALL_TIMEOUT_S)
            return {
                kind: await _judge(stub, rows, options.profile or PROFILES.get(kind, ""), kind)
                for kind, rows in sets.items()
            }
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


@dataclass(frozen=True, slots=True)
class Ranked:
    """Rows that know a category, whether they are of it, and which scores speak for it."""

    judged: Sequence[Judged]
    labels: Sequence[bool]
    is_wanted: Callable[[str], bool]

    @property
    def scores(self) -> list[float]:
        """The highest score of each row."""
        return [each.score(self.is_wanted) for each in self.judged]

    def record(self, kind: str, category: str) -> Record:
        """All figures of the category."""
        labels, scores = self.labels, self.scores
        flagged = [each.is_flagged(self.is_wanted) for each in self.judged]
        got = rates(labels, flagged)
        values = {"auprc": auprc(labels, scores), "roc_auc": roc_auc(labels, scores)} if any(labels) else {}
        values |= {"precision": got.precision, "recall": got.recall, "f1": got.f(1)} if any(labels) else {}
        values["fpr"] = false_positive_rate(labels, flagged)
        return {"kind": kind, "category": category, "rows": len(labels), "positives": sum(labels), **_rounded(values)}


def moderation_rankings(judged: Sequence[Judged]) -> dict[str, Ranked]:
    """Each labelled category over the rows that know it, and any harm."""
    categories = sorted({category for each in judged for category in each.row["labels"]})
    rankings = {}
    for category in categories:
        known = [each for each in judged if category in each.row["labels"]]
        rankings[category] = Ranked(known, [bool(each.row["labels"][category]) for each in known], category.__eq__)
    harm = [any(each.row["labels"].values()) for each in judged]
    return rankings | {"any": Ranked(judged, harm, set(categories).__contains__)}


def injection_rankings(judged: Sequence[Judged]) -> dict[str, Ranked]:
    """All rows, and direct and indirect attacks against all that are none."""
    rankings = {}
    for way in ("any", "direct", "indirect"):
        known = [each for each in judged if way == "any" or not each.row["injection"] or _way(each.row) == way]
        rankings[way] = Ranked(known, [bool(each.row["injection"]) for each in known], _is_injection)
    return rankings


def pii_records(judged: Sequence[Judged]) -> list[Record]:
    """Two records per type, spans that are equal and spans that overlap, and the same for all types together."""
    wanted: dict[str, list[Span]] = {"any": []}
    found: dict[str, list[Span]] = {"any": []}
    for index, each in enumerate(judged):
        for span in each.row["spans"]:
            for name in (_type(span["type"]), "any"):
                wanted.setdefault(name, []).append(Span(index, span["start"], span["end"]))
    for index, each in enumerate(judged):
        for finding in each.assessment.findings:
            if (name := _type(finding.category)) in wanted:
                for category in (name, "any"):
                    found.setdefault(category, []).append(Span(index, finding.span.start, finding.span.end))
    harmless = {index for index, each in enumerate(judged) if not each.row["spans"]}
    records = []
    for category in sorted(wanted):
        spans = found.get(category, [])
        flagged = harmless & {span.text_index for span in spans}
        for match in ("exact", "overlap"):
            got = span_rates(wanted[category], spans, match == "exact")
            counts = {"rows": len(judged), "positives": len(wanted[category])}
            values = {"precision": got.precision, "recall": got.recall, "f1": got.f(1), "f2": got.f(2)}
            values["fpr"] = len(flagged) / max(len(harmless), 1)
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


RANKINGS = {"moderation": moderation_rankings, "injection": injection_rankings}


def _records(kind: str, judged: Sequence[Judged]) -> list[Record]:
    if kind == "pii":
        return pii_records(judged)
    return [ranked.record(kind, category) for category, ranked in RANKINGS[kind](judged).items()]


def _rounded(values: dict[str, float]) -> dict[str, float]:
    return {name: round(value, 4) for name, value in values.items()}


def _is_injection(category: str) -> bool:
    return category.startswith("injection")


def _way(row: Row) -> str:
    return "indirect" if str(row.get("kind", "")).startswith("indirect") else "direct"


def _type(name: str) -> str:
    return PII_ALIASES.get(name, name)
