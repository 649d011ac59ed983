"""A model over labelled records: the figures."""

from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from topgb.batch import Batch
from topgb.errors import DamagedRecordError, InputError, TopgbError
from topgb.evaluation.metrics import Metrics, Scores
from topgb.evaluation.shard_jobs import damage_in, shard_pieces, shared_files
from topgb.files import atomic_write, refuse_existing
from topgb.jobs.dispatch import in_order, run_over
from topgb.jobs.engine import LOCAL, Engine
from topgb.modelfile import Header, LoadedModel
from topgb.progress import SILENT, Progress
from topgb.records.damage import OnDamaged
from topgb.records.dataset import Dataset, evaluation_batches, open_dataset
from topgb.records.sampling import EVERY_FRAME, FrameSampling
from topgb.vocabulary import csv_field

EVALUATION_BATCH = 128
FIGURES = tuple(field.name for field in fields(Scores) if field.name != "videos")


class Predictor(Protocol):
    """Anything that turns a batch on its device into probabilities float32 [B, V]."""

    def predict_batch(self, batch: Batch) -> torch.Tensor: ...


def open_for(model: LoadedModel, pattern: str, on_damaged: OnDamaged = "stop", with_labels: bool = True) -> Dataset:
    """The records of `pattern`, read as `model` needs them. Raises `InputError` as `open_dataset` does."""
    header = model.header
    return open_dataset(pattern, header.features, header.classes, model.max_frames, on_damaged, with_labels)


@dataclass(frozen=True)
class Rounds:
    """The scores of every round, and the counts of the last one in full; there is at least one round."""

    scores: tuple[Scores, ...]
    metrics: Metrics

    def mean(self) -> Scores:
        """The mean of each figure over the rounds."""
        means = {name: float(np.mean([getattr(scores, name) for scores in self.scores])) for name in FIGURES}
        return Scores(videos=self.scores[0].videos, **means)

    def deviation(self) -> dict[str, float]:
        """The sample standard deviation (over rounds - 1) of each figure. There must be two rounds at least."""
        return {name: float(np.std([getattr(scores, name) for scores in self.scores], ddof=1)) for name in FIGURES}

    def to_json(self) -> dict[str, Any]:
        """The mean's figures, and each round's under `rounds` where there is more than one."""
        rounds = {"rounds": [scores.to_json() for scores in self.scores]} if len(self.scores) > 1 else {}
        return {**self.mean().to_json(), **rounds}


def evaluate(
    model: Predictor,
    dataset: Dataset,
    device: torch.device,
    progress: Progress = SILENT,
    sampling: FrameSampling = EVERY_FRAME,
    seed: int = 0,
    round_number: int = 0,
    engine: Engine = LOCAL,
) -> Metrics:
    """Every labelled video of `dataset` once, in shard order, with every frame or those that `sampling` draws.

    Draws are keyed by (seed, round, record). With another `engine` its workers take a shard each, and the figures are
    the same to the bit where the probabilities are; `model` must be picklable (see `opened_there`). Raises `InputError`
    where a record has no labels, no video is left to look at, or `sampling` does not fit the records, and as `run_over`
    does.
    """
    found: list[Metrics] = []
    work = _Scoring(model, dataset, device, sampling, seed)
    _evaluate(work, range(round_number, round_number + 1), found.append, engine, progress)
    return found[0]


@torch.inference_mode()
def evaluate_shard(
    model: Predictor,
    dataset: Dataset,
    shard: int,
    device: torch.device,
    progress: Progress = SILENT,
    sampling: FrameSampling = EVERY_FRAME,
    seed: int = 0,
    round_number: int = 0,
) -> Metrics:
    """`evaluate` on shard number `shard` alone; merged in shard order, such parts are the whole to the bit."""
    metrics = Metrics(dataset.classes)
    for batch in evaluation_batches(dataset, EVALUATION_BATCH, [shard], sampling, seed, round_number):
        if batch.labels is None:
            raise InputError(
                f"the records hold no labels (video {batch.ids[0]}), so there is nothing to score against; "
                "use topgb predict for unlabelled records"
            )
        metrics.add(finite_predictions(model, batch, device), batch.labels.to(device))
        progress.advance(len(batch))
    return metrics


