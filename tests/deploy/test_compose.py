"""docker-compose.yml and the Dockerfile: what holds for every container."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from kit.config import load
from services.cache.config import CacheSettings
from services.edge.config import EdgeSettings
from services.inference.config import InferenceSettings
from services.safety.config import SafetySettings

ROOT = Path(__file__).resolve().parents[2]
SERVICES: dict[str, dict[str, Any]] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
OURS = {"edge": EdgeSettings, "inference": InferenceSettings, "cache": CacheSettings, "safety": SafetySettings}
# The GPU's container is NVIDIA's and vLLM's affair; it needs what they need.
CONFINED = [name for name in SERVICES if name != "vllm"]
# Images that have no shell have nothing that could ask.
CHECKED = [name for name, service in SERVICES.items() if service.get("profiles") != ["observability"]]
STAGE = re.compile(r"^FROM (?P<parent>\S+) AS (?P<name>\S+)\n(?P<lines>.*?)(?=^FROM |\Z)", re.MULTILINE | re.DOTALL)
STAGES = {one["name"]: one for one in STAGE.finditer((ROOT / "deploy" / "Dockerfile").read_text())}


def kind_of(name: str) -> str:
    """The service that a replica such as `cache-2` is one of."""
    return name.partition("-")[0]


def environment(service: dict[str, Any]) -> dict[str, str]:
    """What a container is told, with the defaults that compose would fill in."""
    said = {key: str(value) for key, value in service.get("environment", {}).items()}
    return {key: re.sub(r"\$\{\w+(?::-([^}]*))?\}", r"\1", value) for key, value in said.items()}


@pytest.mark.parametrize("name", CONFINED)
def test_containers_may_do_nothing_that_they_need_not(name: str) -> None:
    """A read-only root, no capabilities and no way to more, and time for the drain."""
    service = SERVICES[name]

    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert int(service["stop_grace_period"].removesuffix("s")) > 10
    assert "privileged" not in service


@pytest.mark.parametrize("name", SERVICES)
def test_containers_have_a_version_and_a_health_check(name: str) -> None:
    """No image is `latest`, by name or by leaving the tag out."""
    tag = SERVICES[name]["image"].rpartition("/")[2].partition(":")[2]

    assert tag not in ("", "latest")
    assert SERVICES[name]["healthcheck"]["test"][0] == "CMD"


def test_only_the_edge_is_published() -> None:
    """Whoever is outside meets the edge, and nothing else; on this machine dashboards may be looked at."""
    published = [name for name, one in SERVICES.items() if not all(map(is_local, one.get("ports", [])))]

    assert published == ["edge"]


def is_local(port: str) -> bool:
    """Whether a port is published to this machine alone."""
    return port.startswith("127.0.0.1:")


@pytest.mark.parametrize("name", [name for name in SERVICES if kind_of(name) in OURS])
def test_services_start_with_what_they_are_told(name: str) -> None:
    """Every variable is a setting of the service, with a value that is allowed."""
    load(OURS[kind_of(name)], environment(SERVICES[name]))


def test_replicas_answer_to_one_name() -> None:
    """The profile `scale` has three inference, two cache and two safety, found by the name that callers know."""
    replicas: dict[str, list[str]] = {}
    for name, service in SERVICES.items():
        aliases = service.get("networks", {}).get("default", {}).get("aliases", [name])
        if kind_of(name) in OURS:
            replicas.setdefault(aliases[0], []).append(name)
            assert service.get("profiles", ["scale"]) == ["scale"]
    told = environment(SERVICES["inference"])

    assert {name: len(found) for name, found in replicas.items()} == {
        "edge": 1,
        "inference": 3,
        "cache": 2,
        "safety": 2,
    }
    assert told["MILLRACE_INFERENCE_CACHE_TARGET"] == "dns:///cache:50052"
    assert told["MILLRACE_INFERENCE_SAFETY_TARGET"] == "dns:///safety:50053"


@pytest.mark.parametrize("target", ["edge", "cache", "safety", "inference-upstream", "inference", "suite"])
def test_images_run_unprivileged_and_are_checked(target: str) -> None:
    """Each image, with those that it is made from, ends as user 10001 and says how to ask for its health."""
    stage, text = target, ""
    while stage in STAGES:
        text = STAGES[stage]["lines"] + text
        stage = STAGES[stage]["parent"]

    assert text.rindex("USER 10001:10001") > text.rindex("RUN ")
    assert "HEALTHCHECK" in text
    assert "CMD [" in text
