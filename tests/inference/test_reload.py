"""Reload: a changed models file takes effect at one stroke, and no call notices."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from pathlib import Path
from typing import Any

import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from kit.errors import Unavailable
from millrace.inference.v1 import inference_service_pb2 as pb
from millrace.inference.v1 import model_pb2
from services.inference.routing.catalog import Target
from tests.fakes.openai_upstream import OpenAIUpstream, Reply
from tests.fakes.tiny_gpt2 import write_tiny_gpt2
from tests.inference.suite import Serve, Suite, failure, kinds, text_of

SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING
UNKNOWN = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
DEADLINE_S = 20.0
GPT = "{name: gpt, targets: [{engine: openai, upstream: fake, model: gpt, price: {prompt: 2, completion: 10}}]}"
OTHER = "{name: other, targets: [{engine: openai, upstream: fake, model: other}]}"
FILE = """version: 1
upstreams:
  fake: {{base_url: "{url}"}}
defaults: {{safety: {{profile: "off"}}, cache: {{enabled: false}}}}
models:
  {models}
"""


class Place:
    """The running service and its models file."""

    def __init__(self, suite: Suite, path: Path, url: str) -> None:
        self.suite, self.path, self._url = suite, path, url

    def text(self, *models: str) -> str:
        return FILE.format(url=self._url, models="\n  ".join(f"- {one}" for one in models))

    async def change(self, *models: str) -> None:
        """Puts these models into the file, and has it looked at."""
        self.path.write_text(self.text(*models))
        await self.suite.inference.reload.check()

    async def replace(self, old: str, new: str, *models: str) -> None:
        """Puts these models into the file, with other words in it."""
        self.path.write_text(self.text(*models).replace(old, new))
        await self.suite.inference.reload.check()

    async def health(self, name: str) -> int:
        """The status that a watcher of a name sees now."""
        async with asyncio.timeout(DEADLINE_S):
            async for status in self.watch(name):
                return status
        raise AssertionError("the watch ended")

    async def becomes(self, name: str, wanted: int) -> None:
        """Waits until a name has a status."""
        async with asyncio.timeout(DEADLINE_S):
            async for status in self.watch(name):
                if status == wanted:
                    return

    async def watch(self, name: str) -> Any:
        call = health_pb2_grpc.HealthStub(self.suite.channel).Watch(health_pb2.HealthCheckRequest(service=name))
        try:
            async for answer in call:
                yield answer.status
        finally:
            call.cancel()

    async def names(self) -> list[str]:
        """The models that are listed."""
        answer = await self.suite.stub.ListModels(pb.ListModelsRequest(), timeout=DEADLINE_S)
        return [model.name for model in answer.models]


@pytest.fixture
async def place(serve: Serve, tmp_path: Path, upstream: OpenAIUpstream) -> Place:
    """The service, going by a file of two models."""
    place = Place(await serve(), tmp_path / "models.yaml", upstream.url)
    await place.change(GPT, OTHER)
    return place


async def price(place: Place) -> int:
    """Dollars per million tokens of prompt, by what a call was charged for."""
    receipt = (await place.suite.generate("gpt")).receipt
    used = receipt.usage
    return int((receipt.cost_micro_usd - 10 * used.completion_token_count) / used.prompt_token_count)


async def test_a_new_price_is_charged(place: Place) -> None:
    """From the next call on; the model goes on with the engine it has."""
    engine = engine_of(place, "gpt")
    assert await price(place) == 2

    await place.change(GPT.replace("prompt: 2", "prompt: 4"), OTHER)

    assert await price(place) == 4
    assert engine_of(place, "gpt") is engine


def target(place: Place, model: str) -> Target:
    return place.suite.inference.router.catalog.find(model).targets[0]


def engine_of(place: Place, model: str) -> object:
    return place.suite.inference.fleet.engine_for(target(place, model))


async def test_a_stream_outlives_its_model(place: Place, upstream: OpenAIUpstream) -> None:
    """It ends as if nothing had happened, while nobody else finds the model any more; then its engine is let go."""
    upstream.replies["gpt"] = Reply(gate_after=2)
    call = place.suite.start("gpt")
    asked = await upstream.next()
    await asked.began.wait()
    fleet, reload, removed = place.suite.inference.fleet, place.suite.inference.reload, target(place, "gpt")

    await place.replace("fake", "renamed", OTHER)

    assert await place.names() == ["other"]
    assert (await failure(place.suite.generate("gpt"))).reason == "MODEL_NOT_FOUND"
    assert await place.health("model/gpt") == UNKNOWN
    await reload.check()
    assert fleet.engine_for(removed)
    asked.gate.set()
    events = [event async for event in call]
    assert text_of(events) == "Hello, world!"
    assert kinds(events)[-1] == "completed"
    await reload.check()
    with pytest.raises(Unavailable):
        fleet.engine_for(removed)


async def test_a_call_meets_one_file_only(place: Place, upstream: OpenAIUpstream) -> None:
    """A call whose second target's turn comes after a change still finds it, though no file names it any more."""
    upstream.replies["first"] = Reply(gate_after=0, cut_after=1)
    await place.change(
        "{name: gpt, targets: [{engine: openai, upstream: fake, model: first},"
        " {engine: openai, upstream: fake, model: second}]}"
    )
    call = asyncio.create_task(place.suite.generate("gpt"))
    asked = await upstream.next()
    await asked.began.wait()

    await place.replace("fake", "renamed", OTHER)
    asked.gate.set()

    generation = await call
    assert [attempt.target for attempt in generation.receipt.attempts] == ["fake:first", "fake:second"]


