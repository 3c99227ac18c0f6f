"""How the parts of inference meet: keys, files and what is there before it serves."""

from __future__ import annotations

from pathlib import Path

import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from pydantic import SecretStr

from kit import telemetry
from kit.config import ConfigError
from services.inference import wiring
from services.inference.config import CacheDialSettings, InferenceSettings, SafetyDialSettings
from services.inference.database.settings import DatabaseSettings
from services.inference.ledger.settings import LedgerSettings
from tests.fakes.openai_upstream import OpenAIUpstream
from tests.inference.parts import request
from tests.inference.suite import Serve, failure

NONE = {"cache": CacheDialSettings(target="none"), "safety": SafetyDialSettings(target="none")}
MODELS = """
version: 1
upstreams: {{up: {{base_url: "{url}", {key}}}}}
models: [{{name: gpt, targets: [{{engine: openai, upstream: up}}]}}]
defaults: {{safety: {{profile: "off"}}}}
"""


def settings(folder: Path, text: str) -> InferenceSettings:
    path = folder / "models.yaml"
    path.write_text(text)
    database = DatabaseSettings(url=SecretStr(f"sqlite+aiosqlite:///{folder}/millrace.sqlite3"))
    ledger = LedgerSettings(folder=folder / "ledger")
    return InferenceSettings(port=0, models_file=path, database=database, ledger=ledger, **NONE)  # type: ignore[arg-type]


async def build(
    folder: Path, key: str, environ: dict[str, str] | None = None, url: str = "http://127.0.0.1:1/v1"
) -> wiring.Inference:
    return await wiring.build(settings(folder, MODELS.format(url=url, key=key)), telemetry.off(), environ or {})


async def test_keys_come_from_the_environment_or_a_file(tmp_path: Path, upstream: OpenAIUpstream) -> None:
    """Where the models file says that they are; where it says nothing, none is sent."""
    (tmp_path / "key").write_text(" from-file\n")
    for key, environ in (
        ("api_key_env: UP_KEY", {"UP_KEY": "from-env"}),
        (f"api_key_file: {tmp_path}/key", {}),
        ("", {}),
    ):
        inference = await build(tmp_path, key, environ, upstream.url)
        await inference.fleet.warm(lambda *_: None)
        async for _ in inference.pipeline.run(request("hi", safety_profile="off")):
            pass
        await inference.close()

    sent = [asked.headers.get("authorization") for asked in upstream.asked]
    assert sent == ["Bearer from-env", "Bearer from-file", None]


@pytest.mark.parametrize(
    ("key", "told"),
    [("api_key_env: UP_KEY", "upstreams.up.api_key_env"), ("api_key_file: /nowhere/key", "upstreams.up.api_key_file")],
)
async def test_a_key_that_is_not_there_stops_the_start(tmp_path: Path, key: str, told: str) -> None:
    """The message names the upstream's field, never another secret."""
    with pytest.raises(ConfigError, match=told):
        await build(tmp_path, key, {"OTHER_KEY": "secret"})


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("models:\n- name: gpt\n  targets:\n  - engine: warp\n", "models.yaml:5: models[0].targets[0].engine"),
        ("models:\n- name: gpt\n  targets: []\n", "models.yaml:4: models[0].targets"),
        ("models: [\n", "models.yaml"),
    ],
)
async def test_a_bad_models_file_stops_the_start(tmp_path: Path, text: str, told: str) -> None:
    """It names file, line and field."""
    with pytest.raises(ConfigError) as caught:
        await wiring.build(settings(tmp_path, f"version: 1\n{text}"), telemetry.off(), {})

    assert told in caught.value.message


async def test_targets_of_one_upstream_share_its_engine(serve: Serve, upstream: OpenAIUpstream) -> None:
    """Six targets on one upstream open one pool of connections."""
    suite = await serve()

    fleet, catalog = suite.inference.fleet, suite.inference.router.catalog
    engines = {id(fleet.engine_for(one)) for name in ("gpt", "spared", "any-1") for one in catalog.find(name).targets}
    assert len(engines) == 1
    for model in ("gpt", "spared", "any-1"):
        await suite.generate(model)
    assert upstream.connection_count == 1


async def test_one_model_that_cannot_be_loaded_leaves_the_others(serve: Serve, tmp_path: Path) -> None:
    """It is UNAVAILABLE, says so in health and in the list, and the rest answers."""
    suite = await serve(f"  - {{name: broken, targets: [{{engine: local, model: {tmp_path}/none}}]}}")
    stub = health_pb2_grpc.HealthStub(suite.channel)
    health = await stub.Check(health_pb2.HealthCheckRequest(service="model/broken"))
    error = await failure(suite.generate("broken"))

    assert health.status == health_pb2.HealthCheckResponse.NOT_SERVING
    assert error.reason == "MODEL_UNAVAILABLE"
    assert (await suite.generate()).choices


async def test_dependencies_are_told_in_health(serve: Serve) -> None:
    """What inference leans on has a name of its own, up or down; it serves either way."""
    suite = await serve(cache=True, safety="127.0.0.1:1", dependency_wait_s=0)
    stub = health_pb2_grpc.HealthStub(suite.channel)
    states = {
        name: (await stub.Check(health_pb2.HealthCheckRequest(service=f"dependency/{name}"))).status
        for name in ("cache", "safety")
    }

    assert states == {
        "cache": health_pb2.HealthCheckResponse.SERVING,
        "safety": health_pb2.HealthCheckResponse.NOT_SERVING,
    }
