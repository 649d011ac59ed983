"""Files that the page offers to try: those of a folder, or made-up features."""

import io
from pathlib import Path
from typing import Any

import numpy as np

from topgb.features import FeatureSpec
from topgb.serving.problems import ProblemError
from topgb.serving.service import Service
from topgb.serving.sources import ARRAYS, RECORDS, suffix_of
from topgb.video.opening import PICTURE_SUFFIXES, SUFFIXES

MOST_EXAMPLES = 24
# A made-up video has this many scenes, of this many frames each.
_SCENES, _FRAMES = 5, 6


class Examples:
    """The files by their names; the folder is listed once."""

    def __init__(self, service: Service):
        folder, most = service.settings.examples, service.settings.upload_bytes
        self._files = {} if folder is None else _files_in(folder, most)
        self._made: dict[str, bytes] = {}
        if folder is None:
            for model in service.models.values():
                spec = model.header.features
                self._made[f"made-up-{spec.width}-{spec.level}.npy"] = _made_up(spec)

    def listed(self) -> list[dict[str, Any]]:
        """Name and bytes of each file."""
        sizes = {name: path.stat().st_size for name, path in self._files.items() if path.is_file()}
        sizes |= {name: len(content) for name, content in self._made.items()}
        return [{"name": name, "bytes": size} for name, size in sizes.items()]

    def read(self, name: str) -> bytes:
        """The content of a file. Raises `ProblemError` 404."""
        if name in self._made:
            return self._made[name]
        path = self._files.get(name)
        if path is None or not path.is_file():
            raise ProblemError(404, "there is no such example; /v1/examples lists them")
        return path.read_bytes()


def _files_in(folder: Path, most_bytes: int) -> dict[str, Path]:
    known = (*ARRAYS, *RECORDS, *PICTURE_SUFFIXES, *SUFFIXES)
    found = [
        path
        for path in sorted(folder.iterdir())
        if path.is_file() and suffix_of(path.name) in known and path.stat().st_size <= most_bytes
    ]
    return {path.name: path for path in found[:MOST_EXAMPLES]}


def _made_up(spec: FeatureSpec) -> bytes:
    """An `.npy` file [T, D] of noise that changes from scene to scene, so that a timeline has something to show."""
    generator = np.random.default_rng(spec.width)
    scenes, frames = (_SCENES, _FRAMES) if spec.level == "frame" else (1, 1)
    between = np.repeat(generator.normal(size=(scenes, spec.width)), frames, axis=0)
    values = (0.8 * between + 0.3 * generator.normal(size=between.shape)).astype(np.float32)
    for feature in spec.features:
        low, high = feature.range
        if feature.dtype == "uint8":
            columns = spec.columns(feature.name)
            values[:, columns] = np.clip((low + high) / 2 + values[:, columns] * (high - low) / 5, low, high)
    file = io.BytesIO()
    np.save(file, values)
    return file.getvalue()
