"""Compare two models on the same videos: the difference of their GAP, and a confidence interval."""

from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch

from topgb.errors import InputError
from topgb.evaluation.bootstrap import DEFAULT_BOOTSTRAP, Bootstrap, RankedPairs, resampled
from topgb.evaluation.metrics import TOP_K
from topgb.evaluation.predictions import Predictor, predictions
from topgb.progress import SILENT, Progress
from topgb.records.dataset import Dataset
from topgb.results import Result

PURPOSE = "compare on"


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
    if a.ids != b.ids or not np.array_equal(a.positives, b.positives):
        raise InputError("the models were given different videos, so their figures do not compare; check the records")
    videos = len(a.ids)
    draws = resampled(lambda counts: np.array([b.gap(counts) - a.gap(counts)]), videos, bootstrap, progress)
    differences = draws[:, 0]
    once = np.ones(videos, np.int64)
    gap_a, gap_b = a.gap(once), b.gap(once)
    low, high = bootstrap.interval(differences)
    return Comparison(
        videos=videos,
        gap_a=gap_a,
        gap_b=gap_b,
        difference=gap_b - gap_a,
        low=float(low),
        high=float(high),
        confidence=bootstrap.confidence,
        standard_error=float(differences.std(ddof=1)),
        share_below_zero=float((differences < 0).mean()),
        resamples=bootstrap.resamples,
        seed=bootstrap.seed,
    )
