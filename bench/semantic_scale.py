"""How the cache service finds similar questions among 100,000 entries or a million: time, recall, memory, start.

    python -m bench.semantic_scale --data questions.jsonl.gz --entries 100000 --file KEPT.sqlite3 [--json OUT]

Writes entries straight into the file, which is kept for the next time, each with the vector of a real question and
noise, all in one partition, which is the worst case; starts the service on it as a process of its own; waits until what
is in the file is found; and looks other questions up over gRPC, one at a time and several at once. Every lookup takes
the nearest entry (no bound, no guards), so that the answers tell how often it is truly the nearest of all.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import hashlib
import json
import os
import random
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from bench.cache_stand import CacheProcess
from bench.figures import quantile, rounded
from bench.semantic_sets import rows, vectors_of
from millrace.cache.v1 import entry_pb2
from millrace.cache.v1.cache_service_pb2 import LookupRequest, LookupResponse
from millrace.cache.v1.lookup_pb2 import Query, SemanticQuery
from services.cache.entry import Entry
from services.cache.key import EntryKey, KeySpace, Namespace
from services.cache.semantic.encoding import Floats, from_bytes, text_model, to_bytes
from services.cache.semantic.index_partitions import SIZES
from services.cache.sqlite_store import SqliteStore

TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")
DAY_MS: Final = 86_400_000
CONTEXT: Final = bytes(32)
MODEL, SCHEMA_TAG, TENANT = "bench", "bench.v1", "bench"
ANSWER: Final = b"x" * 500
# Length of the noise in a vector of length 1: variations of a question lie as far apart as paraphrases do.
NOISE: Final = 0.5
WRITTEN_AT_ONCE: Final = 500
PROBES: Final = 20
PROBE_EVERY_S: Final = 2.0
CALL_DEADLINE_S: Final = 60.0
# As much noise as makes two cosines of 16-bit vectors differ.
COSINE_TOLERANCE: Final = 2e-3


@dataclass(frozen=True, slots=True)
class Stock:
    """The questions that entries are made of, and those that are asked."""

    texts: Sequence[str]
    vectors: Floats
    entry_count: int

    @property
    def real_from(self) -> int:
        """The last entries are questions without noise: once they are found, all others have been read."""
        return max(0, self.entry_count - len(self.texts))

    def parts(self) -> Iterator[tuple[range, Floats]]:
        """The vectors of all entries, the same each time."""
        noise = np.random.default_rng(1)
        for begin in range(0, self.entry_count, WRITTEN_AT_ONCE):
            numbers = range(begin, min(self.entry_count, begin + WRITTEN_AT_ONCE))
            part = self.vectors[[number % len(self.texts) for number in numbers]]
            drawn = noise.normal(size=part.shape).astype(np.float32) * (NOISE / part.shape[1] ** 0.5)
            drawn[[number >= self.real_from for number in numbers]] = 0
            part = part + drawn
            yield numbers, part / np.linalg.norm(part, axis=1, keepdims=True)

    def text(self, number: int) -> str:
        """The question that an entry answers."""
        text = self.texts[number % len(self.texts)]
        return text if number >= self.real_from else f"{text} {number}"

    def nearest(self, queries: Floats) -> Floats:
        """The cosine of the nearest entry to each query, by comparing with all."""
        best = np.full(len(queries), -1.0, np.float32)
        for _, part in self.parts():
            best = np.maximum(best, (queries @ part.astype(np.float16).astype(np.float32).T).max(axis=1))
        return best


def main() -> None:
    """Fills the file if it is new, measures, prints a row for each figure and writes them if asked to."""
    options = _options()
    texts = sorted({str(row["text"]) for row in rows(options.data)})
    random.Random(1).shuffle(texts)
    asked, stocked = texts[: options.lookups], texts[options.lookups :]
    vectors = vectors_of(texts, options.vectors)
    stock = Stock(stocked, np.stack([vectors[text] for text in stocked]), options.entries)
    record = asyncio.run(measure(options, stock, asked, np.stack([vectors[text] for text in asked])))
    for name, value in record.items():
        print(f"{name:>24}  {value}")
    if options.json:
        options.json.write_text(json.dumps([record], indent=1) + "\n")


async def measure(options: argparse.Namespace, stock: Stock, asked: Sequence[str], queries: Floats) -> dict[str, Any]:
    """Fills, starts, waits and asks."""
    record: dict[str, Any] = {"entries": stock.entry_count}
    version = await _version()
    if options.file.exists():
        await refuse_other(options.file, stock, version)
    else:
        record["fill_s"] = rounded(await fill(options.file, stock, version))
    service = CacheProcess(
        options.file.parent,
        *("scale",),
        path=options.file,
        semantic=True,
        semantic_error_max=1,
        semantic_guards=False,
        semantic_timeout_s=5,
        entries_max=stock.entry_count + len(asked),
        bytes_max=1 << 40,
        log_level="info",
    )
    (options.file.parent / "scale.log").unlink(missing_ok=True)
    begin = time.monotonic()
    try:
        await service.start()
        record["answers_after_s"] = rounded(time.monotonic() - begin)
        record["empty_mib"] = _memory_mib(service.pid)
        await _until_hydrated(service, stock)
        record["hydrated_after_s"] = rounded(time.monotonic() - begin)
        record["hydrated_cpu_s"] = rounded(_cpu_s(service.pid))
        await _until_clustered(options.file.parent / "scale.log", stock.entry_count)
        record["clustered_after_s"] = rounded(time.monotonic() - begin)
        return record | await _asked(service, asked, stock.nearest(queries), options.at_once)
    finally:
        await service.stop()


async def _version() -> str:
    """Names the space of the service's vectors."""
    encoder = text_model()
    await encoder.warm()
    version = encoder.version
    await encoder.close()
    return version


