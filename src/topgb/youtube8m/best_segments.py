"""Each class's best segments of a stream of predictions, in memory that does not grow with it."""

import tempfile
from pathlib import Path

import numpy as np

# Room for segments beyond the best, as a share of these; where it is full, the best are picked out.
_ROOM = 4
_LEAST_ROOM = 1024


class BestSegments:
    """The `most` segments of the greatest probability of each of `classes` classes; of equal ones the earlier.

    Takes 10 bytes for each of `classes` · `most`, or of the segments if there are fewer. With more than `memory` bytes
    they lie in a temporary file in `folder`, of which the system keeps in memory what fits.

    seen  the number of segments so far; they are numbered in the order in which they are added
    """

    def __init__(self, classes: int, most: int, segments: int, memory: int | None = None, folder: Path | None = None):
        self.most, self.seen = most, 0
        room = min(most + max(most // _ROOM, _LEAST_ROOM), max(segments, 1))
        self._scores = _array((classes, room), np.float32, memory, folder)
        self._numbers = _array((classes, room), np.int32, memory, folder)
        self._held = 0

    def add(self, probabilities: np.ndarray) -> None:
        """Add segments by their probabilities, float32 [n, classes]."""
        start = 0
        while start < len(probabilities):
            if self._held == self._scores.shape[1]:
                self._pick_best()
            part = probabilities[start : start + self._scores.shape[1] - self._held]
            place = slice(self._held, self._held + len(part))
            self._scores[:, place] = part.T
            self._numbers[:, place] = np.arange(self.seen, self.seen + len(part))
            self._held += len(part)
            self.seen += len(part)
            start += len(part)

    def of(self, position: int) -> tuple[np.ndarray, np.ndarray]:
        """The best segments of the class at `position`: their numbers int64 [K], best first, and probabilities."""
        scores, numbers = self._scores[position, : self._held], self._numbers[position, : self._held]
        # Stable, and earlier segments lie before later ones.
        order = np.argsort(-scores, kind="stable")[: self.most]
        return numbers[order].astype(np.int64), scores[order]

    def _pick_best(self) -> None:
        for scores, numbers in zip(self._scores, self._numbers, strict=True):
            least = np.partition(scores, len(scores) - self.most)[len(scores) - self.most]
            kept = scores > least
            ties = np.flatnonzero(scores == least)
            kept[ties[: self.most - np.count_nonzero(kept)]] = True
            scores[: self.most], numbers[: self.most] = scores[kept], numbers[kept]
        self._held = self.most


def _array(shape: tuple[int, int], dtype: type, memory: int | None, folder: Path | None) -> np.ndarray:
    # Half of the memory for each of the two arrays, which are equally large.
    if memory is None or 2 * shape[0] * shape[1] * np.dtype(dtype).itemsize <= memory:
        return np.empty(shape, dtype)
    with tempfile.TemporaryFile(dir=folder) as file:
        file.truncate(shape[0] * shape[1] * np.dtype(dtype).itemsize)
        # The mapping keeps the file, which has no name.
        return np.memmap(file, dtype, "r+", shape=shape)
