"""Predict records with a model, and write each video's best classes to a file."""

import hashlib
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from topgb.devices import Resident
from topgb.evaluation.finished_shards import FinishedShards, ShardRows, parts_folder
from topgb.evaluation.prediction_formats import Challenge, RowFormat

# Imported for callers that still import it from here, where it was first.
from topgb.evaluation.prediction_formats import csv_rows as csv_rows
from topgb.evaluation.predictions import Predictor, damage_in, predictions, shard_pieces, shared_files
from topgb.files import refuse_existing
from topgb.folder_lock import writing_alone
from topgb.jobs.dispatch import dispatch
from topgb.jobs.engine import LOCAL, Engine
from topgb.modelfile import LoadedModel
from topgb.modelfile.loaded import default_resident
from topgb.progress import SILENT, Progress
from topgb.records.dataset import Dataset


@dataclass(frozen=True)
class CsvOptions:
    """Options of `write_predictions`.

    force        overwrite what exists
    class_names  V names; adds a third column with those of the video's best classes, joined by `; `; None: no column
    identity     JSON values that identify the model and how it computes (see `model_identity`). A prediction that
                 stopped on a cluster goes on if they are the same; with None it starts anew
    rows         the form of the rows, with class names of its own; None: the challenge's CSV
    """

    force: bool = False
    class_names: Sequence[str] | None = None
    identity: dict[str, Any] | None = None
    rows: RowFormat | None = None

    @property
    def format(self) -> RowFormat:
        """The form of the file."""
        return self.rows or Challenge(self.class_names)


DEFAULT_CSV = CsvOptions()


def write_predictions(
    model: Predictor,
    dataset: Dataset,
    path: Path,
    device: torch.device,
    options: CsvOptions = DEFAULT_CSV,
    progress: Progress = SILENT,
    engine: Engine = LOCAL,
) -> int:
    """Write the challenge's CSV (gzipped if `path` ends in .gz), or another table; returns the number of videos.

    A row of the CSV is `id,class probability class probability …`: the best classes, best first (2018: `inference.py`).

    On a cluster each worker takes one shard at a time, and finished shards are kept beside `path` until the file is
    written. A stopped call goes on when repeated with the same `options.identity`, records and format. `model`
    must be picklable (see `opened_there`). Raises `InputError` if `path` exists and `options.force` is off,
    `TopgbError` if a probability is not finite, and as `dispatch` does.
    """
    refuse_existing(path, options.force)
    if engine.kind == "local":
        return _write_here(model, dataset, path, device, options, progress)
    with writing_alone(parts_folder(path)):
        finished = FinishedShards(path, _description(dataset, options))
        pieces = [piece for piece in shard_pieces(dataset) if not finished.has(piece.number)]
        done = dataset.num_records - sum(piece.size for piece in pieces)
        progress.begin("predicting", dataset.num_records, "videos", done)
        work = _Predicting(model, dataset, device, options.format)
        dispatch(work, pieces, finished.write, engine, progress, shared_files(dataset))
        progress.end()
        videos = 0
        with options.format.open(path) as write:
            for shard in range(len(dataset.shards)):
                rows = finished.read(shard)
                write(rows.rows)
                videos += rows.videos
                dataset.note_damage(rows.damaged)
        finished.remove()
    with suppress(OSError):
        parts_folder(path).rmdir()
    return videos


def _description(dataset: Dataset, options: CsvOptions) -> dict[str, Any] | None:
    """JSON values that determine the rows; None if the model has no identity."""
    if options.identity is None:
        return None
    return {
        "model": options.identity,
        "records": dataset.fingerprint(),
        "on_damaged": dataset.on_damaged,
        **options.format.to_json(),
    }


def model_identity(model: LoadedModel, device: torch.device, resident: Resident | None = None) -> dict[str, Any]:
    """JSON values that determine probabilities: a hash of header and weights, `device`, and the form of the weights."""
    digest = hashlib.sha256(model.header.dumps().encode())
    for _, tensor in sorted([*model.named_parameters(), *model.named_buffers()]):
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return {
        "sha256": digest.hexdigest(),
        "device": device.type,
        "resident": resident or default_resident(device),
        **({} if model.precision == "float32" else {"precision": model.precision}),
    }


def _write_here(
    model: Predictor, dataset: Dataset, path: Path, device: torch.device, options: CsvOptions, progress: Progress
) -> int:
    videos = 0
    progress.begin("predicting", dataset.num_records, "videos")
    with options.format.open(path) as write:
        for batch, probabilities in predictions(model, dataset, device, progress):
            write(options.format.encode(batch.ids, probabilities))
            videos += len(batch)
    progress.end()
    return videos


@dataclass(frozen=True)
class _Predicting:
    """The work on a piece; piece n is shard n."""

    model: Predictor
    dataset: Dataset
    device: torch.device
    format: RowFormat

    def __call__(self, shard: int, progress: Progress) -> ShardRows:
        rows: list[bytes] = []
        videos = 0
        for batch, probabilities in predictions(self.model, self.dataset, self.device, progress, shard=shard):
            rows.append(self.format.encode(batch.ids, probabilities))
            videos += len(batch)
        return ShardRows(b"".join(rows), videos, damage_in(self.dataset, shard))
