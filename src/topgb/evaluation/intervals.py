"""Metrics with bootstrap intervals: those of `topgb eval --interval`."""

from dataclasses import fields
from typing import NamedTuple

import numpy as np
import torch

from topgb.evaluation.bootstrap import DEFAULT_BOOTSTRAP, Bootstrap, Interval, RankedLists, resampled
from topgb.evaluation.metrics import (
    LOSS_EPSILON,
    Decisions,
    Metrics,
    Scores,
    descending_order,
    f1_figures,
    precisions_at_equal_recall,
)
from topgb.progress import SILENT, Progress

FIGURES = tuple(field.name for field in fields(Scores) if field.name != "videos")


class _Pairs(NamedTuple):
    """(video, class) pairs, int64 [P] each."""

    videos: np.ndarray
    classes: np.ndarray

    def per_class(self, counts: np.ndarray, classes: int) -> np.ndarray:
        """float64 [V]: pairs of each class, where video i occurs `counts[i]` times."""
        return np.bincount(self.classes, weights=counts[self.videos], minlength=classes)


class ResampledMetrics(Metrics):
    """Metrics that keep each video's own share of every figure, so that videos can be drawn again."""

    def __init__(self, classes: int, thresholds: np.ndarray | None = None):
        super().__init__(classes, thresholds)
        # Each video's PERR, its loss, and whether its best class is a hit: float64 [B, 3].
        self._of_videos: list[np.ndarray] = []
        # For each batch the (video, class) pairs of labels, of given classes, and of given classes that are labels.
        self._pairs: list[list[_Pairs]] = []

    def add(self, probabilities: torch.Tensor, labels: torch.Tensor) -> None:
        super().add(probabilities, labels)
        count = labels.sum(1)
        scores, best = probabilities.topk(max(int(count.max()), 1) if len(count) else 1, dim=1)
        hits = labels.gather(1, best)
        chosen = torch.where(labels, probabilities, 1.0 - probabilities)
        own = [precisions_at_equal_recall(scores, hits, count), -(chosen + LOSS_EPSILON).log().sum(1), hits[:, 0]]
        self._of_videos.append(torch.stack([each.double() for each in own], dim=1).cpu().numpy())
        pairs = [labels]
        if self.thresholds is not None:
            given = probabilities >= self.thresholds.to(probabilities.device)
            pairs += [given, given & labels]
        self._pairs.append([_Pairs(*np.nonzero(each.cpu().numpy())) for each in pairs])

    def merge(self, other: Metrics) -> None:
        super().merge(other)
        assert isinstance(other, ResampledMetrics)
        self._of_videos += other._of_videos
        self._pairs += other._pairs

    def intervals(self, bootstrap: Bootstrap = DEFAULT_BOOTSTRAP, progress: Progress = SILENT) -> dict[str, Interval]:
        """The interval of each figure by its name; those of the classes given only with thresholds."""
        of_videos, labels, *decided = np.concatenate(self._of_videos), *self._joined_pairs()
        pooled, by_class, classes = self._lists()

        def figures(counts: np.ndarray) -> np.ndarray:
            videos, positives = counts.sum(), labels.per_class(counts, len(self.positives))
            present = positives > 0
            gap = pooled.precisions(counts).sum() / max(positives.sum(), 1)
            sums = np.bincount(classes, weights=by_class.precisions(counts), minlength=len(positives))
            averages = sums / np.maximum(positives, 1)
            perr, loss, hit = counts @ of_videos / videos
            found = [gap, hit, perr, averages.mean(), averages[present].mean() if present.any() else 0.0, loss]
            if decided:
                given, right = (pairs.per_class(counts, len(positives)) for pairs in decided)
                micro = f1_figures(*(each.sum(keepdims=True) for each in (right, given, positives)))
                macro = f1_figures(right[present], given[present], positives[present])
                found += [float(value[0]) for value in micro.values()]
                found += [float(value.mean()) if present.any() else 0.0 for value in macro.values()]
            return np.array(found)

        draws = resampled(figures, len(of_videos), bootstrap, progress)
        names = [*FIGURES, *(field.name for field in fields(Decisions) if decided)]
        return {name: bootstrap.interval(draws[:, column]) for column, name in enumerate(names)}

    def _joined_pairs(self) -> list[_Pairs]:
        firsts = np.cumsum([0, *(len(rows) for rows in self._of_videos)])
        joined = []
        for kind in range(len(self._pairs[0])):
            videos = [first + pairs[kind][0] for first, pairs in zip(firsts, self._pairs, strict=False)]
            joined.append(_Pairs(np.concatenate(videos), np.concatenate([pairs[kind][1] for pairs in self._pairs])))
        return joined

    def _lists(self) -> tuple[RankedLists, RankedLists, np.ndarray]:
        """The kept pairs as one list, the same pairs as one list per class, and the class of each hit in the latter."""
        ranking = self.ranking()
        # The videos of the ranking's pairs.
        scores = np.concatenate([part[0] for part in self._parts])
        videos = descending_order(scores.ravel()) // scores.shape[1]
        pooled = RankedLists(videos, ranking.hits)
        order = np.argsort(ranking.classes, kind="stable")
        classes = ranking.classes[order].astype(np.int64)
        by_class = RankedLists(videos[order], ranking.hits[order], np.searchsorted(classes, classes))
        return pooled, by_class, classes[by_class.places]
