"""The challenge's metrics over a stream of predictions, in memory bounded by 20 pairs a video."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

# The challenge looks at each video's 20 best classes only.
TOP_K = 20
# 2018: CrossEntropyLoss's epsilon (written 10e-6 there).
LOSS_EPSILON = 1e-5


@dataclass(frozen=True)
class Scores:
    """Figures of one evaluation; all but `videos` and `loss` lie in [0, 1].

    gap          global average precision over each video's 20 best classes (GAP@20)
    hit_at_1     share of videos whose best class is one of their labels
    perr         precision at equal recall rate, mean over videos
    map          mean of the classes' average precisions, 0 for a class without positives (as in 2018)
    map_present  the same mean over the classes with positives
    loss         cross entropy summed over classes, mean over videos
    """

    videos: int
    gap: float
    hit_at_1: float
    perr: float
    map: float
    map_present: float
    loss: float

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Ranking:
    """All kept pairs, best score first: `scores` float32 [P], `classes` int64 [P], `hits` bool [P]."""

    scores: np.ndarray
    classes: np.ndarray
    hits: np.ndarray


class Metrics:
    """Accumulates batches of predictions; parts made over different shards can be merged."""

    def __init__(self, classes: int):
        self.positives = np.zeros(classes, np.int64)
        self.videos = 0
        self._class_dtype = np.uint16 if classes <= 1 << 16 else np.int32
        self._hit_at_1 = 0
        self._perr = self._loss = 0.0
        self._parts: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []

    def add(self, probabilities: torch.Tensor, labels: torch.Tensor) -> None:
        """Count a batch: probabilities float32 [B, V] and labels bool [B, V], on one device."""
        scores, classes = probabilities.topk(min(TOP_K, probabilities.shape[1]), dim=1)
        hits = labels.gather(1, classes)
        self.videos += len(labels)
        self.positives += labels.sum(0).cpu().numpy()
        self._hit_at_1 += int(hits[:, 0].sum())
        self._perr += float(_precision_at_equal_recall(probabilities, labels).sum())
        self._loss += float(cross_entropy(probabilities, labels)) * len(labels)
        self._parts.append((scores.cpu().numpy(), classes.cpu().numpy().astype(self._class_dtype), hits.cpu().numpy()))

    def merge(self, other: "Metrics") -> None:
        """Add what another accumulator, over the same classes, has counted."""
        self.positives += other.positives
        self.videos += other.videos
        self._hit_at_1 += other._hit_at_1
        self._perr += other._perr
        self._loss += other._loss
        self._parts += other._parts

    def ranking(self) -> Ranking:
        """Every kept pair in one list, best first; equal scores keep the order in which they came."""
        if not self._parts:
            return Ranking(np.zeros(0, np.float32), np.zeros(0, np.int64), np.zeros(0, bool))
        scores, classes, hits = (
            np.concatenate([part.ravel() for part in parts]) for parts in zip(*self._parts, strict=True)
        )
        order = np.argsort(-scores, kind="stable")
        return Ranking(scores[order], classes[order].astype(np.int64), hits[order])

    def average_precisions(self) -> np.ndarray:
        """float64 [V]: each class's average precision over its kept pairs, 0 where it has no positives."""
        ranking = self.ranking()
        order = np.argsort(ranking.classes, kind="stable")
        classes, hits = ranking.classes[order], ranking.hits[order]
        counts = np.bincount(classes, minlength=len(self.positives))
        first = np.repeat(np.cumsum(counts) - counts, counts)
        rank = np.arange(len(classes)) - first + 1
        cumulative = np.concatenate([[0], np.cumsum(hits)])
        hits_so_far = cumulative[1:] - cumulative[first]
        sums = np.bincount(classes, weights=hits * hits_so_far / rank, minlength=len(self.positives))
        return sums / np.maximum(self.positives, 1)

    def compute(self) -> Scores:
        """The figures of everything counted so far. At least one video must have been counted."""
        hits = self.ranking().hits
        precision = np.cumsum(hits) / np.arange(1, len(hits) + 1)
        average = self.average_precisions()
        present = self.positives > 0
        return Scores(
            videos=self.videos,
            gap=float((precision * hits).sum() / max(self.positives.sum(), 1)),
            hit_at_1=self._hit_at_1 / self.videos,
            perr=self._perr / self.videos,
            map=float(average.mean()),
            map_present=float(average[present].mean()) if present.any() else 0.0,
            loss=self._loss / self.videos,
        )


def cross_entropy(probabilities: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Cross entropy summed over classes, mean over videos, of probabilities float32 [B, V] and labels [B, V].

    Equals 2018's `CrossEntropyLoss`: Σ -log(p + ε) over labels (bool) and -log(1 - p + ε) over the rest; with labels
    between 0 and 1 (float) each class counts both, by its share.
    """
    if labels.dtype != torch.bool:
        hit, miss = (probabilities + LOSS_EPSILON).log(), (1.0 - probabilities + LOSS_EPSILON).log()
        return -torch.lerp(miss, hit, labels.float()).sum(1).mean()
    chosen = torch.where(labels, probabilities, 1.0 - probabilities)
    return -(chosen + LOSS_EPSILON).log().sum(1).mean()


def _precision_at_equal_recall(probabilities: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """float [B]: the share that is right of a video's n best classes above probability 0, n its number of labels."""
    count = labels.sum(1)
    most = int(count.max()) if len(count) else 0
    if most == 0:
        return torch.zeros(len(labels), device=labels.device)
    scores, classes = probabilities.topk(most, dim=1)
    within = torch.arange(most, device=labels.device) < count[:, None]
    right = labels.gather(1, classes) & within & (scores > 0)
    return right.sum(1) / count.clamp_min(1)