async def fill(path: Path, stock: Stock, version: str) -> float:
    """Writes the entries, and says how long it took."""
    begin = time.monotonic()
    async with _opened(path, stock) as store:
        now_ms, keys = _now_ms(), KeySpace(b"")
        for numbers, vectors in stock.parts():
            entries = (_entry(stock.text(n), v, version, keys, now_ms) for n, v in zip(numbers, vectors, strict=True))
            await asyncio.gather(*(store.put(entry) for entry in entries))
    return time.monotonic() - begin


async def refuse_other(path: Path, stock: Stock, version: str) -> None:
    """Stops where a kept file holds other entries than these: the service would never find what is asked."""
    async with _opened(path, stock) as store, contextlib.aclosing(store.outlines()) as outlines:
        size, entry = await store.size(None), await anext(outlines, None)
    if entry is None or entry.compare_text != stock.text(0) or size.entry_count < stock.entry_count:
        raise SystemExit(f"{path} does not hold these entries, or they have expired; remove it to fill it anew")
    _, vectors = next(stock.parts())
    held = from_bytes(entry.embedding, vectors.shape[1])
    if entry.embedding_version != version or held is None or held @ vectors[0] < 1 - COSINE_TOLERANCE:
        was = f"{path} holds vectors of another encoder ({entry.embedding_version}; this one is {version})"
        raise SystemExit(f"{was}; remove it to fill it anew")


@contextlib.asynccontextmanager
async def _opened(path: Path, stock: Stock) -> AsyncIterator[SqliteStore]:
    store = SqliteStore(path, entries_max=stock.entry_count + 1, bytes_max=1 << 40, hot_bytes_max=0, clock=_now_ms)
    await store.open()
    try:
        yield store
    finally:
        await store.close()


def _now_ms() -> int:
    return int(time.time() * 1000)


def _entry(text: str, vector: Floats, version: str, keys: KeySpace, now_ms: int) -> Entry:
    digest = hashlib.sha256(text.encode()).digest()
    return Entry(
        address=keys.address(EntryKey(Namespace(TENANT), MODEL, digest, 1, CONTEXT)),
        nonce=os.urandom(8).hex(),
        schema_tag=SCHEMA_TAG,
        model=MODEL,
        chunks=(ANSWER,),
        created_ms=now_ms,
        expires_ms=now_ms + DAY_MS,
        gone_ms=now_ms + DAY_MS,
        compare_text=text,
        context_digest=CONTEXT,
        embedding=to_bytes(vector),
        embedding_version=version,
        canonical_version=1,
    )


