"""Scores of each video's likeliest classes alone: enough to score any mixture of models in milliseconds."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from topgb.combining.prediction_matrix import collect
from topgb.evaluation.metrics import TOP_K, pooled_average_precision
from topgb.evaluation.predictions import Predictor, predictions
from topgb.progress import SILENT, Progress
from topgb.records.dataset import Dataset

# The challenge counts a video's 20 best classes. In any mixture these are nearly always among the members' mean's best
# classes, if that many are listed.
LISTED = 128


@dataclass(frozen=True)
class Shortlist:
    """The K likeliest classes of each of N videos.

    classes    int64 [N, K], class numbers
    hits       bool [N, K], which of these are labels
    positives  int64 [N], each video's number of labels, listed or not
    """

    classes: torch.Tensor
    hits: torch.Tensor
    positives: torch.Tensor

    def gap(self, scores: torch.Tensor) -> float:
        """GAP@20 of the videos, given scores float [N, K] of the listed classes."""
        best, places = scores.topk(min(TOP_K, scores.shape[1]), dim=1)
        return pooled_average_precision(best, self.hits.gather(1, places), int(self.positives.sum()))

    def of(self, videos: torch.Tensor) -> "Shortlist":
        """The shortlist of the videos with these numbers (int64 [n])."""
        return Shortlist(self.classes[videos], self.hits[videos], self.positives[videos])


def make_shortlist(
    models: Sequence[Predictor], dataset: Dataset, device: torch.device, progress: Progress = SILENT
) -> Shortlist:
    """Shortlist each labelled video's classes with the greatest mean probability over `models`.

    Needs float32 [N, V] twice, in memory or in temporary files. Raises as `collect` does.
    """
    total: np.ndarray | None = None
    for model in models:
        found = collect(model, dataset, device, progress)
        total = found.probabilities if total is None else np.add(total, found.probabilities, out=total)
    assert total is not None
    classes = torch.from_numpy(total).topk(min(LISTED, total.shape[1]), dim=1).indices
    labels = torch.from_numpy(found.labels)
    return Shortlist(classes, labels.gather(1, classes), labels.sum(1))


@torch.inference_mode()
def listed_scores(
    model: Predictor, shortlist: Shortlist, dataset: Dataset, device: torch.device, progress: Progress = SILENT
) -> torch.Tensor:
    """The model's probabilities of the listed classes, float32 [N, K], for every video of `dataset`."""
    parts, done = [], 0
    progress.begin("predicting", dataset.num_records, "videos")
    for batch, probabilities in predictions(model, dataset, device, progress):
        parts.append(probabilities.cpu().gather(1, shortlist.classes[done : done + len(batch)]))
        done += len(batch)
    progress.end()
    return torch.cat(parts)
