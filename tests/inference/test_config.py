"""The settings of inference: what they are without a word, and what stops start-up."""

from __future__ import annotations

from pathlib import Path

import pytest

from kit.config import load
from kit.document import load_yaml
from kit.errors import ConfigError
from services.inference.config import EMBEDDED_MODELS_FILE, InferenceSettings
from services.inference.routing.catalog import Catalog


def test_it_runs_without_a_setting() -> None:
    """Loopback, its own port, the neighbours' default addresses and the embedded models."""
    settings = load(InferenceSettings, {})

    assert (settings.host, settings.port) == ("127.0.0.1", 50051)
    assert (settings.cache.target, settings.safety.target) == ("127.0.0.1:50052", "127.0.0.1:50053")
    assert load_yaml(settings.models_file or EMBEDDED_MODELS_FILE, Catalog).find("millrace-embedded").kind == "chat"


def test_variables_are_read(tmp_path: Path) -> None:
    """Each field has a variable; a neighbour's begin with its name."""
    (tmp_path / "models.yaml").touch()
    settings = load(
        InferenceSettings,
        {
            "MILLRACE_INFERENCE_PORT": "0",
            "MILLRACE_INFERENCE_MODELS_FILE": str(tmp_path / "models.yaml"),
            "MILLRACE_INFERENCE_CACHE_TARGET": "none",
            "MILLRACE_INFERENCE_SAFETY_TARGET": "dns:///safety:50053",
            "MILLRACE_INFERENCE_RUNNING_COUNT_MAX": "7",
        },
    )

    assert settings.port == 0
    assert settings.models_file == tmp_path / "models.yaml"
    assert (settings.cache.target, settings.safety.target) == ("none", "dns:///safety:50053")
    assert settings.running_count_max == 7


@pytest.mark.parametrize("name", ["MODELS_FILE", "QUOTAS_FILE"])
def test_a_missing_file_is_named_with_its_variable(name: str, tmp_path: Path) -> None:
    """A path that leads nowhere stops the start before anything is loaded, and says where it stands."""
    with pytest.raises(ConfigError, match=rf"MILLRACE_INFERENCE_{name}='.*none\.yaml': path does not point to a file"):
        load(InferenceSettings, {f"MILLRACE_INFERENCE_{name}": str(tmp_path / "none.yaml")})


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("PORT", "70000"),
        ("CACHE_LOOKUP_TIMEOUT_MS", "0"),
        ("CACHE_PENDING_COUNT_MAX", "0"),
        ("SAFETY_TIMEOUT_MS", "soon"),
        ("DEPENDENCY_WAIT_S", "-1"),
        ("RUNNING_COUNT_MAX", "0"),
        ("BATCH_CONCURRENCY", "101"),
        ("LOCAL_ACTIVE_MAX", "0"),
        ("LOCAL_QUEUE_MAX", "-1"),
        ("LOCAL_WAIT_S_MAX", "0"),
        ("TORCH_THREADS", "-1"),
    ],
)
def test_a_bad_value_stops_start_up(variable: str, value: str) -> None:
    """The complaint names the variable and the value."""
    name = f"MILLRACE_INFERENCE_{variable}"

    with pytest.raises(ConfigError) as caught:
        load(InferenceSettings, {name: value})

    assert name in caught.value.message
    assert value in caught.value.message
