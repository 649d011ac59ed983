"""Score a model on labelled records."""

from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from topgb.errors import DamagedRecordError
from topgb.evaluation.metrics import Metrics, Scores

# Imported under this name too: docs/api.md once showed topgb.evaluation.score.open_for.
from topgb.evaluation.opening import open_for as open_for
from topgb.evaluation.predictions import ALL_FRAMES, FrameDraw, Predictor, check_found, predictions
from topgb.evaluation.shard_jobs import damage_in, shard_pieces, shared_files
from topgb.files import atomic_write, refuse_existing
from topgb.jobs.dispatch import dispatch, in_order
from topgb.jobs.engine import LOCAL, Engine
from topgb.modelfile import Header
from topgb.progress import SILENT, Progress
from topgb.records.dataset import Dataset

FIGURES = tuple(field.name for field in fields(Scores) if field.name != "videos")
PURPOSE = "score against"


@dataclass(frozen=True)
class Rounds:
    """The scores of each round (there is at least one), and the full metrics of the last."""

    scores: tuple[Scores, ...]
    metrics: Metrics

    def mean(self) -> Scores:
        """The mean of each figure over the rounds."""
        means = {name: float(np.mean([getattr(scores, name) for scores in self.scores])) for name in FIGURES}
        return Scores(videos=self.scores[0].videos, **means)

    def deviation(self) -> dict[str, float]:
        """The sample standard deviation (divisor: rounds - 1) of each figure. Needs at least two rounds."""
        return {name: float(np.std([getattr(scores, name) for scores in self.scores], ddof=1)) for name in FIGURES}

    def to_json(self) -> dict[str, Any]:
        """The mean figures, and under `rounds` those of each round if there are several."""
        rounds = {"rounds": [scores.to_json() for scores in self.scores]} if len(self.scores) > 1 else {}
        return {**self.mean().to_json(), **rounds}


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
    draw: FrameDraw = ALL_FRAMES,
) -> Metrics:
    """`evaluate` on shard number `shard` alone; merging these in shard order gives the whole to the bit."""
    metrics = Metrics(dataset.classes)
    for batch, probabilities in predictions(model, dataset, device, progress, PURPOSE, shard, draw):
        metrics.add(probabilities, cast(torch.Tensor, batch.labels).to(device))
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
    shards = shard_pieces(dataset)
    pieces = [shard._replace(number=r * len(shards) + shard.number) for r in range(rounds) for shard in shards]
    metrics = Metrics(dataset.classes)
    scores: list[Scores] = []

    def merge(number: int, result: tuple[Metrics, list[DamagedRecordError]]) -> None:
        nonlocal metrics
        metrics = metrics if number % len(shards) else Metrics(dataset.classes)
        metrics.merge(result[0])
        dataset.note_damage(result[1])
        if (number + 1) % len(shards) == 0:
            check_found(metrics.positives, metrics.videos, PURPOSE)
            scores.append(metrics.compute())

    progress.begin("evaluating", rounds * dataset.num_records, "videos")
    work = _Scoring(model, dataset, device, draw)
    # Merged in order, because sums of floats depend on it.
    dispatch(work, pieces, in_order(pieces, merge), engine, progress, shared_files(dataset))
    progress.end()
    return Rounds(tuple(scores), metrics)


@dataclass(frozen=True)
class _Scoring:
    """The work on a piece; with S shards, piece n is shard n mod S in round `draw.round` + n div S."""

    model: Predictor
    dataset: Dataset
    device: torch.device
    draw: FrameDraw

    def __call__(self, number: int, progress: Progress) -> tuple[Metrics, list[DamagedRecordError]]:
        later, shard = divmod(number, len(self.dataset.shards))
        draw = replace(self.draw, round=self.draw.round + later)
        metrics = evaluate_shard(self.model, self.dataset, shard, self.device, progress, draw)
        return metrics, damage_in(self.dataset, shard)


def write_per_class(path: Path, metrics: Metrics, header: Header, force: bool = False) -> None:
    """Write a CSV with one row per class: index, name, positives, average precision over the videos' 20 best classes.

    Raises `InputError` if `path` exists and `force` is off, `TopgbError` if it cannot be written.
    """
    # Imported here, because few evaluations write a CSV.
    from topgb.csv_rows import csv_field

    refuse_existing(path, force)
    rows = ["class,name,positives,average_precision\n"]
    averages = metrics.average_precisions()
    for index, (positives, average) in enumerate(zip(metrics.positives, averages, strict=True)):
        name = csv_field(header.class_name(index))
        rows.append(f"{index},{name},{positives},{f'{average:.6f}' if positives else ''}\n")
    with atomic_write(path) as file:
        file.write("".join(rows).encode())
