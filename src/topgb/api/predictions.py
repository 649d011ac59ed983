"""Calls that store what a model says of records: `predict` and `distill`."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from topgb.api.arguments import (
    Data,
    Opening,
    PathLike,
    Size,
    check_choices,
    check_least,
    named,
    open_given,
    to_optional_path,
    to_path,
    to_pattern,
    to_progress,
    unpacking,
    warn_of_cut,
)
from topgb.errors import DamagedRecordError, InputError, option
from topgb.results import Table

if TYPE_CHECKING:
    from topgb.api.model import Model
    from topgb.evaluation.distill import Distilled
    from topgb.jobs.engine import EngineKind
    from topgb.modelfile import Header
    from topgb.modelfile.packed import Resident
    from topgb.progress import Progress
    from topgb.records.damage import OnDamaged
    from topgb.records.dataset import Dataset
    from topgb.training.opened import OpenedModel

# Beside records, or copies of the records with the scores inside (2018).
ScoreFormat = Literal["safetensors", "tfrecord"]


@dataclass(frozen=True, repr=False)
class Predictions(Table):
    """Each video's 20 best classes; the table has a row for each pair of a video and a class, best first.

    videos         number of videos, N
    path           the CSV that holds them, or None if they are here
    ids            the videos' ids
    classes        int64 [N, K], K = min(20, V)
    probabilities  float32 [N, K]
    header         the header of the model, which has the classes' names
    damaged        errors of the records that were left out
    """

    videos: int
    path: Path | None
    ids: Sequence[str]
    classes: np.ndarray
    probabilities: np.ndarray
    header: "Header"
    damaged: list[DamagedRecordError] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """`videos`, and the `path` of the CSV; without one `predictions`: [class, name, probability] lists by id."""
        if self.path is not None:
            return {"videos": self.videos, "path": str(self.path)}
        return {"videos": self.videos, "predictions": dict(self._named())}

    def _named(self) -> Iterator[tuple[str, list[list[Any]]]]:
        for video, classes, scores in zip(self.ids, self.classes.tolist(), self.probabilities.tolist(), strict=True):
            yield video, [[c, self.header.class_name(c), p] for c, p in zip(classes, scores, strict=True)]

    def columns(self) -> Mapping[str, Sequence[Any]]:
        """`id`, `class`, `name` and `probability`. Raises `InputError` if they are in a file."""
        if self.path is not None:
            raise InputError(f"the predictions are in {self.path}; read that, or leave out {option('out')}")
        most = self.classes.shape[1]
        return {
            "id": [video for video in self.ids for _ in range(most)],
            "class": self.classes.ravel().tolist(),
            "name": [self.header.class_name(index) for index in self.classes.ravel().tolist()],
            "probability": self.probabilities.ravel().tolist(),
        }


@unpacking
def predict(
    model: "PathLike | Model",
    data: Data,
    out: PathLike | None = None,
    *,
    use_ema: bool | None = None,
    names: bool = False,
    vocabulary: PathLike | None = None,
    force: bool = False,
    on_damaged: "OnDamaged" = "stop",
    device: str = "auto",
    resident: "Resident | None" = None,
    engine: "EngineKind" = "local",
    address: str | None = None,
    max_unpacked: Size | None = None,
    progress: bool = True,
) -> Predictions:
    """Predict records: each video's 20 best classes (`topgb predict`; 2018: `inference.py`).

    `model` is a model file, a run's folder (`use_ema` chooses its weights) or a `topgb.Model`. Without `out` the result
    holds the predictions; `out` is a CSV to write in the challenge's form, gzipped if its name ends in .gz, with a
    third column of class names if `names` is on or there is a `vocabulary`. With `engine="ray"` a stopped call goes on
    where it was when repeated.

    Raises `InputError` if records do not fit the model or are damaged (unless `on_damaged` is "skip"), or `out` exists
    and `force` is off.

    >>> found = topgb.predict("run", "records/validate*.tfrecord", progress=False)
    >>> found.probabilities.shape
    (60, 12)
    >>> topgb.predict("run", "records/validate*.tfrecord", "predictions.csv.gz", progress=False)
    Predictions(videos=60, path='predictions.csv.gz')
    """
    from topgb.evaluation.opening import open_for
    from topgb.records.damage import OnDamaged

    check_choices(on_damaged=(on_damaged, OnDamaged))
    path = to_optional_path(out)
    if path is None and engine != "local":
        raise InputError(f"{option('engine', engine)} writes the predictions to a file; give {option('out')}")
    opened = open_given(model, Opening(use_ema, device, resident, engine, address))
    header, shown = named(opened.here.header, vocabulary), to_progress(progress)
    if names and header.class_names is None:
        raise InputError(
            f"the model names no classes; give their {option('vocabulary')}, or leave out {option('names', True)}"
        )
    dataset = open_for(opened.here, to_pattern(data), on_damaged, with_labels=False)
    if path is None:
        ids, classes, probabilities = _best(opened, dataset, shown)
        warn_of_cut(dataset)
        return Predictions(len(ids), None, ids, classes, probabilities, header, dataset.damaged)
    from topgb.evaluation.predict import CsvOptions, model_identity, write_predictions

    identity = None if engine == "local" else model_identity(opened.here, opened.device, resident)
    options = CsvOptions(force, header.class_names if names or vocabulary is not None else None, identity)
    videos = write_predictions(opened.model, dataset, path, opened.device, options, shown, opened.engine)
    warn_of_cut(dataset)
    none = np.zeros((0, 0), np.float32)
    return Predictions(videos, path, (), none.astype(np.int64), none, header, dataset.damaged)


def _best(opened: "OpenedModel", dataset: "Dataset", progress: "Progress") -> tuple[list[str], np.ndarray, np.ndarray]:
    """Ids, and the best classes int64 [N, K] with their probabilities float32 [N, K]."""
    from topgb.evaluation.metrics import TOP_K
    from topgb.evaluation.predictions import predictions

    most = min(TOP_K, dataset.classes)
    ids, classes, scores = [], [np.zeros((0, most), np.int64)], [np.zeros((0, most), np.float32)]
    progress.begin("predicting", dataset.num_records, "videos")
    for batch, probabilities in predictions(opened.here, dataset, opened.device, progress):
        best = probabilities.topk(most, dim=1)
        ids += batch.ids
        classes.append(best.indices.cpu().numpy())
        scores.append(best.values.cpu().numpy())
    progress.end()
    return ids, np.concatenate(classes), np.concatenate(scores)


@unpacking
def distill(
    model: PathLike,
    data: Data,
    out: PathLike,
    *,
    top_k: int | None = None,
    format: ScoreFormat = "safetensors",
    force: bool = False,
    on_damaged: "OnDamaged" = "stop",
    device: str = "auto",
    resident: "Resident | None" = None,
    engine: "EngineKind" = "local",
    address: str | None = None,
    max_unpacked: Size | None = None,
    progress: bool = True,
) -> "Distilled":
    """Write a teacher's probabilities for every video, for `train(teacher=…)` (`topgb distill`).

    In 2018 that was `prepare_distill_dataset.py`. `out` is the folder to fill, with a file for each shard: float16
    probabilities of every class, or of each video's `top_k` best ones; with `format="tfrecord"` copies of the records
    that hold the scores, as in 2018. Records need no labels. A stopped call goes on when repeated.

    Raises `InputError` if `out` holds something else and `force` is off, or records do not fit the model or are damaged
    (unless `on_damaged` is "skip").

    >>> topgb.distill("run", "records/train*.tfrecord", "scores", progress=False).videos
    140
    """
    from topgb.evaluation.distill import DistillOptions, open_records, teacher_identity
    from topgb.evaluation.distill import distill as write_scores
    from topgb.records.damage import OnDamaged
    from topgb.training.opened import open_stored

    check_choices(on_damaged=(on_damaged, OnDamaged), format=(format, ScoreFormat))
    check_least(top_k=(top_k, 1))
    opened = open_given(to_path(model), Opening(None, device, resident, engine, address))
    identity = teacher_identity(open_stored(to_path(model)), opened.device, resident)
    dataset = open_records(opened.here, to_pattern(data), on_damaged, format)
    options = DistillOptions(top_k, format, force, opened.engine)
    done = write_scores(opened.model, dataset, to_path(out), opened.device, identity, options, to_progress(progress))
    warn_of_cut(dataset)
    return done
