"""A model's predictions over labelled records, kept, so that what is made of several models is scored without them."""

import os
import tempfile
from dataclasses import dataclass

import numpy as np
import torch

from topgb.errors import InputError, TopgbError
from topgb.evaluation.metrics import TOP_K
from topgb.evaluation.score import EVALUATION_BATCH, Predictor, finite_predictions
from topgb.progress import SILENT, Progress
from topgb.records.dataset import Dataset, evaluation_batches

# A larger matrix lies in a temporary file, where the system may write it out when memory is short.
MOST_BYTES_IN_MEMORY = 256 << 20


@dataclass(frozen=True)
class Predictions:
    """What a model says of N videos: `ids`, `probabilities` float32 [N, V], and their `labels` bool [N, V]."""

    ids: list[str]
    probabilities: np.ndarray
    labels: np.ndarray


@torch.inference_mode()
def collect(model: Predictor, dataset: Dataset, device: torch.device, progress: Progress = SILENT) -> Predictions:
    """The model's predictions of every labelled video, in file order, with every frame.

    Large arrays are mapped from temporary files that vanish with them. Raises `InputError` where a record has no labels
    or no video is left, `TopgbError` where a probability is not finite or there is no room.
    """
    ids: list[str] = []
    shape = dataset.num_records, dataset.classes
    probabilities, labels = _matrix(shape, np.dtype(np.float32)), _matrix(shape, np.dtype(np.bool_))
    progress.begin("predicting", dataset.num_records, "videos")
    for batch in evaluation_batches(dataset, EVALUATION_BATCH):
        if batch.labels is None:
            raise InputError(f"the records hold no labels (video {batch.ids[0]}); name labelled ones")
        rows = slice(len(ids), len(ids) + len(batch))
        probabilities[rows] = finite_predictions(model, batch, device).cpu().numpy()
        labels[rows] = batch.labels.numpy()
        ids += batch.ids
        progress.advance(len(batch))
    progress.end()
    if not ids:
        raise InputError("no video could be read, so there is nothing to predict")
    # Damaged records that were skipped leave rows over.
    return Predictions(ids, probabilities[: len(ids)], labels[: len(ids)])


def gap(probabilities: np.ndarray | torch.Tensor, labels: np.ndarray | torch.Tensor) -> float:
    """GAP@20 of probabilities float [N, V] and labels bool [N, V]: that of `Metrics`, without the other figures."""
    probabilities, labels = torch.as_tensor(probabilities), torch.as_tensor(labels).cpu()
    scores, classes = probabilities.topk(min(TOP_K, probabilities.shape[1]), dim=1)
    # NumPy counts forty times as fast as torch sums bools.
    return average_precision(scores.cpu(), labels.gather(1, classes.cpu()), int(np.count_nonzero(labels.numpy())))


def average_precision(scores: torch.Tensor, hits: torch.Tensor, positives: int) -> float:
    """Average precision of pairs with `scores` float and `hits` bool of one shape, `positives` the labels there are.

    Equal scores keep their order, as in `Metrics`.
    """
    order = scores.flatten().argsort(descending=True, stable=True)
    # Only hits count, and the precision at the h-th of them is h / its rank.
    ranks = hits.flatten()[order].nonzero().flatten().double() + 1
    return float((torch.arange(1, len(ranks) + 1, dtype=torch.float64) / ranks).sum() / max(positives, 1))


def _matrix(shape: tuple[int, int], dtype: np.dtype) -> np.ndarray:
    size = shape[0] * shape[1] * dtype.itemsize
    if size <= MOST_BYTES_IN_MEMORY:
        return np.empty(shape, dtype)
    try:
        with tempfile.TemporaryFile() as file:
            # A mapped file that finds the disk full would end the process.
            os.posix_fallocate(file.fileno(), 0, size)
            return np.memmap(file, dtype, "r+", shape=shape)
    except OSError as error:
        raise TopgbError(
            f"no room for predictions of {size:,} bytes in {tempfile.gettempdir()}: {error.strerror or error}; "
            "free some, or set TMPDIR to another folder"
        ) from error
