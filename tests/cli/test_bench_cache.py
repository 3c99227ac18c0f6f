"""`millrace bench cache` against a cache that decides by shared words, so that every figure can be told beforehand."""

from __future__ import annotations

import argparse
import gzip
import io
import json
import math
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from cli.bench_cache.chart import Chart, Point, Series
from cli.bench_cache.command import run
from cli.bench_cache.curve import curve
from cli.bench_cache.latency import QUESTIONS, measure, svg
from cli.bench_cache.options import add_arguments
from cli.bench_cache.policy import Policy, parse
from cli.bench_cache.tally import Tally, pooled, wilson
from cli.errors import CommandError
from tests.fakes.cache import FakeCache, serve

LOOKUPS = [
    ("one two three four", "a"),
    ("one two three five", "a"),
    ("one two three six", "b"),
    ("seven eight", "c"),
    ("seven eight", "c"),
]
FIELDS = [
    "policy", "seed", "lookups", "hit_rate", "right_rate", "wrong_per_hit", "wrong_per_hit_low", "wrong_per_hit_high",
    "p50_ms", "p99_ms",
]  # fmt: skip


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Five lookups: the second is near a right entry, the third near a wrong one, the last is there word for word."""
    path = tmp_path / "lookups.jsonl"
    rows = [{"id": str(at), "text": text, "group": group} for at, (text, group) in enumerate(LOOKUPS)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


class Bench:
    """The command, on fakes that it starts as it would start services."""

    def __init__(self, make: Callable[[], FakeCache] = FakeCache) -> None:
        self.fakes: list[FakeCache] = []
        self.guards: list[bool] = []
        self.said = io.StringIO()
        self._make = make

    def __call__(self, *words: str | Path) -> int:
        parser = argparse.ArgumentParser()
        add_arguments(parser)
        return run(parser.parse_args(list(map(str, words))), self._start, Console(file=self.said, width=160))

    def _start(self, store: str, *, guards: bool) -> AbstractAsyncContextManager[Any]:
        self.fakes.append(self._make())
        self.guards.append(guards)
        return serve(self.fakes[-1])


def test_it_counts_what_it_says(data: Path, tmp_path: Path) -> None:
    """Hits, wrong hits and the interval are those of the groups, in exactly the fields that are promised."""
    bench, out = Bench(), tmp_path / "out.json"
    code = bench("--data", data, "--policy", "static:0.6", "--policy", "static:0.9", "--json", out)
    lax, strict = json.loads(out.read_text())

    assert code == 0
    assert list(lax) == list(strict) == FIELDS
    assert (lax["policy"], lax["seed"], lax["lookups"]) == ("static:0.6", 0, 5)
    assert (lax["hit_rate"], lax["right_rate"]) == (0.6, 0.4)
    assert lax["wrong_per_hit"] == pytest.approx(1 / 3, abs=1e-6)
    assert lax["wrong_per_hit_low"] < 1 / 3 < lax["wrong_per_hit_high"]
    assert 0 < lax["p50_ms"] <= lax["p99_ms"]
    assert (strict["hit_rate"], strict["wrong_per_hit"], strict["wrong_per_hit_low"]) == (0.2, 0, 0)
    assert "static:0.6" in bench.said.getvalue()


def test_each_policy_asks_for_what_it_says(data: Path) -> None:
    """A threshold is asked for without bound or guards, and a bound without a threshold."""
    bench = Bench()
    bench("--data", data, "--policy", "static:0.75", "--policy", "bounded:0.02", "--policy", "exact")
    static, bounded, exact = bench.fakes

    assert {(query.similarity_min, query.error_max) for query in static.semantic} == {(0.75, 1.0)}
    assert not any(query.HasField("similarity_min") for query in bounded.semantic)
    assert {query.error_max for query in bounded.semantic} == {0.02}
    assert exact.semantic == []
    assert bench.guards == [False, True, True]
    assert static.texts == [text for text, _ in LOOKUPS]


def test_comparisons_are_answered(data: Path, tmp_path: Path) -> None:
    """A would-be hit that is held back counts as a miss, and the group says whether it would have been right."""
    bench, out = Bench(lambda: FakeCache(shadow_every=1)), tmp_path / "out.json"
    bench("--data", data, "--policy", "static:0.6", "--json", out)

    assert json.loads(out.read_text())[0]["hit_rate"] == 0
    assert [fits for _, fits in bench.fakes[0].verdicts] == [True, False, True]
    assert "100.0%" in bench.said.getvalue()


def test_orders_are_shuffled_by_their_seed(data: Path, tmp_path: Path) -> None:
    """Each seed is an order of its own, the same for every policy and every run, on an empty store."""
    first, second, out = Bench(), Bench(), tmp_path / "out.json"
    words = ("--data", data, "--policy", "static:0.6", "--policy", "bounded:0.1", "--shuffles", "3", "--json", out)
    first(*words)
    second(*words)
    orders = [fake.texts for fake in first.fakes]

    assert orders == [fake.texts for fake in second.fakes]
    assert orders[:3] == orders[3:]
    assert len({tuple(order) for order in orders}) == 3
    assert [(record["policy"], record["seed"]) for record in json.loads(out.read_text())] == [
        (policy, seed) for policy in ("static:0.6", "bounded:0.1") for seed in (1, 2, 3)
    ]


def test_the_first_lookups_may_be_left_out(data: Path, tmp_path: Path) -> None:
    """Skipped lookups are played, and fill the cache, but are not counted."""
    bench, out = Bench(), tmp_path / "out.json"
    bench("--data", data, "--policy", "static:0.6", "--skip", "3", "--json", out)
    (record,) = json.loads(out.read_text())

    assert (record["lookups"], record["hit_rate"]) == (2, 0.5)
    assert len(bench.fakes[0].texts) == 5
    with pytest.raises(CommandError, match="leaves nothing"):
        bench("--data", data, "--skip", "5")


def test_pairs_measure_the_verifier_alone(tmp_path: Path) -> None:
    """Each pair is alone where it is; the verifier is ranked with its guards, and the cosine without."""
    rows = [
        ("a b c d", "a b c d e", True),
        ("a b c d", "a b x y", False),
        ("q r", "q r s", True),
        ("m n", "o p", False),
    ]
    data, out = tmp_path / "pairs.jsonl.gz", tmp_path / "out.json"
    with gzip.open(data, "wt") as file:
        file.writelines(json.dumps({"a": a, "b": b, "same": same}) + "\n" for a, b, same in rows)
    bench = Bench()
    bench("--data", data, "--pairs", "--json", out)
    records = json.loads(out.read_text())

    assert [record["score"] for record in records] == ["verifier", "cosine"]
    assert records[1]["average_precision"] == 1
    assert records[1]["recall_at_0.98"] == 1
    assert bench.guards == [True, False]
    assert bench.fakes[0].semantic[0].error_max < 0.01 < bench.fakes[1].semantic[0].error_max
    assert len({place for place, _ in bench.fakes[0].entries.values()}) == len(rows)


class Known:
    """A cache that knows each paraphrase."""

    def __init__(self) -> None:
        self.stored: set[str] = set()

    async def find(self, text: str) -> str | None:
        question = dict(map(reversed, QUESTIONS)).get(text)
        return question if question in self.stored else None

    async def store(self, text: str) -> str:
        self.stored.add(text)
        return text


async def test_latency_is_that_of_a_miss_and_of_a_hit() -> None:
    """Each question waits for the model, its paraphrase does not; both are in the figures and in the drawing."""
    waited = await measure(Known(), upstream_s=0.02)
    drawn = " ".join(ElementTree.fromstring(svg(waited)).itertext())

    assert [(each.question, each.paraphrase) for each in waited] == list(QUESTIONS)
    assert all(each.miss_ms >= 20 for each in waited)
    assert waited[0].record()["speed_up"] == round(waited[0].miss_ms / waited[0].hit_ms, 1)
    assert all(text in drawn for pair in QUESTIONS for text in pair)


def test_latency_is_not_told_of_a_wrong_answer() -> None:
    """A cache that does not know a paraphrase has no speed."""
    with pytest.raises(CommandError, match="was not answered as"):
        Bench()("--latency", "--upstream-ms", "0")


def test_without_data_there_is_nothing_to_measure() -> None:
    """What is missing is named."""
    with pytest.raises(CommandError, match="--data FILE is needed"):
        Bench()()


def test_the_plot_lies_beside_the_figures(data: Path, tmp_path: Path) -> None:
    """The chart is a well-formed SVG with every policy in it, and is drawn in the terminal as well."""
    bench = Bench()
    bench("--data", data, "--policy", "static:0.6", "--policy", "bounded:0.1", "--json", tmp_path / "out.json")
    text = " ".join(ElementTree.parse(tmp_path / "out.svg").getroot().itertext())

    assert "static:0.6" in text
    assert "bounded:0.1" in text
    assert "o bounded" in bench.said.getvalue()


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ('{"id": 1, "text": "x", "group": "g"}\n{"id": 2, "text": "x"}\n', r":2: not of the form \{\"id\", \"text\""),
        ("no json\n", r":1: not JSON"),
        ("\n\n", "has no lines"),
        ("[1]\n", ":1: not of the form"),
        ('{"id": 1, "text": null, "group": "g"}\n', ':1: "text" must be a string'),
        ('{"id": 1, "text": "x", "group": [1]}\n', ':1: "group" must be a string or a number'),
    ],
)
def test_data_that_is_not_of_the_form_is_named(tmp_path: Path, content: str, complaint: str) -> None:
    """The file and the line are named, and nothing is started."""
    bench = Bench()
    (tmp_path / "bad.jsonl").write_text(content)
    with pytest.raises(CommandError, match=complaint):
        bench("--data", tmp_path / "bad.jsonl")

    assert bench.fakes == []


def test_pairs_say_whether_they_are_the_same(tmp_path: Path) -> None:
    """A word that looks like false is not taken for true."""
    (tmp_path / "bad.jsonl").write_text('{"a": "x", "b": "y", "same": 1}\n{"a": "x", "b": "y", "same": "false"}\n')
    with pytest.raises(CommandError, match=':2: "same" must be true, false, 1 or 0'):
        Bench()("--data", tmp_path / "bad.jsonl", "--pairs")


def test_a_file_that_is_missing_is_named(tmp_path: Path) -> None:
    """So is one that is not what its name says."""
    with pytest.raises(CommandError, match=r"gone\.jsonl cannot be read"):
        Bench()("--data", tmp_path / "gone.jsonl")
    (tmp_path / "plain.gz").write_text("{}")
    with pytest.raises(CommandError, match=r"plain\.gz cannot be read"):
        Bench()("--data", tmp_path / "plain.gz")


@pytest.mark.parametrize("name", ["static", "static:2", "static:nan", "bounded:0", "bounded:1", "best", "bounded:x"])
def test_policies_that_do_not_exist_are_refused(name: str) -> None:
    """What can be asked for is told."""
    with pytest.raises(CommandError, match="static:SIMILARITY"):
        parse(name)


def test_policies_are_read() -> None:
    """A threshold has no bound, and a bound no threshold."""
    assert parse("static:0.95") == Policy("static:0.95", 0.95, 1.0)
    assert parse("bounded:0.01") == Policy("bounded:0.01", None, 0.01)
    assert parse("exact").error_max is None


@pytest.mark.parametrize(
    ("count", "total", "low", "high"),
    # From R's prop.test(count, total, correct=FALSE).
    [(0, 10, 0.0, 0.27753), (3, 10, 0.10779, 0.60322), (20, 1000, 0.012989, 0.030680), (10, 10, 0.72247, 1.0)],
)
def test_intervals_are_wilsons(count: int, total: int, low: float, high: float) -> None:
    """The interval is that of the score test."""
    assert wilson(count, total) == pytest.approx((low, high), abs=1e-4)


def test_nothing_counted_says_nothing() -> None:
    """Without hits the error may be anything."""
    assert wilson(0, 0) == (0.0, 1.0)
    assert Tally().record("p", 0)["wrong_per_hit_high"] == 1.0


def test_runs_are_pooled_by_their_counts() -> None:
    """A long run weighs more than a short one."""
    whole = pooled([Tally(100, 10, 1, 2, 0, [1.0]), Tally(300, 90, 3, 0, 1, [3.0, 2.0])])

    assert (whole.hit_rate, whole.wrong_per_hit) == (0.25, 0.04)
    assert (whole.shadow_count, whole.failed_count, sorted(whole.times_ms)) == (2, 1, [1.0, 2.0, 3.0])


def test_a_curve_takes_equal_scores_together() -> None:
    """Pairs that a threshold cannot tell apart are accepted at once, whatever their labels."""
    levels = curve("s", [0.9, 0.9, 0.5, 0.1], [True, False, True, False]).levels

    assert [(level.threshold, level.precision, level.recall) for level in levels] == [
        (0.9, 0.5, 0.5), (0.5, pytest.approx(2 / 3), 1.0), (0.1, 0.5, 1.0),
    ]  # fmt: skip
    assert curve("s", [0.9, 0.8, 0.7], [True, True, False]).average_precision == 1.0
    assert curve("s", [0.9, 0.8], [False, True]).best_at(0.9) is None


def test_points_are_drawn_where_they_belong() -> None:
    """The largest share sets the scale: its point lies at the edge, and a share of nothing at the origin."""
    chart = Chart("t", "x", "y", [Series("s", [Point(0, 0, "low"), Point(0.5, 1, "high")])])
    circles = [node.attrib for node in ElementTree.fromstring(chart.svg()).iter() if node.tag.endswith("circle")]
    (low_x, low_y), (high_x, high_y) = ((float(each["cx"]), float(each["cy"])) for each in circles)
    rows = chart.text().splitlines()

    assert low_x < high_x
    assert low_y > high_y
    assert math.isclose(high_y, 40)
    assert rows[1].endswith("o")
    assert rows[-4].startswith("  0.0% |o")
