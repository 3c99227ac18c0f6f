"""What the overlays of deploy/kubernetes come to, as a cluster would get it."""

from __future__ import annotations

import os
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

OVERLAYS = Path(__file__).resolve().parents[2] / "deploy" / "kubernetes" / "overlays"
NAMES = ("dev", "prod", "gpu-vllm")
# Kinds of pods with their template, and of jobs.
WORKLOADS = ("Deployment", "StatefulSet", "Job")

Object = dict[str, Any]


@cache
def rendered(overlay: str) -> list[Object]:
    """The objects of an overlay; the test is skipped where nothing can render them, and fails in CI."""
    if shutil.which("kubectl"):
        command = ["kubectl", "kustomize"]
    elif shutil.which("kustomize"):
        command = ["kustomize", "build"]
    elif os.environ.get("CI"):
        pytest.fail("neither kubectl nor kustomize is installed")
    else:
        pytest.skip("needs kubectl or kustomize")
    done = subprocess.run([*command, OVERLAYS / overlay], capture_output=True, text=True, check=False)
    # A field that kustomize is about to drop is an error here, a warning there.
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return list(yaml.safe_load_all(done.stdout))


def of_kind(overlay: str, *kinds: str) -> list[Object]:
    """The objects of these kinds."""
    return [one for one in rendered(overlay) if one["kind"] in kinds]


def named(overlay: str, kind: str, name: str) -> Object:
    """One object."""
    return next(one for one in of_kind(overlay, kind) if one["metadata"]["name"] == name)


def pods() -> list[tuple[str, Object]]:
    """Every workload of every overlay, with the overlay's name; empty where nothing can be rendered, but not in CI."""
    if not (shutil.which("kubectl") or shutil.which("kustomize") or os.environ.get("CI")):
        return []
    return [(overlay, one) for overlay in NAMES for one in of_kind(overlay, *WORKLOADS)]


def variables(overlay: str, workload: Object) -> dict[str, str]:
    """The environment of a workload, as far as the overlay itself holds it."""
    found: dict[str, str] = {}
    for source in workload["spec"]["template"]["spec"]["containers"][0].get("envFrom", []):
        if "configMapRef" in source:
            found |= named(overlay, "ConfigMap", source["configMapRef"]["name"])["data"]
    return found
