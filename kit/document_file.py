"""A configuration file that may change while the process runs: read whole, and looked at now and then."""

from __future__ import annotations

from pathlib import Path
from typing import Generic

from kit.document import ModelT, load_yaml


class DocumentFile(Generic[ModelT]):
    """A YAML file of one model, and how it looked when it was read last."""

    def __init__(self, path: Path, model: type[ModelT]) -> None:
        self._path, self._model = path, model
        self._seen: tuple[int, ...] | None = None

    def read(self) -> ModelT:
        """Reads the file.

        Raises:
            ConfigError: It is bad; names file, line and field.
        """
        self._seen = self._look()  # before: what is written while it is read is seen as another change
        return load_yaml(self._path, self._model)

    def has_changed(self) -> bool:
        """Whether it is another than was read last, good or bad."""
        return self._look() != self._seen

    def _look(self) -> tuple[int, ...] | None:
        try:
            found = self._path.stat()  # of the file itself: a mounted ConfigMap changes by another link on the way
        except OSError:
            return None
        return (found.st_mtime_ns, found.st_size, found.st_ino, found.st_dev)
