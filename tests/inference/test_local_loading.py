"""How far a model is that is being loaded."""

from __future__ import annotations

import logging
from itertools import count
from pathlib import Path

import pytest
from safetensors import safe_open
from transformers.utils.logging import set_tqdm_hook

from services.inference.engines.local import linears
from services.inference.engines.local.engine import LocalEngine
from services.inference.engines.local.loading import Progress, followed
from services.inference.engines.local.model import load
from tests.fakes.tiny_gpt2 import write_tiny_gpt2


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny GPT-2 on the disk."""
    return write_tiny_gpt2(tmp_path_factory.mktemp("tiny-gpt2"))


def test_every_tensor_of_a_checkpoint_counts(directory: Path, caplog: pytest.LogCaptureFixture) -> None:
    """They are the first half, in order, and the log says so; transformers' own bar is as it was afterwards."""
    caplog.set_level(logging.INFO)
    with safe_open(directory / "model.safetensors", framework="pt") as checkpoint:
        tensor_count = len(checkpoint.keys())
    progress = Progress("tiny", log_interval_s=0.0)

    with followed(progress):
        load(str(directory))

    told = [record.getMessage() for record in caplog.records if record.name.endswith("local.loading")]
    shares = [read_count / tensor_count / 2 for read_count in range(1, tensor_count + 1)]
    assert told == [f"loading tiny: {100 * share:.0f} %" for share in shares]
    assert progress.share == 0.5
    assert set_tqdm_hook(None) is None


def test_layers_are_the_other_half(directory: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Laying them out for the processor goes on where reading has ended, and comes to the whole."""
    caplog.set_level(logging.INFO)
    progress = Progress("tiny", log_interval_s=0.0)
    with followed(progress):
        network = load(str(directory)).network
    caplog.clear()

    linears.pack(network, int8=False, progress=progress)

    told = [int(record.getMessage().split()[-2]) for record in caplog.records]
    assert told == sorted(told)
    assert (told[0] >= 50, told[-1], progress.share) == (True, 100, 1.0)


def test_the_log_is_not_flooded(caplog: pytest.LogCaptureFixture) -> None:
    """However many tensors there are, there is one line in each interval."""
    caplog.set_level(logging.INFO)
    ticks = count()
    progress = Progress("large", clock=lambda: float(next(ticks)), log_interval_s=500.0)

    for half in (range(1000), range(1000)):
        assert list(progress.count(half)) == list(half)

    told = [record.getMessage() for record in caplog.records]
    assert told == [f"loading large: {percent} %" for percent in (25, 50, 75, 100)]


def test_a_load_that_fails_gives_the_bar_back(tmp_path: Path) -> None:
    """The next model to be loaded is not counted as this one."""
    progress = Progress("none")

    with pytest.raises((OSError, ValueError)), followed(progress):
        load(str(tmp_path))

    assert progress.share == 0.0
    assert set_tqdm_hook(None) is None


async def test_an_engine_tells_how_far_it_is(directory: Path) -> None:
    """Nothing before it is loaded, and all after."""
    engine = LocalEngine(str(directory), active_max=2)
    assert engine.loaded_share == 0.0

    await engine.warm()

    assert engine.loaded_share == 1.0
    await engine.close()
