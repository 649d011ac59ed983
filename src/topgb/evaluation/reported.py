"""One model's figures for the report: scores with intervals, reliability, and its surest mistakes."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, cast

import numpy as np
import torch

from topgb.evaluation.bootstrap import Bootstrap, Interval
from topgb.evaluation.intervals import ResampledMetrics
from topgb.evaluation.metrics import Metrics
from topgb.evaluation.predictions import Predictor, predictions
from topgb.modelfile import Header
from topgb.progress import SILENT, Progress
from topgb.records.dataset import Dataset

PURPOSE = "report on"
# Bins of equal width for the reliability of probabilities.
BINS = 15
MOST_MISTAKES = 15
MOST_LABELS = 6
BOOTSTRAP = Bootstrap(resamples=400)


class Mistake(NamedTuple):
    """A video's class that the model is wrong about, with its probability and the labels that the video has."""

    video: str
    class_number: int
    probability: float
    labels: list[int]


class Reliability:
    """Pairs of videos and classes by probability, in `BINS` bins: how many, how many labels, sum of probabilities."""

    def __init__(self) -> None:
        self.pairs, self.labels, self.sums = np.zeros((3, BINS))

    def add(self, probabilities: torch.Tensor, labels: torch.Tensor) -> None:
        """Count a batch: probabilities float32 [B, V] and labels bool [B, V]."""
        values = probabilities.double().flatten().numpy()
        bins = np.minimum((values * BINS).astype(np.int64), BINS - 1)
        for counts, weights in ((self.pairs, None), (self.labels, labels.flatten().numpy()), (self.sums, values)):
            counts += np.bincount(bins, weights, BINS)


class Mistakes:
    """The surest ones: classes given in error by their greatest probabilities, and labels missed by the least."""

    def __init__(self) -> None:
        self.given: list[Mistake] = []
        self.missed: list[Mistake] = []

    def add(self, ids: Sequence[str], probabilities: torch.Tensor, labels: torch.Tensor) -> None:
        """Look through a batch of the videos `ids`: probabilities float32 [B, V] and labels bool [B, V]."""
        for kept, candidates, sign in (
            (self.given, probabilities.masked_fill(labels, -1), 1),
            (self.missed, -probabilities.masked_fill(~labels, 2), -1),
        ):
            found = candidates.flatten().topk(min(MOST_MISTAKES, candidates.numel()))
            for value, place in zip((sign * found.values).tolist(), found.indices.tolist(), strict=True):
                row, index = divmod(place, labels.shape[1])
                if 0 <= value <= 1:
                    true = labels[row].nonzero().flatten().tolist()
                    kept.append(Mistake(ids[row], index, value, true))
            kept.sort(key=lambda mistake: -sign * mistake.probability)
            del kept[MOST_MISTAKES:]


@dataclass(frozen=True)
class ReportedModel:
    """A model in the report.

    name         what to call it
    file_bytes   its size
    metrics      its accumulated metrics, with thresholds
    header       its header, which has names and origin
    intervals    a bootstrap interval of each figure; none where they were not asked for
    reliability  its probabilities against labels
    mistakes     its surest mistakes
    """

    name: str
    file_bytes: int
    metrics: Metrics
    header: Header
    intervals: dict[str, Interval] = field(default_factory=dict)
    reliability: Reliability = field(default_factory=Reliability)
    mistakes: Mistakes = field(default_factory=Mistakes)

    def figures(self) -> dict[str, float]:
        """Every figure by its name."""
        return self.metrics.compute().to_json() | self.metrics.decisions().to_json()

    @property
    def at(self) -> str:
        """The thresholds of precision, recall and F1 in words."""
        return "the model's thresholds" if self.header.thresholds is not None else "threshold 0.5"


def report_on(
    model: Predictor,
    about: tuple[str, int, Header],
    dataset: Dataset,
    device: torch.device,
    intervals: bool = True,
    progress: Progress = SILENT,
) -> ReportedModel:
    """Score every labelled video of `dataset`; `about` are the model's name, its bytes and its header.

    Raises as `predictions` does.
    """
    name, size, header = about
    thresholds = header.thresholds_for(None)[0]
    metrics = ResampledMetrics(dataset.classes, thresholds) if intervals else Metrics(dataset.classes, thresholds)
    reliability, mistakes = Reliability(), Mistakes()
    progress.begin("evaluating", dataset.num_records, "videos")
    for batch, scores in predictions(model, dataset, device, progress, PURPOSE):
        probabilities, labels = scores.cpu(), cast(torch.Tensor, batch.labels)
        metrics.add(probabilities, labels)
        reliability.add(probabilities, labels)
        mistakes.add(batch.ids, probabilities, labels)
    progress.end()
    found: dict[str, Any] = metrics.intervals(BOOTSTRAP, progress) if isinstance(metrics, ResampledMetrics) else {}
    return ReportedModel(name, size, metrics, header, found, reliability, mistakes)
