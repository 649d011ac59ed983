"""Calls that store a model's predictions for records: `predict` and `distill`."""

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
    refuse_input,
    to_optional_path,
    to_path,
    to_pattern,
    to_progress,
    unpacking,
)
from topgb.errors import DamagedRecordError, InputError, option
from topgb.results import Table

if TYPE_CHECKING:
    from topgb.api.model import Model
    from topgb.devices import PrecisionChoice, Resident
    from topgb.evaluation.distill import Distilled
    from topgb.evaluation.prediction_formats import RowFormat
    from topgb.jobs.engine import EngineKind
    from topgb.modelfile import Header
    from topgb.progress import Progress
    from topgb.records.dataset import Dataset
    from topgb.records.on_damaged import OnDamaged
    from topgb.training.opened import OpenedModel

# Beside records, or copies of the records with the scores inside (2018).
ScoreFormat = Literal["safetensors", "tfrecord"]


@dataclass(frozen=True, repr=False)
class Predictions(Table):
    """Each video's best classes; the table has a row for each pair of a video and a class, best first.

    videos         number of videos, N
    path           the file that holds them, or None if they are here
    ids            the videos' ids
    classes        int64 [N, K], K = min(top, V)
    probabilities  float32 [N, K]
    given          bool [N, K]: whether the class reaches its threshold; the table has these alone
    header         the header of the model, which has the classes' names
    damaged        errors of the records that were left out
    """

    videos: int
    path: Path | None
    ids: Sequence[str]
    classes: np.ndarray
    probabilities: np.ndarray
    given: np.ndarray
    header: "Header"
    damaged: list[DamagedRecordError] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """`videos`, and the `path` of the file; without one `predictions`: [class, name, probability] lists by id."""
        if self.path is not None:
            return {"videos": self.videos, "path": str(self.path)}
        return {"videos": self.videos, "predictions": dict(self._named())}

    def _named(self) -> Iterator[tuple[str, list[list[Any]]]]:
        for video, given, classes, scores in zip(self.ids, self.given, self.classes, self.probabilities, strict=True):
            best = zip(classes[given].tolist(), scores[given].tolist(), strict=True)
            yield video, [[index, self.header.class_name(index), probability] for index, probability in best]

    def columns(self) -> Mapping[str, Sequence[Any]]:
        """`id`, `class`, `name` and `probability`. Raises `InputError` if they are in a file."""
        if self.path is not None:
            raise InputError(f"the predictions are in {self.path}; read that, or leave out {option('out')}")
        classes = self.classes[self.given].tolist()
        return {
            "id": [self.ids[video] for video in np.nonzero(self.given)[0].tolist()],
            "class": classes,
            "name": [self.header.class_name(index) for index in classes],
            "probability": self.probabilities[self.given].tolist(),
        }


