"""Compare two models on the same videos: the difference of their GAP, and a confidence interval."""

from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch

from topgb.errors import InputError
from topgb.evaluation.metrics import TOP_K
from topgb.evaluation.predictions import Predictor, predictions
from topgb.progress import SILENT, Progress
from topgb.records.dataset import Dataset
from topgb.results import Result

PURPOSE = "compare on"


@dataclass(frozen=True)
class Bootstrap:
    """A bootstrap over videos: `resamples` draws of as many videos as there are, with replacement, keyed by `seed`.

    `resamples` is at least 2; `confidence`, between 0 and 1, is the share of the draws inside the interval. Raises
    `InputError` for other numbers.
    """

    resamples: int = 1000
    seed: int = 0
    confidence: float = 0.95

    def __post_init__(self) -> None:
        if self.resamples < 2 or not 0 < self.confidence < 1:
            raise InputError(
                f"{self.resamples} resamples or confidence {self.confidence:g} give no interval; take 2 and 0.95 or so"
            )


DEFAULT_BOOTSTRAP = Bootstrap()


@dataclass(frozen=True, repr=False)
class Comparison(Result):
    """The gain of the second model over the first, and its bootstrap interval.

    gap_a, gap_b      GAP@20 of each
    difference        gap_b - gap_a
    low, high         percentile interval of the difference, holding `confidence` of the resamples
    standard_error    standard deviation of the difference over the resamples
    share_below_zero  share of the resamples in which the first model is better
    """

    videos: int
    gap_a: float
    gap_b: float
    difference: float
    low: float
    high: float
    confidence: float
    standard_error: float
    share_below_zero: float
    resamples: int
    seed: int

    def to_json(self) -> dict[str, Any]:
        return self.to_dict()


class RankedPairs:
    """The 20 best classes of every video as (video, class) pairs, in one list, best score first; to be resampled.

    `ids` are the N videos in file order; `positives` int64 [N] counts the labels of each.
    """

    def __init__(self, ids: list[str], scores: np.ndarray, hits: np.ndarray, positives: np.ndarray):
        """Rank the K best classes of N videos by `scores` float32 [N, K]; `hits` bool [N, K] tells which are labels."""
        self.ids, self.positives = ids, positives
        order = np.argsort(-scores.ravel(), kind="stable")
        self._videos = (order // scores.shape[1]).astype(np.int32)
        self._hits = np.flatnonzero(hits.ravel()[order])
        # Entry n is 1/1 + 1/2 + … + 1/n.
        self._harmonic = np.concatenate([[0.0], np.cumsum(1.0 / np.arange(1, len(order) + 1))])

    def gap(self, counts: np.ndarray) -> float:
        """GAP@20 of the data set in which video i occurs `counts[i]` times (int [N], sum at most N).

        Every pair and every label of video i counts `counts[i]` times; the copies of a pair are neighbours in the
        ranking. Really repeated records may give another GAP if different videos have pairs of the same score, because
        the order within such a tie can differ.
        """
        # One entry per hit: its copies (`weights`), the rank of its last copy (`above`), the pairs that rank before its
        # first copy (`ranks`), and the hits among those pairs (`hits`).
        weights = counts[self._videos]
        above = np.cumsum(weights)[self._hits]
        weights = weights[self._hits]
        ranks = above - weights
        hits = np.cumsum(weights) - weights
        # Behind R pairs, T of them hits, copy c = 1 … w of a hit has the precision (T + c) / (R + c). The w precisions
        # sum to w - (R - T) Σ 1 / (R + c); the sum in it is a difference of two harmonic numbers (`inverse`).
        inverse = self._harmonic[above] - self._harmonic[ranks]
        return float((weights - (ranks - hits) * inverse).sum() / max(int(counts @ self.positives), 1))


@torch.inference_mode()
def rank_pairs(model: Predictor, dataset: Dataset, device: torch.device, progress: Progress = SILENT) -> RankedPairs:
    """Rank the model's 20 best classes of every labelled video. Raises as `evaluate` does."""
    ids: list[str] = []
    scores, hits, positives = [], [], []
    progress.begin("evaluating", dataset.num_records, "videos")
    for batch, probabilities in predictions(model, dataset, device, progress, PURPOSE):
        best, classes = probabilities.topk(min(TOP_K, dataset.classes), dim=1)
        labels = cast(torch.Tensor, batch.labels)
        ids += batch.ids
        scores.append(best.cpu().numpy())
        hits.append(labels.gather(1, classes.cpu()).numpy())
        positives.append(labels.sum(1).numpy())
    progress.end()
    return RankedPairs(ids, np.concatenate(scores), np.concatenate(hits), np.concatenate(positives))


def compare(
    model_a: Predictor,
    data_a: Dataset,
    model_b: Predictor,
    data_b: Dataset,
    device: torch.device,
    bootstrap: Bootstrap = DEFAULT_BOOTSTRAP,
    progress: Progress = SILENT,
) -> Comparison:
    """GAP@20 of two models on the same videos, and a paired bootstrap over them (Efron and Tibshirani, 1993, ch. 13).

    `data_a` and `data_b` are the same records, each opened for its model. Raises `InputError` as `evaluate` does, and
    if classes, videos or labels differ between the two.
    """
    if data_a.classes != data_b.classes:
        raise InputError(f"the models have {data_a.classes} and {data_b.classes} classes; compare models of the same")
    pairs_a, pairs_b = rank_pairs(model_a, data_a, device, progress), rank_pairs(model_b, data_b, device, progress)
    return compare_pairs(pairs_a, pairs_b, bootstrap, progress)


def compare_pairs(
    a: RankedPairs, b: RankedPairs, bootstrap: Bootstrap = DEFAULT_BOOTSTRAP, progress: Progress = SILENT
) -> Comparison:
    """`compare`, given each model's ranked pairs. Raises `InputError` if their videos or labels differ."""
    resamples, confidence = bootstrap.resamples, bootstrap.confidence
    if a.ids != b.ids or not np.array_equal(a.positives, b.positives):
        raise InputError("the models were given different videos, so their figures do not compare; check the records")
    videos = len(a.ids)
    generator = np.random.default_rng(bootstrap.seed)
    differences = np.empty(resamples)
    progress.begin("resampling", resamples, "resamples")
    for index in range(resamples):
        counts = np.bincount(generator.integers(0, videos, videos), minlength=videos)
        differences[index] = b.gap(counts) - a.gap(counts)
        progress.advance(1)
    progress.end()
    once = np.ones(videos, np.int64)
    gap_a, gap_b = a.gap(once), b.gap(once)
    low, high = np.quantile(differences, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Comparison(
        videos=videos,
        gap_a=gap_a,
        gap_b=gap_b,
        difference=gap_b - gap_a,
        low=float(low),
        high=float(high),
        confidence=confidence,
        standard_error=float(differences.std(ddof=1)),
        share_below_zero=float((differences < 0).mean()),
        resamples=resamples,
        seed=bootstrap.seed,
    )
