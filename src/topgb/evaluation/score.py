"""Score a model on labelled records."""

from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch

from topgb.errors import DamagedRecordError
from topgb.evaluation.metrics import Decisions, Metrics, Scores

# Imported under this name too: docs/api.md once showed topgb.evaluation.score.open_for.
from topgb.evaluation.opening import open_for as open_for
from topgb.evaluation.predictions import (
    ALL_FRAMES,
    FrameDraw,
    Predictor,
    check_found,
    damage_in,
    of_known_pairs,
    predictions,
    shard_pieces,
    shared_files,
)
from topgb.files import atomic_write, refuse_existing
from topgb.jobs.dispatch import dispatch, in_order
from topgb.jobs.engine import LOCAL, Engine
from topgb.modelfile import Header
from topgb.progress import SILENT, Progress
from topgb.records.dataset import Dataset
from topgb.records.repeated import Repeated

if TYPE_CHECKING:
    from topgb.evaluation.bootstrap import Interval

FIGURES = tuple(field.name for field in fields(Scores) if field.name != "videos")
PURPOSE = "score against"


@dataclass(frozen=True)
class Scoring:
    """How to score: in `rounds` rounds (one or more), each with frames of its own; the first is round `draw.round`.

    With `thresholds`, float [V], the classes that reach them are counted too. With `resampled` the metrics are
    `ResampledMetrics`, which have intervals.
    """

    draw: FrameDraw = ALL_FRAMES
    rounds: int = 1
    thresholds: np.ndarray | None = None
    resampled: bool = False

    def metrics(self, classes: int) -> Metrics:
        """Metrics of no video yet."""
        if not self.resampled:
            return Metrics(classes, self.thresholds)
        # Imported here, because few evaluations have intervals.
        from topgb.evaluation.intervals import ResampledMetrics

        return ResampledMetrics(classes, self.thresholds)


ALL = Scoring()


@dataclass(frozen=True)
class Rounds:
    """The scores of each round (there is at least one), and the full metrics of the last.

    With thresholds, `decisions` are the figures of each round at these.
    """

    scores: tuple[Scores, ...]
    metrics: Metrics
    decisions: tuple[Decisions, ...] = ()

    def mean(self) -> Scores:
        """The mean of each figure over the rounds."""
        means = {name: float(np.mean([getattr(scores, name) for scores in self.scores])) for name in FIGURES}
        return Scores(videos=self.scores[0].videos, **means)

    def mean_decisions(self) -> dict[str, float]:
        """The mean of each figure at the thresholds, by name; none without thresholds."""
        each = [decisions.to_json() for decisions in self.decisions]
        return {name: float(np.mean([one[name] for one in each])) for name in (each[0] if each else ())}

    def deviation(self) -> dict[str, float]:
        """The sample standard deviation (divisor: rounds - 1) of each figure. Needs at least two rounds."""
        each = self._each()
        return {name: float(np.std([one[name] for one in each], ddof=1)) for name in each[0] if name != "videos"}

    def to_json(self) -> dict[str, Any]:
        """The mean figures, and under `rounds` those of each round if there are several."""
        rounds = {"rounds": self._each()} if len(self.scores) > 1 else {}
        return {**self.mean().to_json(), **self.mean_decisions(), **rounds}

    def _each(self) -> list[dict[str, Any]]:
        decided = [one.to_json() for one in self.decisions] or [{}] * len(self.scores)
        return [one.to_json() | more for one, more in zip(self.scores, decided, strict=True)]


def evaluate(
    model: Predictor,
    dataset: Dataset,
    device: torch.device,
    progress: Progress = SILENT,
    draw: FrameDraw = ALL_FRAMES,
    engine: Engine = LOCAL,
) -> Metrics:
    """Score every labelled video of `dataset` once, in shard order, on every frame or on those of `draw`.

    On a cluster each worker takes one shard at a time; the figures are the same to the bit if the probabilities are.
    `model` must then be picklable (see `opened_there`). Raises `InputError` if a record has no labels, no video or no
    label could be read, or the draw does not fit the records, and as `dispatch` does.
    """
    return evaluate_rounds(model, dataset, device, draw, progress=progress, engine=engine).metrics


@torch.inference_mode()
def evaluate_shard(
    model: Predictor,
    dataset: Dataset,
    shard: int,
    device: torch.device,
    progress: Progress = SILENT,
    how: Scoring = ALL,
) -> Metrics:
    """`evaluate` on shard number `shard` alone; merging these in shard order gives the whole to the bit."""
    metrics = how.metrics(dataset.classes)
    for batch, probabilities in predictions(model, dataset, device, progress, PURPOSE, shard, how.draw):
        metrics.add(of_known_pairs(probabilities, batch), cast(torch.Tensor, batch.labels).to(device))
    return metrics


