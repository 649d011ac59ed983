"""The challenge's metrics over a stream of predictions, in memory bounded by 20 pairs per video."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

# The challenge counts only each video's 20 best classes.
TOP_K = 20
# Epsilon of 2018's CrossEntropyLoss (written 10e-6 there).
LOSS_EPSILON = 1e-5
# Videos counted at a time on a CPU: few enough that all intermediate results stay in its cache.
_ROWS_AT_A_TIME = 128
# `_top_k` looks first at the best of every group of this many classes.
_GROUP_CLASSES = 32


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
class Decisions:
    """Figures of the classes that reach their thresholds, all of them and not a video's best 20; in [0, 1].

    precision_*  share of the given classes that are labels; 0 where none is given
    recall_*     share of the labels that are given
    f1_*         harmonic mean of the two
    *_micro      of all pairs of a video and a class; *_macro: mean over the classes with positives
    """

    precision_micro: float
    recall_micro: float
    f1_micro: float
    precision_macro: float
    recall_macro: float
    f1_macro: float

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Ranking:
    """All P kept pairs, best score first: `scores` float32 [P], `classes` uint16 or int32 [P], `hits` bool [P]."""

    scores: np.ndarray
    classes: np.ndarray
    hits: np.ndarray


class Metrics:
    """Accumulates batches of predictions; the metrics of different shards can be merged.

    It keeps the 20 best classes of each video as pairs (video, class), each with its score and whether it is a hit,
    that is, one of the video's labels. `unlabelled` counts the `videos` that have none: their best class is never a
    hit, which lowers Hit@1. With `thresholds`, float [V], it counts the pairs that reach them too.
    """

    def __init__(self, classes: int, thresholds: np.ndarray | None = None):
        self.thresholds = None if thresholds is None else torch.from_numpy(np.asarray(thresholds, np.float32))
        self.positives, self._given, self._right = np.zeros((3, classes), np.int64)
        self.videos = self.unlabelled = 0
        self._class_dtype = np.uint16 if classes <= 1 << 16 else np.int32
        self._hit_at_1 = 0
        self._perr = self._loss = 0.0
        self._parts: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []

    def add(self, probabilities: torch.Tensor, labels: torch.Tensor) -> None:
        """Count a batch: probabilities float32 [B, V] and labels bool [B, V], on one device."""
        rows = _ROWS_AT_A_TIME if probabilities.device.type == "cpu" else max(len(labels), 1)
        for p, y in zip(probabilities.split(rows), labels.split(rows), strict=True):
            self._add_rows(p, y)

    def _add_rows(self, probabilities: torch.Tensor, labels: torch.Tensor) -> None:
        """Count part of a batch: probabilities float32 [B, V] and labels bool [B, V]."""
        videos, classes = labels.shape
        # The labels' positions in the flattened matrix, int64 [P], and each video's number of labels.
        positions = _label_positions(labels)
        count = torch.bincount(positions // classes, minlength=videos)
        # The 20 best classes of each video, their scores, and whether they are labels: each [B, 20].
        scores, best = _top_k(probabilities, min(TOP_K, classes))
        hits = labels.gather(1, best)
        self.videos += videos
        self.unlabelled += int((count == 0).sum())
        self.positives += torch.bincount(positions % classes, minlength=classes).cpu().numpy()
        self._hit_at_1 += int(hits[:, 0].sum())
        # PERR looks at as many of a video's best classes as it has labels, which may be more than 20.
        most = int(count.max()) if videos else 0
        if most <= scores.shape[1]:
            self._perr += float(precisions_at_equal_recall(scores, hits, count).sum())
        else:
            scores_of_most, best_of_most = _top_k(probabilities, most)
            self._perr += float(precisions_at_equal_recall(scores_of_most, labels.gather(1, best_of_most), count).sum())
        self._loss += float(_summed_cross_entropy(probabilities, positions))
        if self.thresholds is not None:
            given = _reached(probabilities, self.thresholds)
            # Bytes that count up to 255 add up sixteen times as fast as wider integers.
            counting = torch.uint8 if videos <= 255 else torch.int64
            self._given += given.view(torch.uint8).sum(0, dtype=counting).cpu().numpy()
            right = positions[given.flatten()[positions]]
            self._right += torch.bincount(right % classes, minlength=classes).cpu().numpy()
        self._parts.append((scores.cpu().numpy(), best.cpu().numpy().astype(self._class_dtype), hits.cpu().numpy()))

    def merge(self, other: "Metrics") -> None:
        """Add the counts of other metrics over the same classes."""
        self.positives += other.positives
        self._given += other._given
        self._right += other._right
        self.videos += other.videos
        self.unlabelled += other.unlabelled
        self._hit_at_1 += other._hit_at_1
        self._perr += other._perr
        self._loss += other._loss
        self._parts += other._parts

    def ranking(self) -> Ranking:
        """Every kept pair in one list, best first; equal scores keep the order in which they were added."""
        if not self._parts:
            return Ranking(np.zeros(0, np.float32), np.zeros(0, self._class_dtype), np.zeros(0, bool))
        scores, classes, hits = (
            np.concatenate([part.ravel() for part in parts]) for parts in zip(*self._parts, strict=True)
        )
        order = descending_order(scores)
        return Ranking(scores[order], classes[order], hits[order])

    def average_precisions(self) -> np.ndarray:
        """float64 [V]: each class's average precision over its kept pairs, 0 where it has no positives."""
        return self._average_precisions(self.ranking())

    def _average_precisions(self, ranking: Ranking) -> np.ndarray:
        """`average_precisions`, from a ranking of P pairs, H of them hits."""
        # Sort the pairs by class, best first within a class, and find the H hits in this order: places and classes [H].
        order = np.argsort(ranking.classes, kind="stable")
        places = np.flatnonzero(ranking.hits[order])
        classes = ranking.classes[order[places]]
        # Pairs and hits per class, [V]; minus those of all lower classes, places become ranks within a class, [H].
        counts, hits = (np.bincount(of, minlength=len(self.positives)) for of in (ranking.classes, classes))
        rank = places + 1 - (np.cumsum(counts) - counts)[classes]
        hits_so_far = np.arange(1, len(places) + 1) - (np.cumsum(hits) - hits)[classes]
        sums = np.bincount(classes, weights=hits_so_far / rank, minlength=len(self.positives))
        return sums / np.maximum(self.positives, 1)

    def compute(self) -> Scores:
        """The figures of all videos counted so far, of which there must be at least one."""
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

    def decided_classes(self) -> dict[str, np.ndarray]:
        """`precision`, `recall` and `f1` at the thresholds, float64 [V]; 0 where nothing is there to divide by."""
        return f1_figures(self._right, self._given, self.positives)

    def decisions(self) -> Decisions:
        """The figures at the thresholds."""
        counts = (self._right, self._given, self.positives)
        micro, macro = f1_figures(*(count.sum(keepdims=True) for count in counts)), self.decided_classes()
        present = self.positives > 0
        values = {f"{name}_micro": float(value[0]) for name, value in micro.items()}
        return Decisions(
            **values, **{f"{n}_macro": float(v[present].mean()) if present.any() else 0.0 for n, v in macro.items()}
        )


