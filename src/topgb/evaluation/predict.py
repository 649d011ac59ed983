"""A model over records: the challenge's CSV."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from topgb.batch import Batch
from topgb.evaluation.finished_shards import Part, Parts
from topgb.evaluation.metrics import TOP_K
from topgb.evaluation.score import EVALUATION_BATCH, Predictor, finite_predictions
from topgb.evaluation.shard_jobs import damage_in, shard_pieces, shared_files
from topgb.files import atomic_write_named, refuse_existing
from topgb.jobs.dispatch import run_over
from topgb.jobs.engine import LOCAL, Engine
from topgb.modelfile import LoadedModel
from topgb.modelfile.loaded import default_resident
from topgb.modelfile.packed import Resident
from topgb.progress import SILENT, Progress
from topgb.records.dataset import Dataset, evaluation_batches
from topgb.vocabulary import csv_field
from topgb.youtube8m.submission import HEADER


def write_predictions(
    model: Predictor,
    dataset: Dataset,
    path: Path,
    device: torch.device,
    force: bool = False,
    progress: Progress = SILENT,
    class_names: Sequence[str] | None = None,
    engine: Engine = LOCAL,
    identity: dict[str, Any] | None = None,
) -> int:
    """Write the challenge's CSV (gzipped where `path` ends in .gz) and return the number of videos.

    A row is `id,class probability class probability …`, the 20 best classes, best first (2018: `inference.py`). With
    `class_names` [V] a third column has the names of these classes, joined by `; `.

    With another `engine` its workers take a shard each, and what they finish is kept beside `path` until the whole is
    written: called again after a stop, it goes on, if `identity` (JSON values that name the model and how it computes;
    see `model_identity`), records and names are the same. `model` must be picklable (see `opened_there`). Raises
    `TopgbError` where a probability is not finite, and as `run_over`.
    """
    refuse_existing(path, force)
    header = f"{HEADER}\n" if class_names is None else f"{HEADER},ClassNames\n"
    if engine.kind == "local":
        return _write_here(model, dataset, path, device, progress, class_names, header)
    of = (
        None
        if identity is None
        else {
            "model": identity,
            "records": dataset.fingerprint(),
            "on_damaged": dataset.on_damaged,
            "class_names": class_names and list(class_names),
        }
    )
    parts = Parts(path, of)
    pieces = [piece for piece in shard_pieces(dataset) if not parts.has(piece.number)]
    done = dataset.num_records - sum(piece.size for piece in pieces)
    progress.begin("predicting", dataset.num_records, "videos", done)
    work = _Predicting(model, dataset, device, class_names)
    run_over(work, pieces, parts.write, engine, progress, shared_files(dataset))
    progress.end()
    videos = 0
    with atomic_write_named(path) as file:
        file.write(header.encode())
        for shard in range(len(dataset.shards)):
            part = parts.read(shard)
            file.write(part.rows)
            videos += part.videos
            dataset.note_damage(part.damaged)
    parts.remove()
    return videos


def model_identity(model: LoadedModel, device: torch.device, resident: Resident | None = None) -> dict[str, Any]:
    """What probabilities depend on: a hash of the model's header and weights, and how it computes on `device`."""
    digest = hashlib.sha256(model.header.dumps().encode())
    for _, tensor in sorted([*model.named_parameters(), *model.named_buffers()]):
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return {"sha256": digest.hexdigest(), "device": device.type, "resident": resident or default_resident(device)}


def _write_here(
    model: Predictor,
    dataset: Dataset,
    path: Path,
    device: torch.device,
    progress: Progress,
    class_names: Sequence[str] | None,
    header: str,
) -> int:
    videos = 0
    progress.begin("predicting", dataset.num_records, "videos")
    with atomic_write_named(path) as file:
        file.write(header.encode())
        for batch in evaluation_batches(dataset, EVALUATION_BATCH):
            for line in prediction_rows(model, batch, device, class_names):
                file.write(line.encode())
            videos += len(batch)
            progress.advance(len(batch))
    progress.end()
    return videos


@dataclass(frozen=True)
class _Predicting:
    """What a worker does: piece n is shard n."""

    model: Predictor
    dataset: Dataset
    device: torch.device
    class_names: Sequence[str] | None

    def __call__(self, shard: int, progress: Progress) -> Part:
        rows: list[str] = []
        videos = 0
        for batch in evaluation_batches(self.dataset, EVALUATION_BATCH, [shard]):
            rows += prediction_rows(self.model, batch, self.device, self.class_names)
            videos += len(batch)
            progress.advance(len(batch))
        return Part("".join(rows).encode(), videos, damage_in(self.dataset, shard))


@torch.inference_mode()
def prediction_rows(
    model: Predictor, batch: Batch, device: torch.device, class_names: Sequence[str] | None = None
) -> Iterator[str]:
    """The CSV rows of one batch, each with its newline."""
    probabilities = finite_predictions(model, batch, device)
    best, classes = probabilities.topk(min(TOP_K, probabilities.shape[1]), dim=1)
    for video, row, scores in zip(batch.ids, classes.tolist(), best.tolist(), strict=True):
        names = "" if class_names is None else "," + csv_field("; ".join(class_names[c] for c in row))
        yield f"{csv_field(video)},{' '.join(f'{c} {p:.6g}' for c, p in zip(row, scores, strict=True))}{names}\n"