@unpacking
def predict(
    model: "PathLike | Model",
    data: Data,
    out: PathLike | None = None,
    *,
    format: str | None = None,
    top: int = 20,
    threshold: float | str | None = None,
    use_ema: bool | None = None,
    names: bool = False,
    vocabulary: PathLike | None = None,
    force: bool = False,
    on_damaged: "OnDamaged" = "stop",
    device: str = "auto",
    resident: "Resident | None" = None,
    engine: "EngineKind" = "local",
    address: str | None = None,
    precision: "PrecisionChoice" = "float32",
    segments: bool = False,
    k: int | None = None,
    classes: PathLike | None = None,
    memory: Size | None = None,
    max_unpacked: Size | None = None,
    progress: bool = True,
) -> Predictions:
    """Predict records: each video's best classes (`topgb predict`; 2018: `inference.py`).

    `model` is a model file, a run's folder (`use_ema` chooses its weights) or a `topgb.Model`. Without `out` the result
    holds the predictions; `out` is a file to write. A name that ends in .parquet or .jsonl, or `format` "csv", makes it
    a table with the columns id, class, name and probability; other names the challenge's CSV, with a third column of
    class names if `names` is on or there is a `vocabulary`. Either is gzipped if its name ends in .gz. A video has the
    `top` best classes, and in a table only those that reach the `threshold`: a probability, or "model" for the file's
    own (see `thresholds`). With `engine="ray"` a stopped call goes on where it was when repeated.

    With `segments` the file has a row for each class, `Class,Segments`, with its best `k` (None: 100,000) 5-second
    segments; `videos` then counts segments. The classes are those in the column Index of the CSV `classes`, else those
    rated in the model's training, else all. Where ranking takes more than `memory` bytes, temporary files hold it.

    Raises `InputError` if records do not fit the model or are damaged (unless `on_damaged` is "skip"), or `out` exists
    and `force` is off.

    >>> found = topgb.predict("run", "records/validate*.tfrecord", progress=False)
    >>> found.probabilities.shape
    (60, 12)
    >>> topgb.predict("run", "records/validate*.tfrecord", "predictions.csv.gz", progress=False)
    Predictions(videos=60, path='predictions.csv.gz')
    >>> topgb.predict("run", "records/validate*.tfrecord", "tags.jsonl", threshold=0.5, progress=False)
    Predictions(videos=60, path='tags.jsonl')
    """
    from topgb.evaluation.opening import open_for, warn_of_videos
    from topgb.records.on_damaged import OnDamaged

    check_choices(on_damaged=(on_damaged, OnDamaged))
    check_least(top=(top, 1))
    path = to_optional_path(out)
    if segments:
        from topgb.api.segments import SegmentFile, predict_segments, refuse_with_segments

        refuse_with_segments(
            {option("format", format): format, option("top", top): top if top != 20 else None,
             option("threshold", threshold): threshold, option("names", True): names,
             option("vocabulary"): vocabulary}
        )  # fmt: skip
        if path is None:
            raise InputError(f"{option('segments', True)} writes a file; give {option('out')}")
        file = SegmentFile(path, k, classes, memory, force)
        how = Opening(use_ema, device, resident, engine, address, precision)
        predicted, of = predict_segments(model, data, file, on_damaged, how, progress)
        empty = np.zeros((0, 0), np.float32)
        return Predictions(
            predicted.num_records, path, (), empty.astype(np.int64), empty, empty.astype(bool), of, predicted.damaged
        )
    for words, value in ((option("k", k), k), (option("classes"), classes), (option("memory", memory), memory)):
        if value is not None:
            raise InputError(f"{words} is about segments; add {option('segments', True)}, or leave it out")
    if path is None and (engine != "local" or format is not None):
        asked = option("format", format) if engine == "local" else option("engine", engine)
        raise InputError(f"{asked} writes the predictions to a file; give {option('out')}")
    opened = open_given(model, Opening(use_ema, device, resident, engine, address, precision))
    header, shown = named(opened.here.header, vocabulary), to_progress(progress)
    if names and header.class_names is None:
        raise InputError(
            f"the model names no classes; give their {option('vocabulary')}, or leave out {option('names', True)}"
        )
    least = None if threshold is None else header.thresholds_for(threshold)[0]
    rows = None if path is None else _format(path, format, header, (top, least), names or vocabulary is not None)
    dataset = open_for(opened.here, to_pattern(data), on_damaged, with_labels=False)
    if path is not None:
        refuse_input(path, vocabulary)
    if path is None or rows is None:
        ids, best, probabilities = _best(opened, dataset, top, shown)
        warn_of_videos(dataset)
        given = np.ones(best.shape, bool) if least is None else probabilities >= least.astype(np.float32)[best]
        return Predictions(len(ids), None, ids, best, probabilities, given, header, dataset.damaged)
    from topgb.evaluation.predict import CsvOptions, model_identity, write_predictions

    identity = None if engine == "local" else model_identity(opened.here, opened.device, resident)
    options = CsvOptions(force, identity=identity, rows=rows)
    videos = write_predictions(opened.model, dataset, path, opened.device, options, shown, opened.engine)
    warn_of_videos(dataset)
    none = np.zeros((0, 0), np.float32)
    return Predictions(videos, path, (), none.astype(np.int64), none, none.astype(bool), header, dataset.damaged)


def _format(
    path: Path, wanted: str | None, header: "Header", limits: tuple[int, np.ndarray | None], names: bool
) -> "RowFormat":
    """The form of the file at `path`, with `limits` (top, thresholds). Raises `InputError` if they do not fit it."""
    from topgb.evaluation.prediction_formats import TOP_K, Challenge, Pairs, chosen_format

    found, (top, least) = chosen_format(path, wanted), limits
    if found != "challenge":
        return Pairs(found, header.class_names, top, least)
    if least is not None or top > TOP_K:
        asked = option("threshold") if least is not None else option("top", top)
        raise InputError(
            f"{asked} does not go with the challenge's CSV, which has each video's best classes, {TOP_K} at most; "
            f"write a table: {option('format', 'csv')}, or a name that ends in .jsonl or .parquet"
        )
    return Challenge(header.class_names if names else None, top)


def _best(
    opened: "OpenedModel", dataset: "Dataset", top: int, progress: "Progress"
) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Ids, and the best classes int64 [N, K] with their probabilities float32 [N, K]."""
    from topgb.evaluation.predictions import predictions

    most = min(top, dataset.classes)
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
    precision: "PrecisionChoice" = "float32",
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
    from topgb.evaluation.opening import warn_of_videos
    from topgb.records.on_damaged import OnDamaged
    from topgb.training.opened import open_stored

    check_choices(on_damaged=(on_damaged, OnDamaged), format=(format, ScoreFormat))
    check_least(top_k=(top_k, 1))
    opened = open_given(to_path(model), Opening(None, device, resident, engine, address, precision))
    identity = teacher_identity(open_stored(to_path(model)), opened.device, resident, opened.here.precision)
    dataset = open_records(opened.here, to_pattern(data), on_damaged, format)
    options = DistillOptions(top_k, format, force, opened.engine, opened.here.header.class_names)
    done = write_scores(opened.model, dataset, to_path(out), opened.device, identity, options, to_progress(progress))
    warn_of_videos(dataset)
    return done
