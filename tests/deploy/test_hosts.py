"""The files of deploy/hosts: as each host defines them, and fit for what they start."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from kit.config import load
from kit.document import parse_yaml
from services.cache.config import CacheSettings
from services.edge.config import EdgeSettings
from services.inference.access.secret import new_secret
from services.inference.config import InferenceSettings
from services.inference.routing.catalog import Catalog
from services.safety.config import SafetySettings
from tests.deploy import schemas

ROOT = Path(__file__).resolve().parents[2]
HOSTS = ROOT / "deploy" / "hosts"
DOCKERFILE = (ROOT / "deploy" / "Dockerfile").read_text()


def read(path: Path) -> Any:
    """A file of any of the three syntaxes."""
    text = path.read_text()
    if path.suffix == ".toml":
        return tomllib.loads(text)
    return json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)


FILES = {
    "fly": (HOSTS / "fly" / "fly.toml", schemas.FLY),
    "heroku-app": (ROOT / "app.json", schemas.HEROKU_APP),
    "heroku-build": (ROOT / "heroku.yml", schemas.HEROKU_BUILD),
    "railway": (HOSTS / "railway" / "railway.json", schemas.RAILWAY),
    "render": (HOSTS / "render" / "render.yaml", schemas.RENDER),
    "beanstalk": (HOSTS / "beanstalk" / ".ebextensions" / "millrace.config", schemas.BEANSTALK),
}


def fly() -> dict[str, str]:
    """What fly.toml sets."""
    return dict(read(FILES["fly"][0])["env"])


def heroku() -> dict[str, str]:
    """What app.json sets; what it makes or asks for is a value of its kind."""
    return {key: one.get("value", "x" * 32) for key, one in read(FILES["heroku-app"][0])["env"].items()}


def render() -> dict[str, str]:
    """What render.yaml sets; addresses are those of Render's kind."""
    held = {"fromDatabase": "postgresql://user:password@host/name", "fromService": "redis://host:6379"}
    found = {}
    for one in read(FILES["render"][0])["services"][0]["envVars"]:
        kind = next(name for name in one if name != "key")
        found[one["key"]] = one["value"] if kind == "value" else held.get(kind, "x" * 32)
    return found


def beanstalk() -> dict[str, str]:
    """What the options of Elastic Beanstalk set."""
    return dict(read(FILES["beanstalk"][0])["option_settings"]["aws:elasticbeanstalk:application:environment"])


def systemd() -> dict[str, str]:
    """What the environment file of the units sets."""
    lines = (HOSTS / "systemd" / "millrace.env").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


VARIABLES = {one.__name__: one for one in (fly, heroku, render, beanstalk, systemd)}


@pytest.mark.parametrize("name", FILES)
def test_files_are_as_their_hosts_define_them(name: str) -> None:
    """No field is unknown, of another type, or absent where the host needs it."""
    path, schema = FILES[name]

    jsonschema.validate(read(path), schema)


@pytest.mark.parametrize("name", FILES)
def test_a_misspelt_field_is_found(name: str) -> None:
    """The schemas allow nothing but what they name."""
    path, schema = FILES[name]

    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**read(path), "memmory": "1gb"}, schema)


@pytest.mark.parametrize("host", VARIABLES)
def test_services_start_with_what_the_host_sets(host: str) -> None:
    """Every variable is one of ours with a value that is allowed, and calls need keys."""
    # What these hosts keep apart, as Upstash and others hand it out.
    apart = {
        "MILLRACE_INFERENCE_QUOTAS_REDIS_URL": "rediss://default:secret@example.upstash.io:6379",
        "MILLRACE_CACHE_REDIS_URL": "rediss://default:secret@example.upstash.io:6379",
    }
    environ = {**apart, **VARIABLES[host]()}
    if "MILLRACE_INFERENCE_ACCESS_ADMIN_KEY" in environ:  # which the host asks its user for
        environ["MILLRACE_INFERENCE_ACCESS_ADMIN_KEY"] = new_secret()
    if "MILLRACE_INFERENCE_MODELS_FILE" in environ:  # in the image, which has deploy/models there
        inside = Path(environ["MILLRACE_INFERENCE_MODELS_FILE"]).relative_to("/etc/millrace")
        environ["MILLRACE_INFERENCE_MODELS_FILE"] = str(ROOT / "deploy" / "models" / inside)

    inference, cache = load(InferenceSettings, environ), load(CacheSettings, environ)
    load(EdgeSettings, environ)
    load(SafetySettings, environ)

    assert (inference.environment, inference.access.mode) == ("production", "required")
    if host != "systemd":
        assert (cache.store, inference.quotas.store) == ("redis", "redis")


