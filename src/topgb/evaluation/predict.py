"""A model over records: the challenge's CSV."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from topgb.batch import Batch
from topgb.evaluation.metrics import TOP_K
from topgb.evaluation.score import EVALUATION_BATCH, Predictor, finite_predictions
from topgb.evaluation.submission import HEADER
from topgb.files import refuse_existing
from topgb.progress import SILENT, Progress
from topgb.records.dataset import evaluation_batches
from topgb.records.gzipped import atomic_write_named
from topgb.records.reading import Dataset
from topgb.vocabulary import csv_field


def write_predictions(
    model: Predictor,
    dataset: Dataset,
    path: Path,
    device: torch.device,
    force: bool = False,
    progress: Progress = SILENT,
    class_names: Sequence[str] | None = None,
) -> int:
    """Write the challenge's CSV (gzipped where `path` ends in .gz) and return the number of videos.

    A row is `id,class probability class probability …`, the 20 best classes, best first (2018: `inference.py`). With
    `class_names` [V] a third column has the names of these classes, joined by `; `. Raises `TopgbError` where a
    probability is not finite.
    """
    refuse_existing(path, force)
    videos = 0
    progress.begin("predicting", dataset.num_records, "videos")
    with atomic_write_named(path) as file:
        file.write(f"{HEADER}\n".encode() if class_names is None else f"{HEADER},ClassNames\n".encode())
        for batch in evaluation_batches(dataset, EVALUATION_BATCH):
            for line in prediction_rows(model, batch, device, class_names):
                file.write(line.encode())
            videos += len(batch)
            progress.advance(len(batch))
    progress.end()
    return videos


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
