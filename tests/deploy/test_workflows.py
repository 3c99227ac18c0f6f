"""The workflows of .github: good by actionlint, and careful with what they may do."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


def read(path: Path) -> dict[Any, Any]:
    """A workflow; YAML takes its key `on` for true."""
    held: dict[Any, Any] = yaml.safe_load(path.read_text())
    return held


def test_actionlint_finds_nothing() -> None:
    """Expressions, contexts, inputs and the shell in between are as GitHub understands them."""
    actionlint = Path(sys.executable).with_name("actionlint")
    # The shell is checked too where shellcheck is there; its absence must not hide the rest.
    checked = subprocess.run([actionlint, *WORKFLOWS], cwd=ROOT, capture_output=True, text=True, check=False)

    assert (checked.returncode, checked.stdout) == (0, ""), checked.stdout + checked.stderr


def test_actionlint_would_find_something(tmp_path: Path) -> None:
    """A context that does not exist is an error: the check above can fail."""
    folder = tmp_path / ".github" / "workflows"
    folder.mkdir(parents=True)
    shutil.copy(ROOT / ".github" / "workflows" / "test.yml", folder)
    broken = folder / "test.yml"
    broken.write_text(broken.read_text().replace("matrix.python }}", "matrix.pyhton }}"))
    actionlint = Path(sys.executable).with_name("actionlint")

    checked = subprocess.run([actionlint, broken], cwd=tmp_path, capture_output=True, text=True, check=False)

    assert "pyhton" in checked.stdout


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_workflows_may_do_no_more_than_they_say(path: Path) -> None:
    """The token reads, unless a job says otherwise; every job ends; nothing runs a stranger's code with secrets."""
    workflow = read(path)

    assert workflow["permissions"] == {"contents": "read"}
    assert "pull_request_target" not in workflow[True]
    for job in workflow["jobs"].values():
        assert "uses" in job or job["timeout-minutes"] <= 120


def test_only_what_passed_is_deployed() -> None:
    """A push to main is tested before its images are made, and deployed after; a pull request never is."""
    workflow = read(ROOT / ".github" / "workflows" / "deploy.yml")
    needs = {name: job.get("needs") for name, job in workflow["jobs"].items()}

    assert workflow[True] == {"push": {"branches": ["main"]}}
    assert needs == {"test": None, "images": "test", "fly": "images", "kubernetes": "images"}
    assert workflow["jobs"]["test"]["uses"] == "./.github/workflows/test.yml"


def test_every_target_is_released() -> None:
    """Images are built for both architectures, listed, and signed by digest."""
    job = read(ROOT / ".github" / "workflows" / "release.yml")["jobs"]["image"]
    build = next(step["with"] for step in job["steps"] if "build-push-action" in step.get("uses", ""))

    assert set(job["strategy"]["matrix"]["target"]) == {
        "edge", "cache", "safety", "inference", "inference-upstream", "suite"
    }  # fmt: skip
    assert build["platforms"] == "linux/amd64,linux/arm64"
    assert build["sbom"] is True
    assert any("cosign sign --yes" in step.get("run", "") for step in job["steps"])