BAD = "{name: gpt, targets: [{engine: openai, upstream: fake, price: {prompt: -1, completion: 1}}]}"


async def test_a_bad_file_changes_nothing(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    """It is named in the log, by line and field, once; health tells of it until the file is good again."""
    with caplog.at_level(logging.ERROR):
        await place.change(OTHER, BAD)
        await place.suite.inference.reload.check()

    (record,) = caplog.records
    assert "models.yaml:7: models[1].targets[0].price.prompt:" in record.getMessage()
    assert await place.health("models-file") == NOT_SERVING
    assert await price(place) == 2

    await place.change(OTHER)
    assert await place.health("models-file") == SERVING
    assert await place.names() == ["other"]


async def test_a_file_that_is_gone_changes_nothing(place: Place) -> None:
    """As it is for a moment where it is replaced by hand."""
    text = place.path.read_text()
    place.path.unlink()
    await place.suite.inference.reload.check()
    assert await place.health("models-file") == NOT_SERVING
    assert await place.names() == ["gpt", "other"]

    place.path.write_text(text)
    await place.suite.inference.reload.check()
    assert await place.health("models-file") == SERVING


async def test_a_missing_key_changes_nothing(place: Place) -> None:
    """What cannot be made is a fault of the file like any other."""
    await place.replace("base_url", "api_key_env: NOBODY, base_url", GPT)

    assert await place.health("models-file") == NOT_SERVING
    assert await price(place) == 2


async def test_a_new_local_model_is_loaded(place: Place, tmp_path: Path) -> None:
    """It is listed when it can answer, not before, and answers."""
    folder = write_tiny_gpt2(tmp_path / "tiny")

    await place.change(GPT, f"{{name: tiny, targets: [{{engine: local, model: {folder}}}]}}")

    assert await place.names() == ["gpt", "tiny"]
    assert await place.health("model/tiny") == SERVING
    generation = await place.suite.generate("tiny", raw_prompt="hello", conversation=None, sampling={"max_tokens": 3})
    assert generation.receipt.usage.completion_token_count > 0


async def test_a_local_model_that_cannot_be_loaded_changes_nothing(place: Place, tmp_path: Path) -> None:
    """The file that names it is refused as a whole."""
    await place.change(OTHER, f"{{name: tiny, targets: [{{engine: local, model: {tmp_path}/none}}]}}")

    assert await place.health("models-file") == NOT_SERVING
    assert await place.names() == ["gpt", "other"]
    assert await place.health("model/tiny") == UNKNOWN


async def test_a_signal_tries_again(serve: Serve, tmp_path: Path, upstream: OpenAIUpstream) -> None:
    """SIGHUP has an unchanged file read: a model that could not be loaded at start has another chance."""
    folder = tmp_path / "late"
    suite = await serve(f"  - {{name: late, targets: [{{engine: local, model: {folder}}}]}}")
    place = Place(suite, tmp_path / "models.yaml", upstream.url)
    assert await place.health("model/late") == NOT_SERVING
    write_tiny_gpt2(folder)

    os.kill(os.getpid(), signal.SIGHUP)

    await place.becomes("model/late", SERVING)


async def test_the_file_is_watched(place: Place) -> None:
    """Nobody has to ask: within a second or so a change is in force."""
    assert await place.health("model/new") == UNKNOWN

    place.path.write_text(place.text(GPT, OTHER.replace("name: other", "name: new")))

    await place.becomes("model/new", SERVING)
    await place.becomes("model/other", UNKNOWN)


async def test_a_link_on_the_way_is_followed(place: Place, tmp_path: Path) -> None:
    """As Kubernetes changes a mounted ConfigMap: the file is a link, and a folder on its way is swapped."""
    for name, text in (("one", place.text(GPT)), ("two", place.text(OTHER))):
        (tmp_path / name).mkdir()
        (tmp_path / name / "models.yaml").write_text(text)
    data = tmp_path / "..data"
    data.symlink_to("one")
    place.path.unlink()
    place.path.symlink_to(data / "models.yaml")
    await place.suite.inference.reload.check()
    assert await place.names() == ["gpt"]

    (tmp_path / "..next").symlink_to("two")
    (tmp_path / "..next").rename(data)
    await place.suite.inference.reload.check()

    assert await place.names() == ["other"]


async def test_the_need_for_safety_follows(place: Place) -> None:
    """`needs/safety` is what the edge's health rests on."""
    assert await place.health("needs/safety") == NOT_SERVING

    await place.change(GPT[:-1] + ", safety: {profile: default}}")

    assert await place.health("needs/safety") == SERVING


async def test_other_settings_are_another_engine(place: Place, upstream: OpenAIUpstream) -> None:
    """A changed upstream is asked under its new settings by the next call."""
    await place.suite.generate("gpt")
    await place.replace("base_url", "headers: {x-tier: gold}, base_url", GPT)

    await place.suite.generate("gpt")

    assert [asked.headers.get("x-tier") for asked in upstream.asked] == [None, "gold"]


async def test_what_comes_back_is_not_closed(place: Place, upstream: OpenAIUpstream) -> None:
    """An engine that one file leaves out and the next one names again goes on, while a call of the first holds it."""
    upstream.replies["gpt"] = Reply(gate_after=2)
    call = place.suite.start("gpt")
    asked = await upstream.next()
    await asked.began.wait()
    engine = engine_of(place, "gpt")

    await place.replace("fake", "renamed", OTHER)
    await place.change(GPT)
    asked.gate.set()
    assert text_of([event async for event in call]) == "Hello, world!"
    await place.suite.inference.reload.check()

    assert engine_of(place, "gpt") is engine
    del upstream.replies["gpt"]
    assert (await place.suite.generate("gpt")).receipt.target == "fake:gpt"


async def test_declared_capabilities_are_listed(place: Place) -> None:
    """Those for which the contract has words, of any target; what targets keep to themselves is not guessed."""
    await place.change(GPT, OTHER.replace("model: other", "model: other, capabilities: [vision, json_schema, audio]"))

    answer = await place.suite.stub.ListModels(pb.ListModelsRequest(), timeout=DEADLINE_S)

    talks = [model_pb2.MODEL_CAPABILITY_CHAT, model_pb2.MODEL_CAPABILITY_COMPLETION]
    sees = [model_pb2.MODEL_CAPABILITY_IMAGE_INPUT, model_pb2.MODEL_CAPABILITY_STRUCTURED_OUTPUT]
    assert [list(model.capabilities) for model in answer.models] == [talks, [*talks, *sees]]