def evaluate_rounds(
    model: Predictor,
    dataset: Dataset,
    device: torch.device,
    draw: FrameDraw = ALL_FRAMES,
    rounds: int = 1,
    progress: Progress = SILENT,
    engine: Engine = LOCAL,
) -> Rounds:
    """`evaluate` in `rounds` rounds (one or more), each with frames of its own; the first is round `draw.round`.

    2018 sampled frames in evaluation too, with an unseeded generator: its figures are those of one such round. Raises
    as `evaluate` does.
    """
    return score(model, dataset, device, Scoring(draw, rounds), progress, engine)


def score(
    model: Predictor,
    dataset: Dataset,
    device: torch.device,
    how: Scoring = ALL,
    progress: Progress = SILENT,
    engine: Engine = LOCAL,
) -> Rounds:
    """`evaluate` as `how` says. Raises as `evaluate` does."""
    shards = shard_pieces(dataset)
    pieces = [shard._replace(number=r * len(shards) + shard.number) for r in range(how.rounds) for shard in shards]
    metrics = how.metrics(dataset.classes)
    scores: list[Scores] = []
    decisions: list[Decisions] = []

    def merge(number: int, result: _Scored) -> None:
        nonlocal metrics
        metrics = metrics if number % len(shards) else how.metrics(dataset.classes)
        metrics.merge(result[0])
        dataset.note_damage(result[1])
        dataset.ids.put(number % len(shards), result[2])
        if (number + 1) % len(shards) == 0:
            check_found(metrics.positives, metrics.videos, PURPOSE)
            scores.append(metrics.compute())
            decisions.extend([] if how.thresholds is None else [metrics.decisions()])

    progress.begin("evaluating", how.rounds * dataset.num_records, "videos")
    work = _Scoring(model, dataset, device, how)
    # Merged in order, because sums of floats depend on it.
    dispatch(work, pieces, in_order(pieces, merge), engine, progress, shared_files(dataset))
    progress.end()
    return Rounds(tuple(scores), metrics, tuple(decisions))


# The metrics of a shard, its damaged records, and the hashes of its videos' ids.
_Scored = tuple[Metrics, list[DamagedRecordError], np.ndarray]


@dataclass(frozen=True)
class _Scoring:
    """The work on a piece; with S shards, piece n is shard n mod S in round `how.draw.round` + n div S."""

    model: Predictor
    dataset: Dataset
    device: torch.device
    how: Scoring

    def __call__(self, number: int, progress: Progress) -> "_Scored":
        later, shard = divmod(number, len(self.dataset.shards))
        how = replace(self.how, draw=replace(self.how.draw, round=self.how.draw.round + later))
        metrics = evaluate_shard(self.model, self.dataset, shard, self.device, progress, how)
        return metrics, damage_in(self.dataset, shard), self.dataset.ids.of(shard)


def write_per_class(path: Path, metrics: Metrics, header: Header, force: bool = False) -> None:
    """Write a CSV with one row per class: index, name, positives, average precision over the videos' 20 best classes.

    If `metrics` has thresholds, further columns have the class's threshold, and precision, recall and F1 at it. Raises
    `InputError` if `path` exists and `force` is off, `TopgbError` if it cannot be written.
    """
    # Imported here, because few evaluations write a CSV.
    from topgb.csv_rows import csv_field

    refuse_existing(path, force)
    decided = {} if metrics.thresholds is None else metrics.decided_classes()
    rows = [",".join(["class,name,positives,average_precision", *(["threshold"] if decided else []), *decided]) + "\n"]
    averages = metrics.average_precisions()
    for index, (positives, average) in enumerate(zip(metrics.positives, averages, strict=True)):
        name = csv_field(header.class_name(index))
        row = [str(index), name, str(positives), f"{average:.6f}" if positives else ""]
        if metrics.thresholds is not None:
            row.append(f"{float(metrics.thresholds[index]):.6g}")
            row += [
                f"{values[index]:.6f}" if positives or key == "precision" else "" for key, values in decided.items()
            ]
        rows.append(",".join(row) + "\n")
    with atomic_write(path) as file:
        file.write("".join(rows).encode())


def intervals_of(metrics: Metrics, progress: Progress = SILENT) -> "dict[str, Interval]":
    """The 95% bootstrap interval of each figure. `metrics` must be of a `Scoring` with `resampled`."""
    from topgb.evaluation.intervals import ResampledMetrics

    return cast(ResampledMetrics, metrics).intervals(progress=progress)


def to_json(
    found: Rounds,
    threshold: str | float,
    intervals: "dict[str, Interval] | None" = None,
    repeated: Repeated | None = None,
) -> dict[str, Any]:
    """The JSON values that `topgb eval --json` prints."""
    unlabelled = found.metrics.unlabelled
    shown = {name: list(bounds) for name, bounds in (intervals or {}).items()}
    return {
        **found.mean().to_json(),
        "threshold": threshold,
        **found.to_json(),
        **({"unlabelled": unlabelled} if unlabelled else {}),
        **({"repeated": repeated.videos} if repeated else {}),
        **({"interval": shown} if shown else {}),
    }
