"""Predict records with a model, and write the challenge's CSV."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from topgb.csv_rows import csv_field
from topgb.evaluation.finished_shards import FinishedShards, ShardRows
from topgb.evaluation.metrics import TOP_K
from topgb.evaluation.predictions import Predictor, predictions
from topgb.evaluation.shard_jobs import damage_in, shard_pieces, shared_files
from topgb.files import atomic_write_named, refuse_existing
from topgb.jobs.dispatch import dispatch
from topgb.jobs.engine import LOCAL, Engine
from topgb.modelfile import LoadedModel
from topgb.modelfile.loaded import default_resident
from topgb.modelfile.packed import Resident
from topgb.progress import SILENT, Progress
from topgb.records.dataset import Dataset
from topgb.youtube8m.submission import HEADER


@dataclass(frozen=True)
class CsvOptions:
    """Options of `write_predictions`.

    force        overwrite what exists
    class_names  V names; adds a third column with those of the video's best classes, joined by `; `; None: no column
    identity     JSON values that identify the model and how it computes (see `model_identity`). A prediction that
                 stopped on a cluster goes on if they are the same; with None it starts anew
    """

    force: bool = False
    class_names: Sequence[str] | None = None
    identity: dict[str, Any] | None = None

    @property
    def header(self) -> str:
        return f"{HEADER}\n" if self.class_names is None else f"{HEADER},ClassNames\n"


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
    """Write the challenge's CSV (gzipped if `path` ends in .gz); returns the number of videos.

    A row is `id,class probability class probability …`: the 20 best classes, best first (2018: `inference.py`).

    On a cluster each worker takes one shard at a time, and finished shards are kept beside `path` until the CSV is
    written. A stopped call goes on when repeated with the same `options.identity`, records and class names. `model`
    must be picklable (see `opened_there`). Raises `InputError` if `path` exists and `options.force` is off,
    `TopgbError` if a probability is not finite, and as `dispatch` does.
    """
    refuse_existing(path, options.force)
    if engine.kind == "local":
        return _write_here(model, dataset, path, device, options, progress)
    finished = FinishedShards(path, _description(dataset, options))
    pieces = [piece for piece in shard_pieces(dataset) if not finished.has(piece.number)]
    done = dataset.num_records - sum(piece.size for piece in pieces)
    progress.begin("predicting", dataset.num_records, "videos", done)
    work = _Predicting(model, dataset, device, options.class_names)
    dispatch(work, pieces, finished.write, engine, progress, shared_files(dataset))
    progress.end()
    videos = 0
    with atomic_write_named(path) as file:
        file.write(options.header.encode())
        for shard in range(len(dataset.shards)):
            rows = finished.read(shard)
            file.write(rows.csv)
            videos += rows.videos
            dataset.note_damage(rows.damaged)
    finished.remove()
    return videos


def _description(dataset: Dataset, options: CsvOptions) -> dict[str, Any] | None:
    """JSON values that determine the rows; None if the model has no identity."""
    if options.identity is None:
        return None
    return {
        "model": options.identity,
        "records": dataset.fingerprint(),
        "on_damaged": dataset.on_damaged,
        "class_names": options.class_names and list(options.class_names),
    }


def model_identity(model: LoadedModel, device: torch.device, resident: Resident | None = None) -> dict[str, Any]:
    """JSON values that determine probabilities: a hash of header and weights, `device`, and the form of the weights."""
    digest = hashlib.sha256(model.header.dumps().encode())
    for _, tensor in sorted([*model.named_parameters(), *model.named_buffers()]):
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return {"sha256": digest.hexdigest(), "device": device.type, "resident": resident or default_resident(device)}


def _write_here(
    model: Predictor, dataset: Dataset, path: Path, device: torch.device, options: CsvOptions, progress: Progress
) -> int:
    videos = 0
    progress.begin("predicting", dataset.num_records, "videos")
    with atomic_write_named(path) as file:
        file.write(options.header.encode())
        for batch, probabilities in predictions(model, dataset, device, progress):
            file.write("".join(csv_rows(batch.ids, probabilities, options.class_names)).encode())
            videos += len(batch)
    progress.end()
    return videos


@dataclass(frozen=True)
class _Predicting:
    """The work on a piece; piece n is shard n."""

    model: Predictor
    dataset: Dataset
    device: torch.device
    class_names: Sequence[str] | None

    def __call__(self, shard: int, progress: Progress) -> ShardRows:
        rows: list[str] = []
        videos = 0
        for batch, probabilities in predictions(self.model, self.dataset, self.device, progress, shard=shard):
            rows += csv_rows(batch.ids, probabilities, self.class_names)
            videos += len(batch)
        return ShardRows("".join(rows).encode(), videos, damage_in(self.dataset, shard))


def csv_rows(ids: Sequence[str], probabilities: torch.Tensor, class_names: Sequence[str] | None = None) -> list[str]:
    """The CSV's rows, each with its newline, for the videos `ids` with probabilities float32 [B, V]."""
    best, classes = probabilities.topk(min(TOP_K, probabilities.shape[1]), dim=1)
    rows = []
    for video, row, scores in zip(ids, classes.tolist(), best.tolist(), strict=True):
        names = "" if class_names is None else "," + csv_field("; ".join(class_names[c] for c in row))
        pairs = " ".join(f"{c} {p:.6g}" for c, p in zip(row, scores, strict=True))
        rows.append(f"{csv_field(video)},{pairs}{names}\n")
    return rows