def evaluate_rounds(
    model: Predictor,
    dataset: Dataset,
    device: torch.device,
    sampling: FrameSampling = EVERY_FRAME,
    rounds: int = 1,
    seed: int = 0,
    progress: Progress = SILENT,
    engine: Engine = LOCAL,
) -> Rounds:
    """`evaluate` in `rounds` rounds (one or more), frames drawn anew in each. Raises as `evaluate` does.

    2018 sampled in evaluation too, from an unseeded generator: its figures are those of one such round.
    """
    scores: list[Scores] = []
    last: list[Metrics] = []

    def keep(metrics: Metrics) -> None:
        scores.append(metrics.compute())
        last[:] = [metrics]

    _evaluate(_Scoring(model, dataset, device, sampling, seed), range(rounds), keep, engine, progress)
    return Rounds(tuple(scores), last[0])


@dataclass(frozen=True)
class _Scoring:
    """What a worker does: piece n is shard n mod S in round n div S."""

    model: Predictor
    dataset: Dataset
    device: torch.device
    sampling: FrameSampling
    seed: int

    def __call__(self, number: int, progress: Progress) -> tuple[Metrics, list[DamagedRecordError]]:
        round_number, shard = divmod(number, len(self.dataset.shards))
        metrics = evaluate_shard(
            self.model, self.dataset, shard, self.device, progress, self.sampling, self.seed, round_number
        )
        return metrics, damage_in(self.dataset, shard)


def _evaluate(
    work: _Scoring, rounds: range, take: Callable[[Metrics], None], engine: Engine, progress: Progress
) -> None:
    """Call `take` with the metrics of each of `rounds`, in order."""
    dataset = work.dataset
    shards = shard_pieces(dataset)
    pieces = [shard._replace(number=r * len(shards) + shard.number) for r in rounds for shard in shards]
    metrics = Metrics(dataset.classes)

    def merge(number: int, result: tuple[Metrics, list[DamagedRecordError]]) -> None:
        nonlocal metrics
        metrics.merge(result[0])
        dataset.note_damage(result[1])
        if (number + 1) % len(shards) == 0:
            if metrics.videos == 0:
                raise InputError("no video could be read, so there is nothing to score")
            take(metrics)
            metrics = Metrics(dataset.classes)

    progress.begin("evaluating", len(rounds) * dataset.num_records, "videos")
    # In order, as sums of floats depend on it.
    run_over(work, pieces, in_order(pieces, merge), engine, progress, shared_files(dataset))
    progress.end()


def finite_predictions(model: Predictor, batch: Batch, device: torch.device) -> torch.Tensor:
    """The model's probabilities float32 [B, V] of a batch. Raises `TopgbError` naming a video whose are not finite."""
    probabilities = model.predict_batch(batch.to(device))
    finite = probabilities.isfinite().all(1)
    if not bool(finite.all()):
        video = batch.ids[int(finite.int().argmin())]
        raise TopgbError(
            f"the model's probabilities for video {video} are not finite; the model or the record is broken"
        )
    return probabilities


def write_per_class(path: Path, metrics: Metrics, header: Header, force: bool = False) -> None:
    """A CSV with a row a class: index, name, positives, average precision over the videos' 20 best classes."""
    refuse_existing(path, force)
    rows = ["class,name,positives,average_precision\n"]
    averages = metrics.average_precisions()
    for index, (positives, average) in enumerate(zip(metrics.positives, averages, strict=True)):
        name = csv_field(header.class_name(index))
        rows.append(f"{index},{name},{positives},{f'{average:.6f}' if positives else ''}\n")
    with atomic_write(path) as file:
        file.write("".join(rows).encode())
