"""The result of calls that write a model file."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from topgb.results import Result

if TYPE_CHECKING:
    from topgb.modelfile import Header


@dataclass(frozen=True, repr=False)
class ModelFile(Result):
    """A model file that was written; other calls take it for a path.

    path     where it is
    bytes    its size
    members  the number of models that are mixed in it
    classes  the number of classes, V
    """

    path: Path
    bytes: int
    members: int
    classes: int

    def __fspath__(self) -> str:
        return os.fspath(self.path)


def model_file(path: Path, header: "Header") -> ModelFile:
    """The file at `path`, which has this header."""
    return ModelFile(path, path.stat().st_size, len(header.members), header.classes)


@dataclass(frozen=True, repr=False)
class WrittenFile(Result):
    """A file that was written, at `path`; it stands for its path."""

    path: Path

    def __fspath__(self) -> str:
        return os.fspath(self.path)
