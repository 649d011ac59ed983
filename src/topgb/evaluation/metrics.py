"""The challenge's metrics over a stream of predictions, in memory bounded by 20 pairs a video."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

# The challenge looks at each video's 20 best classes only.
TOP_K = 20
# 2018: CrossEntropyLoss's epsilon (written 10e-6 there).
LOSS_EPSILON = 1e-5
# Videos counted at a time on a CPU, so that what is made of their probabilities stays in its cache.
_ROWS = 128
# Of so many classes the best is looked at first.
_GROUP = 32


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
    """All kept pairs, best score first: `scores` float32 [P], `classes` uint16 or int32 [P], `hits` bool [P]."""

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
        rows = _ROWS if probabilities.device.type == "cpu" else max(len(labels), 1)
        for p, y in zip(probabilities.split(rows), labels.split(rows), strict=True):
            self._add(p, y)

    def _add(self, probabilities: torch.Tensor, labels: torch.Tensor) -> None:
        videos, classes = labels.shape
        positions = _positions(labels)
        count = torch.bincount(positions // classes, minlength=videos)
        scores, best = _best(probabilities, min(TOP_K, classes))
        hits = labels.gather(1, best)
        self.videos += videos
        self.positives += torch.bincount(positions % classes, minlength=classes).cpu().numpy()
        self._hit_at_1 += int(hits[:, 0].sum())
        most = int(count.max()) if videos else 0
        if most <= scores.shape[1]:
            self._perr += float(_precision_at_equal_recall(scores, hits, count).sum())
        else:
            scores_of_most, best_of_most = _best(probabilities, most)
            self._perr += float(_precision_at_equal_recall(scores_of_most, labels.gather(1, best_of_most), count).sum())
        self._loss += float(_summed_cross_entropy(probabilities, positions))
        self._parts.append((scores.cpu().numpy(), best.cpu().numpy().astype(self._class_dtype), hits.cpu().numpy()))

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
            return Ranking(np.zeros(0, np.float32), np.zeros(0, self._class_dtype), np.zeros(0, bool))
        scores, classes, hits = (
            np.concatenate([part.ravel() for part in parts]) for parts in zip(*self._parts, strict=True)
        )
        order = _best_first(scores)
        return Ranking(scores[order], classes[order], hits[order])

    def average_precisions(self) -> np.ndarray:
        """float64 [V]: each class's average precision over its kept pairs, 0 where it has no positives."""
        return self._average_precisions(self.ranking())

    def _average_precisions(self, ranking: Ranking) -> np.ndarray:
        order = np.argsort(ranking.classes, kind="stable")
        places = np.flatnonzero(ranking.hits[order])
        classes = ranking.classes[order[places]]
        counts, hits = (np.bincount(of, minlength=len(self.positives)) for of in (ranking.classes, classes))
        rank = places + 1 - (np.cumsum(counts) - counts)[classes]
        hits_so_far = np.arange(1, len(places) + 1) - (np.cumsum(hits) - hits)[classes]
        sums = np.bincount(classes, weights=hits_so_far / rank, minlength=len(self.positives))
        return sums / np.maximum(self.positives, 1)

    def compute(self) -> Scores:
        """The figures of everything counted so far. At least one video must have been counted."""
        ranking = self.ranking()
        average = self._average_precisions(ranking)
        present = self.positives > 0
        return Scores(
            videos=self.videos,
            gap=average_precision(ranking.hits, int(self.positives.sum())),
            hit_at_1=self._hit_at_1 / self.videos,
            perr=self._perr / self.videos,
            map=float(average.mean()),
            map_present=float(average[present].mean()) if present.any() else 0.0,
            loss=self._loss / self.videos,
        )


def average_precision(hits: np.ndarray, positives: int) -> float:
    """Average precision of ranked pairs: `hits` bool [P], best pair first, of `positives` labels in all.

    The precision at the h-th hit is h ÷ its rank; their sum is divided by the number of labels.
    """
    places = np.flatnonzero(hits)
    return float((np.arange(1, len(places) + 1) / (places + 1)).sum() / max(positives, 1))


def pooled_average_precision(scores: torch.Tensor, hits: torch.Tensor, positives: int) -> float:
    """GAP from pairs of several videos: `scores` float and `hits` bool of one shape, of `positives` labels in all.

    Equal scores keep their order, as in `Metrics.ranking`.
    """
    return average_precision(hits.flatten().numpy()[_best_first(scores.flatten().float().numpy())], positives)


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


def _summed_cross_entropy(probabilities: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    """`cross_entropy`, summed over the videos, with the labels at `positions`; in place and without gradients."""
    chosen = 1.0 - probabilities
    chosen.put_(positions, probabilities.take(positions))
    return -chosen.add_(LOSS_EPSILON).log_().sum(1).sum()


def _precision_at_equal_recall(scores: torch.Tensor, hits: torch.Tensor, count: torch.Tensor) -> torch.Tensor:
    """float [B]: the share that is right of a video's n best classes above probability 0, n its number of labels.

    `scores` and `hits` [B, K] are of its best classes, at least as many as `count` [B] says that it has labels.
    """
    within = torch.arange(scores.shape[1], device=scores.device) < count[:, None]
    return (hits & within & (scores > 0)).sum(1) / count.clamp_min(1)


def _best(probabilities: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """`probabilities.topk(k, dim=1)`; on a CPU in two thirds of its time where there are many classes."""
    videos, classes = probabilities.shape
    groups = classes // _GROUP
    if probabilities.device.type != "cpu" or not videos or groups < 2 * k:
        return probabilities.topk(k, dim=1)
    maxima = probabilities[:, : _GROUP * groups].unflatten(1, (_GROUP, groups)).amax(1).numpy()
    # The k best groups' maxima are k classes' scores, so none of the k best classes is below the least of them.
    bound = np.partition(maxima, groups - k, axis=1)[:, groups - k, None]
    # Not >=, as a score that is not a number would be lost.
    rows, candidates = np.divmod(np.flatnonzero(~(probabilities.numpy() < bound)), classes)
    counts = np.bincount(rows, minlength=videos)
    places = np.arange(len(rows)) - (np.cumsum(counts) - counts)[rows]
    scores = np.full((videos, counts.max()), -np.inf, np.float32)
    numbers = np.zeros(scores.shape, np.int64)
    scores[rows, places] = probabilities.numpy()[rows, candidates]
    numbers[rows, places] = candidates
    best, where = torch.from_numpy(scores).topk(k, dim=1)
    return best, torch.from_numpy(numbers).gather(1, where)


def _positions(labels: torch.Tensor) -> torch.Tensor:
    """int64 [P]: where `labels` bool [B, V] are true, counted row by row."""
    if labels.device.type != "cpu":
        return labels.flatten().nonzero().flatten()
    # Six times as fast as PyTorch's on a CPU.
    return torch.from_numpy(np.flatnonzero(labels.numpy()))


def _best_first(scores: np.ndarray) -> np.ndarray:
    """int64 [P]: the stable order of `scores` float32 [P], less than 2^32 of them, from the greatest to the least.

    A float's bits, read as a number, order as the float does, so that (bits, position) is sorted as one number.
    """
    # Zeros have a sign, and the negative one would come later.
    bits = (scores + np.float32(0)).view(np.uint32)
    keys = np.empty((len(scores), 2), "<u4")
    keys[:, 1] = np.where(bits >> 31, bits, bits ^ 0x7FFFFFFF)
    keys[:, 0] = np.arange(len(scores), dtype=np.uint32)
    pairs = keys.view("<u8")[:, 0]
    pairs.sort()
    return pairs.view("<u4")[::2].astype(np.int64)
