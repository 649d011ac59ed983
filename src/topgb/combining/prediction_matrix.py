"""A model's predictions for labelled records as a matrix, to score mixtures without running the models again."""

import os
import tempfile
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch

from topgb.errors import TopgbError
from topgb.evaluation.metrics import TOP_K, pooled_average_precision
from topgb.evaluation.predictions import Predictor, predictions
from topgb.progress import SILENT, Progress
from topgb.records.dataset import Dataset

# A larger matrix lies in a temporary file, where the system may write it out when memory is short.
MOST_BYTES_IN_MEMORY = 256 << 20
PURPOSE = "score against"


@dataclass(frozen=True)
class PredictionMatrix:
    """A model's predictions for N videos: `ids`, `probabilities` float32 [N, V], and the `labels` bool [N, V]."""

    ids: list[str]
    probabilities: np.ndarray
    labels: np.ndarray


@torch.inference_mode()
def collect(model: Predictor, dataset: Dataset, device: torch.device, progress: Progress = SILENT) -> PredictionMatrix:
    """The model's predictions for every labelled video, in file order, on every frame.

    Large arrays are mapped from temporary files, which disappear with them. Raises `InputError` if a record has no
    labels or no video could be read, `TopgbError` if a probability is not finite or there is no room.
    """
    ids: list[str] = []
    shape = dataset.num_records, dataset.classes
    probabilities, labels = _matrix(shape, np.dtype(np.float32)), _matrix(shape, np.dtype(np.bool_))
    progress.begin("predicting", dataset.num_records, "videos")
    for batch, found in predictions(model, dataset, device, progress, PURPOSE):
        rows = slice(len(ids), len(ids) + len(batch))
        probabilities[rows] = found.cpu().numpy()
        labels[rows] = cast(torch.Tensor, batch.labels).numpy()
        ids += batch.ids
    progress.end()
    # Skipped records leave unused rows at the end.
    return PredictionMatrix(ids, probabilities[: len(ids)], labels[: len(ids)])


def gap(probabilities: np.ndarray | torch.Tensor, labels: np.ndarray | torch.Tensor) -> float:
    """GAP@20 of probabilities float32 [N, V] and labels bool [N, V], without the other figures of `Metrics`."""
    probabilities, labels = torch.as_tensor(probabilities), torch.as_tensor(labels).cpu()
    scores, classes = probabilities.topk(min(TOP_K, probabilities.shape[1]), dim=1)
    # NumPy counts bools forty times as fast as PyTorch sums them.
    positives = int(np.count_nonzero(labels.numpy()))
    return pooled_average_precision(scores.cpu(), labels.gather(1, classes.cpu()), positives)


def _matrix(shape: tuple[int, int], dtype: np.dtype) -> np.ndarray:
    size = shape[0] * shape[1] * dtype.itemsize
    if size <= MOST_BYTES_IN_MEMORY:
        return np.empty(shape, dtype)
    try:
        with tempfile.TemporaryFile() as file:
            # Reserve the space now: writing to a mapped file on a full disk would kill the process.
            os.posix_fallocate(file.fileno(), 0, size)
            return np.memmap(file, dtype, "r+", shape=shape)
    except OSError as error:
        raise TopgbError(
            f"no room for predictions of {size:,} bytes in {tempfile.gettempdir()}: {error.strerror or error}; "
            "free some, or set TMPDIR to another folder"
        ) from error
