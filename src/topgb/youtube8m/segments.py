"""MAP@K of rated segments, by the definition of the 2019 challenge and by that of its published scorer."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

# The challenge counted this many segments of each class.
CHALLENGE_K = 100_000


def average_precision(hits: np.ndarray) -> float:
    """Σ over hits of (hits so far ÷ rank), for the ranking `hits`, bool [n], best first; not divided by anything."""
    places = np.flatnonzero(hits)
    return float(((np.arange(len(places)) + 1) / (places + 1)).sum())


@dataclass(frozen=True)
class SegmentScores:
    """Figures of one evaluation on rated segments.

    segments            segments with a rating
    rated               rated pairs of a segment and a class
    k                   the most segments of a class that count
    map_at_k            mean over the classes with positives of the average precision: of the class's first `k` segments
                        the unrated ones are left out; Σ over hits of (hits so far ÷ rank among these) ÷ all positives.
                        A class that the model does not predict counts 0
    map_at_k_submitted  the same over the predicted classes alone, each sum divided by min(positives, `k`)
    classes             the number of classes with positives
    """

    segments: int
    rated: int
    k: int
    map_at_k: float
    map_at_k_submitted: float
    classes: int

    def to_json(self) -> dict[str, Any]:
        return dict(vars(self))


@dataclass
class RatedPairs:
    """Rated pairs with their predictions.

    segments  int64, the number of each pair's segment, in the order of the records
    classes   int64, its class
    positive  bool
    scores    float32, the predicted probability
    """

    segments: list[np.ndarray] = field(default_factory=list)
    classes: list[np.ndarray] = field(default_factory=list)
    positive: list[np.ndarray] = field(default_factory=list)
    scores: list[np.ndarray] = field(default_factory=list)

    def add(self, first: int, labels: np.ndarray, rated: np.ndarray, probabilities: np.ndarray) -> None:
        """Add the segments from number `first` on: three arrays [n, V], bool, bool and float32."""
        rows, classes = np.nonzero(rated)
        self.segments.append(rows + first)
        self.classes.append(classes)
        self.positive.append(labels[rows, classes])
        self.scores.append(probabilities[rows, classes])

    def joined(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Segments, classes, positive and scores, each [R]."""
        return (
            np.concatenate([np.zeros(0, np.int64), *self.segments]),
            np.concatenate([np.zeros(0, np.int64), *self.classes]),
            np.concatenate([np.zeros(0, np.bool_), *self.positive]),
            np.concatenate([np.zeros(0, np.float32), *self.scores]),
        )


def map_at_k(
    pairs: RatedPairs, segments: int, k: int, predicted: np.ndarray, first: dict[int, np.ndarray] | None = None
) -> SegmentScores:
    """MAP@K of `pairs` in `segments` segments.

    `predicted`, bool [V], are the classes that the model predicts. Among equal probabilities the earlier segment ranks
    first. `first` gives the numbers of each class's first `k` segments, rated or not; None where there are no more
    segments than `k`.
    """
    numbers, classes, positive, scores = pairs.joined()
    order = np.lexsort((numbers, -scores, classes))
    numbers, classes, positive = numbers[order], classes[order], positive[order]
    found, starts = np.unique(classes, return_index=True)
    total = submitted = 0.0
    counted = shown = 0
    for number, start, end in zip(found.tolist(), starts, [*starts[1:], len(classes)], strict=True):
        positives = int(np.count_nonzero(positive[start:end]))
        if not positives:
            continue
        counted += 1
        if not predicted[number]:
            continue
        hits = positive[start:end]
        if first is not None:
            hits = hits[np.isin(numbers[start:end], first[number])]
        precisions = average_precision(hits)
        shown += 1
        total += precisions / positives
        submitted += precisions / min(positives, k)
    return SegmentScores(segments, len(numbers), k, total / max(1, counted), submitted / max(1, shown), counted)