async def _until_hydrated(service: CacheProcess, stock: Stock) -> None:
    """Waits until stored questions, asked under another digest, are found as they are."""
    probes = [
        stock.texts[at] for at in random.Random(2).sample(range(min(len(stock.texts), stock.entry_count)), PROBES)
    ]
    while True:
        found = [await _find(service, text, salt=b"probe") for text in probes]
        if all(one.HasField("hit") and one.hit.acceptance.similarity > 1 - COSINE_TOLERANCE for one in found):
            return
        await asyncio.sleep(PROBE_EVERY_S)


async def _until_clustered(log: Path, entry_count: int) -> None:
    """Waits until the service says that it has made lists which will do for as many entries."""
    while entry_count >= SIZES.lists_from:
        lines = [json.loads(line) for line in log.read_text().splitlines() if "partition clustered" in line]
        if any(line["entries"] * SIZES.regrowth > entry_count for line in lines):
            return
        await asyncio.sleep(PROBE_EVERY_S)


async def _asked(service: CacheProcess, asked: Sequence[str], nearest: Floats, at_once: int) -> dict[str, Any]:
    for text in asked[:10]:
        await _find(service, text, salt=b"warm")
    times_ms, similarities = [], []
    cpu_s = _cpu_s(service.pid)
    for text in asked[10:]:
        begin = time.perf_counter()
        found = await _find(service, text, salt=b"one")
        times_ms.append((time.perf_counter() - begin) * 1000)
        similarities.append(found.hit.acceptance.similarity)
    cpu_ms = (_cpu_s(service.pid) - cpu_s) * 1000 / len(times_ms)
    remaining = iter([f"{text} again" for text in asked])  # other words, for vectors are remembered

    async def ask() -> None:
        for text in remaining:
            await _find(service, text, salt=b"many")

    begin = time.perf_counter()
    await asyncio.gather(*(ask() for _ in range(at_once)))
    per_s = len(asked) / (time.perf_counter() - begin)
    right = np.array(similarities) >= nearest[10:] - COSINE_TOLERANCE
    near = nearest[10:] >= 0.8
    return {
        "hit_p50_ms": rounded(quantile(times_ms, 0.5)),
        "hit_p99_ms": rounded(quantile(times_ms, 0.99)),
        "hit_cpu_ms": rounded(cpu_ms),
        f"per_s_{at_once}_at_once": round(per_s),
        "recall_of_nearest": round(float(right.mean()), 4),
        "recall_where_above_0.8": round(float(right[near].mean()), 4),
        "memory_mib": _memory_mib(service.pid),
    }


async def _find(service: CacheProcess, text: str, salt: bytes) -> LookupResponse:
    """Looks a question up that was never stored in this form."""
    key = entry_pb2.EntryKey(
        namespace=entry_pb2.Namespace(tenant=TENANT),
        model=MODEL,
        request_digest=hashlib.sha256(salt + text.encode()).digest(),
        canonical_version=1,
        context_digest=CONTEXT,
    )
    query = Query(key=key, schema_tag=SCHEMA_TAG, semantic=SemanticQuery(compare_text=text))
    return await service.stub.Lookup(LookupRequest(query=query), timeout=CALL_DEADLINE_S)


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_S


def _memory_mib(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") >> 20


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help='JSON lines with a "text": some thousand questions')
    parser.add_argument("--file", type=Path, required=True, help="the store's file; filled if it is not there")
    parser.add_argument("--entries", type=int, default=100_000)
    parser.add_argument("--lookups", type=int, default=500)
    parser.add_argument("--at-once", type=int, default=16)
    parser.add_argument("--vectors", type=Path, help="file to keep the questions' vectors in, for the next time")
    parser.add_argument("--json", type=Path, help="file for the figures")
    return parser.parse_args()


if __name__ == "__main__":
    main()
