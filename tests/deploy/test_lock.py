"""What images are made of: every file is known by its hash, in the versions that were tested."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
EXTRAS = ("inference", "local", "encoder", "cache", "safety", "edge", "cli")


def locked() -> dict[str, tuple[str, list[str]]]:
    """Version and hashes of each package of the lock, by its normal name."""
    lines = (ROOT / "deploy" / "lock.txt").read_text().replace("\\\n", " ").splitlines()
    found = {}
    for line in lines:
        if line.startswith("#"):
            continue
        requirement, *hashes = line.split(" --hash=")
        package = Requirement(requirement)
        (only,) = package.specifier
        assert only.operator == "=="
        found[canonicalize_name(package.name)] = only.version, [one.strip() for one in hashes]
    return found


def constrained() -> dict[str, str]:
    """Versions of constraints.txt."""
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pairs = (line.split("==") for line in lines if line and not line.startswith("#"))
    return {canonicalize_name(name): version for name, version in pairs}


def needed(*arguments: str) -> list[Requirement]:
    """What the Dockerfile installs for extras."""
    command = [sys.executable, "deploy/requirements.py", *arguments]
    said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [Requirement(line) for line in said.splitlines() if not line.startswith(".")]


def test_every_file_has_a_hash() -> None:
    """SHA-256, at least one for each package."""
    for name, (_, hashes) in locked().items():
        assert hashes, name
        assert all(re.fullmatch("sha256:[0-9a-f]{64}", one) for one in hashes), name


def test_versions_are_those_that_were_tested() -> None:
    """After a change of constraints.txt, `tools/lock.sh` writes the lock anew."""
    known = constrained()

    assert {name: version for name, (version, _) in locked().items() if known.get(name, version) != version} == {}


def test_all_that_images_need_is_locked() -> None:
    """Whatever the extras name, but for torch, in a version that fits."""
    lock = locked()
    for one in [*needed(*EXTRAS), *needed("--own", *EXTRAS)]:
        if one.name != "torch":
            assert one.specifier.contains(lock[canonicalize_name(one.name)][0]), one


def test_nothing_in_the_dockerfile_asks_an_index_for_libraries() -> None:
    """Torch and the tools that stay outside are installed by version; what fills an image comes from the lock."""
    text = (ROOT / "deploy" / "Dockerfile").read_text()

    assert "pip download --require-hashes --no-deps" in text
    assert "install --no-index --find-links /wheels" in text
    assert len(re.findall(r"--python /opt/venv/bin/python install(?! --no-index)", text)) == 1
