"""The files of the default model are the genuine ones, or nothing is loaded."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from kit import minilm
from kit.errors import MillraceError


@pytest.mark.parametrize("damage", ["changed", "missing"])
def test_files_that_are_not_genuine_are_refused(tmp_path: Path, damage: str) -> None:
    """A file that was changed or is missing is named, and nothing is loaded."""
    genuine = Path(minilm.find())
    for name in minilm.SHA256:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).symlink_to(genuine / name)
    minilm.verify(tmp_path)
    victim = tmp_path / "modules.json"
    victim.unlink()
    if damage == "changed":
        shutil.copy(genuine / "modules.json", victim)
        victim.write_text(victim.read_text().replace("sentence_transformers", "evil"))

    with pytest.raises(MillraceError, match=r"modules\.json") as refused:
        minilm.verify(tmp_path)

    assert refused.value.reason == "MODEL_NOT_GENUINE"
