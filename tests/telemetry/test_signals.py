"""The metrics of all four services, as a real Prometheus reads them, against what kit.signals declares."""

from __future__ import annotations

import asyncio
import secrets
from asyncio.subprocess import DEVNULL, STDOUT
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from bench.ports import free_port
from kit.signals import BY_NAME, SIGNALS, table
from tests.flow.conftest import NAMES, Suite
from tests.telemetry.pages import ROOT, asked, metrics_of, signal_of

DEADLINE_S = 40.0
PORTS: dict[str, int] = {}
# Shown only by a cache that has a semantic index, which is off here; nobody asks for them.
RARE = {name for name in BY_NAME if name.startswith("millrace_cache_semantic")}
MODELS = """
version: 1
upstreams:
  fake: {{base_url: "{url}"}}
models:
  - name: "fake*"
    targets: [{{engine: openai, upstream: fake, model: "*", price: {{prompt: 1, completion: 2}}}}]
  - name: open
    targets: [{{engine: openai, upstream: fake, model: "*"}}]
    safety: {{profile: default, on_unavailable: open}}
  - name: local
    targets: [{{engine: local, model: embedded}}]
"""
LIMITED_COUNT = 2
QUOTAS = f"""
version: 1
named: {{chat-limited: {{client: {{requests_per_minute: {LIMITED_COUNT}}}}}}}
"""
OPEN_METRICS = {"accept": "application/openmetrics-text; version=1.0.0"}

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.fixture(scope="module")
def models() -> str:
    """A model of each kind: with a price, without a look where safety is away, and computed here."""
    return MODELS


