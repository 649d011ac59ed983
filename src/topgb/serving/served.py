"""A model as the server holds it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from topgb.errors import InputError
from topgb.modelfile import Header

# From stored features [B, T, D] and numbers of frames int [B] to probabilities float32 [B, V].
Predict = Callable[[np.ndarray, np.ndarray | None], np.ndarray]


@dataclass(frozen=True)
class ServedModel:
    """A model under its name.

    name     the name that requests use
    header   the header of its file
    bytes    the size of its file
    predict  computes probabilities float32 [B, V] from stored features [B, T, D] and frames int [B], None: all
    """

    name: str
    header: Header
    bytes: int
    predict: Predict

    def about(self) -> dict[str, Any]:
        """Its entry in `/v1/models`."""
        spec = self.header.features
        return {
            "name": self.name,
            "classes": self.header.classes,
            "features": spec.to_json()["features"],
            "level": spec.level,
            "max_frames": self.header.max_frames,
            "thresholds": self.header.thresholds is not None,
            "bytes": self.bytes,
        }


def names_for(paths: Sequence[Path]) -> list[str]:
    """A name for each model: the stem of its file, and its folder's before it where stems are alike.

    Raises `InputError` if names are alike even so.
    """
    names = [path.resolve().name if path.is_dir() else path.stem for path in paths]
    full = [f"{path.resolve().parent.name}/{name}" for path, name in zip(paths, names, strict=True)]
    chosen = [whole if names.count(name) > 1 else name for name, whole in zip(names, full, strict=True)]
    for place, name in enumerate(chosen):
        if name in chosen[:place]:
            other = paths[chosen.index(name)]
            raise InputError(f"{other} and {paths[place]} would both be called {name!r}; rename one of the files")
    return chosen
