"""A model that turns texts into vectors, as files: where they lie, what they say, and which version they are.

The layout is that of sentence-transformers: `modules.json` names the steps, `config.json` describes the transformer,
and the weights lie beside them. This module reads the small files and digests all of them; it loads no weights and runs
no code of a model.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from kit import minilm
from kit.errors import FailedPrecondition

# What a model is read from; the rest of a directory (cards, pictures, other formats of the weights) is no part of it.
SUFFIXES = (".json", ".txt", ".model", ".safetensors", ".bin")
# So that a download leaves out the copies for other runtimes.
HUB_PATTERNS = ["*.json", "*.txt", "*.model", "*.safetensors", "*/config.json", "*/model.safetensors"]

Pooling = Literal["mean", "cls"]
Precision = Literal["float32", "int8", "int8_blocks"]


@dataclass(frozen=True, slots=True)
class SentenceModel:
    """The small files of one model, read.

    Attributes:
        name: What it was asked for by.
        folder: Where its files lie.
        digest: SHA-256 of all files that it is read from, in hex.
        config: `config.json`, the transformer's.
        steps: Kinds of the steps that a text goes through, such as Transformer, Pooling, Normalize.
        pooling: How the states of the tokens become one; None for a way that has no name here.
        token_max: Most tokens of a text, the special ones included.
        precision: Of the numbers that it computes with.
    """

    name: str
    folder: Path
    digest: str
    config: dict[str, Any]
    steps: tuple[str, ...]
    pooling: Pooling | None
    token_max: int
    precision: Precision = "float32"

    @property
    def version(self) -> str:
        """Names the space of its vectors: those of two versions must never be compared."""
        return f"{Path(self.name).name}@{self.digest[:12]}/{self.precision}"


def find(name: str, precision: Precision = "float32") -> SentenceModel:
    """Finds a model: `all-minilm-l6-v2`, a directory, or a name on the hub.

    Raises:
        FailedPrecondition: MODEL_NOT_GENUINE, or MODEL_NOT_LOADABLE where there is no such model.
    """
    folder = _locate(name)
    try:
        steps = json.loads((folder / "modules.json").read_text())
        config = json.loads((folder / "config.json").read_text())
        return SentenceModel(
            name=name,
            folder=folder,
            digest=_digest(folder),
            config=config,
            steps=tuple(step["type"].rpartition(".")[2] for step in steps),
            pooling=_pooling(folder, [step["path"] for step in steps if step["type"].endswith("Pooling")]),
            token_max=_token_max(folder, config),
            precision=precision,
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise not_loadable(name, error) from error


def not_loadable(name: str, error: Exception) -> FailedPrecondition:
    """Says which model cannot be loaded, and the first line of why."""
    said = str(error).strip().partition("\n")[0] or type(error).__name__
    return FailedPrecondition("MODEL_NOT_LOADABLE", f"model {name!r} cannot be loaded: {said}")


def _locate(name: str) -> Path:
    """Returns the directory of a model, fetched from the hub where it is not here."""
    source = minilm.find() if name == minilm.NAME else name
    if Path(source).is_dir():
        return Path(source)
    try:
        from huggingface_hub import snapshot_download

        revision = minilm.HUB_REVISION if source == minilm.HUB_NAME else None
        return Path(snapshot_download(source, revision=revision, allow_patterns=HUB_PATTERNS))
    except (ImportError, OSError, ValueError) as error:  # its own errors are kinds of these
        raise not_loadable(name, error) from error


def _digest(folder: Path) -> str:
    """Digests the names and contents of all files that a model is read from."""
    total = hashlib.sha256()
    for path in sorted(path for path in [*folder.glob("*"), *folder.glob("*/*")] if path.suffix in SUFFIXES):
        with path.open("rb") as file:
            total.update(f"{path.relative_to(folder)}\0".encode())
            total.update(hashlib.file_digest(file, "sha256").digest())
    return total.hexdigest()


def _pooling(folder: Path, paths: list[str]) -> Pooling | None:
    """Reads which one way of pooling is on: a name since version 6 of the library, a switch for each before."""
    if len(paths) != 1:
        return None
    settings = _read(folder / paths[0] / "config.json")
    switches = {"mean": settings.get("pooling_mode_mean_tokens"), "cls": settings.get("pooling_mode_cls_token")}
    way = settings.get("pooling_mode")
    if way is None and sum(value is True for name, value in settings.items() if name.startswith("pooling_mode_")) == 1:
        way = next((name for name, on in switches.items() if on), None)
    return way if way in ("mean", "cls") else None


def _token_max(folder: Path, config: dict[str, Any]) -> int:
    """Reads the length that a model was trained for, which is often less than it has positions."""
    own, tokenizer = _read(folder / "sentence_bert_config.json"), _read(folder / "tokenizer_config.json")
    if own.get("max_seq_length"):
        return int(own["max_seq_length"])
    limits = (tokenizer.get("model_max_length"), config.get("max_position_embeddings"))
    return min(int(limit) for limit in limits if limit)


def _read(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_text())) if path.exists() else {}