@pytest.fixture(scope="module")
def variables(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    quotas = tmp_path_factory.mktemp("quotas") / "quotas.yaml"
    quotas.write_text(QUOTAS)
    PORTS.update({name: free_port() for name in NAMES if name != "edge"})
    store = free_port()
    made = {f"MILLRACE_{name.upper()}_METRICS_PORT": str(port) for name, port in PORTS.items()}
    made |= {f"MILLRACE_{name.upper()}_SPAN_STORE": f"127.0.0.1:{store}" for name in NAMES}
    return made | {"MILLRACE_EDGE_SPAN_STORE_PORT": str(store), "MILLRACE_INFERENCE_QUOTAS_FILE": str(quotas)}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def used(suite: Suite) -> Suite:
    """The suite, after some requests: whole and streamed, cached, failed, refused, left, local, and unscreened."""
    same = f"question {secrets.token_hex(4)}"
    async with httpx.AsyncClient(timeout=20) as client:
        for model, stream, text in (
            ("fake", True, same), ("fake", False, same), ("fake", True, "another"), ("fake-error-500", False, "broken"),
        ):  # fmt: skip
            body = {"model": model, "stream": stream, "messages": [{"role": "user", "content": text}]}
            await client.post(f"{suite.url}/v1/chat/completions", json=body)
        await client.post(f"{suite.url}/v1/chat/completions", json=asking("local", "What is Millrace?"))
        for _ in range(LIMITED_COUNT + 1):
            limited = await client.post(f"{suite.url}/chat/limited", json={"message": "again", "model": "fake"})
        assert limited.status_code == 429
        async with client.stream("POST", f"{suite.url}/v1/chat/completions", json=asking("fake-slow", "go on")) as left:
            await anext(left.aiter_bytes())
        await suite.kill("safety")
        unscreened = await client.post(f"{suite.url}/v1/chat/completions", json=asking("open", "unseen"))
        assert unscreened.status_code == 200, unscreened.text
        await suite.start("safety")
        async with asyncio.timeout(DEADLINE_S):  # inference dials again in its own time
            while True:
                if await answered(client, suite):
                    break
                await asyncio.sleep(0.2)
    return suite


async def answered(client: httpx.AsyncClient, suite: Suite) -> bool:
    """Whether a question of its own is screened and answered."""
    body = asking("fake", secrets.token_hex(4))
    return (await client.post(f"{suite.url}/v1/chat/completions", json=body)).status_code == 200


def asking(model: str, text: str) -> dict[str, Any]:
    """The body of a streamed chat."""
    return {"model": model, "stream": True, "messages": [{"role": "user", "content": text}]}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def prometheus(used: Suite, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[str]:
    """A real Prometheus that scrapes the four services, and its address."""
    folder, port = tmp_path_factory.mktemp("prometheus"), free_port()
    targets = {**PORTS, "edge": used.ports["edge"]}
    jobs = "".join(
        f"  - job_name: millrace-{name}\n    static_configs: [{{targets: ['127.0.0.1:{at}']}}]\n"
        for name, at in targets.items()
    )
    rules = ROOT / "deploy/prometheus/rules"
    config = folder / "prometheus.yml"
    config.write_text(
        "global: {scrape_interval: 1s, evaluation_interval: 1s}\n"
        f"rule_files: ['{rules}/*.yml']\nscrape_configs:\n{jobs}"
    )
    log = (folder / "log").open("wb")
    process = await asyncio.create_subprocess_exec(
        "prometheus", f"--config.file={config}", f"--storage.tsdb.path={folder}/data",
        f"--web.listen-address=127.0.0.1:{port}", "--enable-feature=exemplar-storage",
        stdin=DEVNULL, stdout=log, stderr=STDOUT,
    )  # fmt: skip
    yield f"http://127.0.0.1:{port}"
    process.terminate()
    await process.wait()


async def until(url: str, wanted: Any, **params: str) -> Any:
    """What Prometheus answers, once it is what is wanted."""
    answer: Any = None
    async with httpx.AsyncClient() as client:
        try:
            async with asyncio.timeout(DEADLINE_S):
                while True:
                    try:
                        answer = (await client.get(url, params=params)).json()
                        if wanted(answer["data"]):
                            return answer["data"]
                    except (httpx.HTTPError, KeyError, ValueError):
                        pass
                    await asyncio.sleep(0.2)
        except TimeoutError:
            raise AssertionError(f"{url} says {answer}") from None


async def test_prometheus_scrapes_all_four(prometheus: str) -> None:
    """Every service is up, and the rules of this repository were evaluated without a fault."""
    found = await until(
        f"{prometheus}/api/v1/query", lambda data: len(data["result"]) == 4 and _all_up(data), query="up"
    )
    assert {one["metric"]["job"] for one in found["result"]} == {f"millrace-{name}" for name in NAMES}
    rules = await until(f"{prometheus}/api/v1/rules", lambda data: all(_evaluated(group) for group in data["groups"]))
    assert [rule["name"] for group in rules["groups"] for rule in group["rules"] if rule["health"] != "ok"] == []


def _all_up(data: Any) -> bool:
    return all(one["value"][1] == "1" for one in data["result"])


def _evaluated(group: Any) -> bool:
    return all(rule["health"] != "unknown" for rule in group["rules"])


async def test_what_is_shown_is_declared_and_what_is_declared_is_shown(used: Suite) -> None:
    """Names, kinds and labels of every page are those of kit.signals, and none of them is missing."""
    shown: dict[str, set[str]] = {}
    async with httpx.AsyncClient() as client:
        for name in NAMES:
            port = used.ports["edge"] if name == "edge" else PORTS[name]
            page = (await client.get(f"http://127.0.0.1:{port}/metrics", headers=OPEN_METRICS)).text
            for family in text_string_to_metric_families(page):
                if family.name.startswith(("process_", "python_")):
                    continue
                for sample in family.samples:
                    signal = signal_of(sample.name)
                    assert signal is not None, f"{name} shows {sample.name}, which nobody has declared"
                    assert family.type == signal.kind, sample.name
                    assert name in signal.services, f"{name} shows {sample.name}"
                    assert set(sample.labels) - {"le"} == set(signal.labels), sample
                    shown.setdefault(signal.name, set()).add(name)
    wanted = metrics_of(expression for _, expression in asked()) | {signal.name for signal in SIGNALS}
    assert wanted - shown.keys() - RARE == set()
    assert metrics_of(expression for _, expression in asked()) <= shown.keys()


async def test_a_latency_bucket_leads_to_its_trace(used: Suite) -> None:
    """The request that fell into a bucket last is its example, under the trace id that the edge's store knows."""
    async with httpx.AsyncClient() as client:
        body = {"model": "fake", "messages": [{"role": "user", "content": f"hello {secrets.token_hex(4)}"}]}
        answer = await client.post(f"{used.url}/v1/chat/completions", json=body)
        trace = (await client.get(f"{used.url}/v1/traces/{answer.headers['x-request-id']}")).json()
        page = (await client.get(f"http://127.0.0.1:{PORTS['inference']}/metrics", headers=OPEN_METRICS)).text
    examples = {
        sample.exemplar.labels["trace_id"]
        for family in text_string_to_metric_families(page)
        for sample in family.samples
        if sample.name == "gen_ai_server_request_duration_seconds_bucket" and sample.exemplar
    }
    assert trace["trace_id"] in examples


async def test_the_document_has_every_metric() -> None:
    """docs/telemetry.md holds the table that kit.signals makes."""
    assert table() in Path(ROOT / "docs/telemetry.md").read_text()