@pytest.mark.parametrize("models", sorted((ROOT / "deploy" / "models").glob("*.yaml")), ids=lambda path: path.name)
def test_models_files_are_good(models: Path) -> None:
    """What the images bring can be read, and names the models that it refers to."""
    catalog = parse_yaml(models.read_text(), Catalog, models.name)

    assert catalog.models


def test_what_is_built_is_the_whole_suite() -> None:
    """Hosts that know no build target take the Dockerfile's last: `suite`, which listens where PORT says."""
    last = re.findall(r"^FROM .* AS (\S+)$", DOCKERFILE, re.MULTILINE)[-1]
    command = DOCKERFILE.rpartition("\nCMD ")[2]

    assert last == "suite"
    assert "COPY deploy/models /etc/millrace\n" in DOCKERFILE
    assert "\nVOLUME" not in DOCKERFILE  # Railway refuses to build it
    assert "MILLRACE_EDGE_PORT=${PORT:-8080}" in command
    for path in (ROOT / "deploy/hosts/fly" / read(FILES["fly"][0])["build"]["dockerfile"],
                 ROOT / read(FILES["heroku-build"][0])["build"]["docker"]["web"],
                 ROOT / read(FILES["railway"][0])["build"]["dockerfilePath"],
                 ROOT / read(FILES["render"][0])["services"][0]["dockerfilePath"]):  # fmt: skip
        assert path.resolve() == ROOT / "deploy" / "Dockerfile"


@pytest.mark.parametrize("path", ["/readyz"])
def test_hosts_ask_whether_it_is_ready(path: str) -> None:
    """Every host that checks at all asks the same question."""
    render_web = read(FILES["render"][0])["services"][0]
    options = read(FILES["beanstalk"][0])["option_settings"]

    assert [check["path"] for check in read(FILES["fly"][0])["http_service"]["checks"]] == [path]
    assert read(FILES["railway"][0])["deploy"]["healthcheckPath"] == path
    assert render_web["healthCheckPath"] == path
    assert options["aws:elasticbeanstalk:environment:process:default"]["HealthCheckPath"] == path


def test_hosts_wait_for_the_drain() -> None:
    """What is in flight gets its grace before the host kills the container."""
    compose = read(HOSTS / "beanstalk" / "docker-compose.yml")
    waits_s = {
        "fly": float(read(FILES["fly"][0])["kill_timeout"].removesuffix("s")),
        "render": read(FILES["render"][0])["services"][0]["maxShutdownDelaySeconds"],
        "beanstalk": float(compose["services"]["millrace"]["stop_grace_period"].removesuffix("s")),
    }
    for host, wait_s in waits_s.items():
        environ = {**VARIABLES[host](), "MILLRACE_INFERENCE_QUOTAS_REDIS_URL": "redis://host"}
        # One after the other: the edge first, so that what it calls is there until its last answer.
        assert load(EdgeSettings, environ).grace_s + 10 <= wait_s


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd")
def test_units_are_good(tmp_path: Path) -> None:
    """systemd itself finds nothing wrong with them."""
    for path in [*HOSTS.glob("systemd/*.service"), *HOSTS.glob("systemd/*.target")]:
        (tmp_path / path.name).write_text(path.read_text().replace("/opt/millrace/.venv/bin/python", "/bin/true"))
    for name in ("edge", "inference", "cache", "safety"):
        shutil.copy(tmp_path / "millrace@.service", tmp_path / f"millrace@{name}.service")
    checked = subprocess.run(
        ["systemd-analyze", "verify", "./millrace@edge.service", "./millrace.target"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )

    assert (checked.returncode, checked.stderr) == (0, "")