def f1_figures(right: np.ndarray, given: np.ndarray, positives: np.ndarray) -> dict[str, np.ndarray]:
    """`precision`, `recall` and `f1` float64 [...], from counts of given pairs that are right, of all, of labels."""
    return {
        "precision": right / np.maximum(given, 1),
        "recall": right / np.maximum(positives, 1),
        "f1": 2 * right / np.maximum(given + positives, 1),
    }


def average_precision(hits: np.ndarray, positives: int) -> float:
    """Average precision of P ranked pairs: `hits` bool [P] tells which are right, best pair first.

    The precision at the h-th hit is h ÷ its rank. The sum of these is divided by `positives`, the number of all labels.
    """
    places = np.flatnonzero(hits)
    return float((np.arange(1, len(places) + 1) / (places + 1)).sum() / max(positives, 1))


def pooled_average_precision(scores: torch.Tensor, hits: torch.Tensor, positives: int) -> float:
    """GAP of the pairs of several videos: `scores` float and `hits` bool of the same shape; `positives` labels in all.

    Equal scores keep their order, as in `Metrics.ranking`.
    """
    return average_precision(hits.flatten().numpy()[descending_order(scores.flatten().float().numpy())], positives)


def cross_entropy(probabilities: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Cross entropy of probabilities float32 [B, V] and labels [B, V]: summed over classes, mean over videos.

    Equals 2018's `CrossEntropyLoss`: with bool labels, -log(p + ε) of every label and -log(1 - p + ε) of every other
    class. A float label y between 0 and 1 counts the first with weight y and the second with weight 1 - y.
    """
    if labels.dtype != torch.bool:
        hit, miss = (probabilities + LOSS_EPSILON).log(), (1.0 - probabilities + LOSS_EPSILON).log()
        return -torch.lerp(miss, hit, labels.float()).sum(1).mean()
    chosen = torch.where(labels, probabilities, 1.0 - probabilities)
    return -(chosen + LOSS_EPSILON).log().sum(1).mean()


def _summed_cross_entropy(probabilities: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    """`cross_entropy`, but summed over videos, with labels at the flat `positions` int64 [P]; has no gradient."""
    chosen = 1.0 - probabilities
    chosen.put_(positions, probabilities.take(positions))
    return -chosen.add_(LOSS_EPSILON).log_().sum(1).sum()


def precisions_at_equal_recall(scores: torch.Tensor, hits: torch.Tensor, count: torch.Tensor) -> torch.Tensor:
    """float [B]: share of a video's n best classes that are labels and above probability 0; n is its number of labels.

    `scores` and `hits` [B, K] are those of its K best classes. `count` [B] holds each n, at most K.
    """
    within = torch.arange(scores.shape[1], device=scores.device) < count[:, None]
    return (hits & within & (scores > 0)).sum(1) / count.clamp_min(1)


def _top_k(probabilities: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """`probabilities.topk(k, dim=1)`: scores and classes [B, k]; with many classes two thirds of the time on a CPU."""
    videos, classes = probabilities.shape
    groups = classes // _GROUP_CLASSES
    if probabilities.device.type != "cpu" or not videos or groups < 2 * k:
        return probabilities.topk(k, dim=1)
    maxima = probabilities[:, : _GROUP_CLASSES * groups].unflatten(1, (_GROUP_CLASSES, groups)).amax(1).numpy()
    # The maxima of the k best groups are scores of k classes, so none of the k best classes is below the least of them.
    bound = np.partition(maxima, groups - k, axis=1)[:, groups - k, None]
    # The classes that reach the bound, row by row. `not <`, because `>=` would drop scores that are not a number.
    rows, candidates = np.divmod(np.flatnonzero(~(probabilities.numpy() < bound)), classes)
    # Move the candidates of each row to its left end, [B, most candidates], and take the k best of these few.
    counts = np.bincount(rows, minlength=videos)
    places = np.arange(len(rows)) - (np.cumsum(counts) - counts)[rows]
    scores = np.full((videos, counts.max()), -np.inf, np.float32)
    numbers = np.zeros(scores.shape, np.int64)
    scores[rows, places] = probabilities.numpy()[rows, candidates]
    numbers[rows, places] = candidates
    best, where = torch.from_numpy(scores).topk(k, dim=1)
    return best, torch.from_numpy(numbers).gather(1, where)


def _reached(probabilities: torch.Tensor, thresholds: torch.Tensor) -> torch.Tensor:
    """bool [B, V]: which `probabilities` [B, V] reach `thresholds` [V]; NumPy takes half of PyTorch's time."""
    if probabilities.device.type != "cpu":
        return probabilities >= thresholds.to(probabilities.device)
    return torch.from_numpy(probabilities.numpy() >= thresholds.numpy())


def _label_positions(labels: torch.Tensor) -> torch.Tensor:
    """int64 [P]: positions of the true values in `labels` bool [B, V], flattened row by row."""
    if labels.device.type != "cpu":
        return labels.flatten().nonzero().flatten()
    # On a CPU this is six times as fast as PyTorch's nonzero.
    return torch.from_numpy(np.flatnonzero(labels.numpy()))


def descending_order(scores: np.ndarray) -> np.ndarray:
    """int64 [P]: indices that sort `scores` float32 [P] from greatest to least, stably; P is below 2^32.

    A float's bits can be mapped to an integer that orders as the float does. It is the upper half of a 64-bit key, and
    the index is the lower half, so one sort of integers gives the stable order.
    """
    # Adding 0 turns -0.0 into 0.0: they are equal, but their bits differ.
    bits = (scores + np.float32(0)).view(np.uint32)
    keys = np.empty((len(scores), 2), "<u4")
    keys[:, 1] = np.where(bits >> 31, bits, bits ^ 0x7FFFFFFF)
    keys[:, 0] = np.arange(len(scores), dtype=np.uint32)
    pairs = keys.view("<u8")[:, 0]
    pairs.sort()
    return pairs.view("<u4")[::2].astype(np.int64)
