"""The one loop that runs a model over a data set and checks its probabilities, and shards as the pieces of a job."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch

from topgb.batch import Batch
from topgb.errors import DamagedRecordError, InputError, TopgbError
from topgb.jobs.engine import Piece
from topgb.progress import SILENT, Progress
from topgb.records.dataset import Dataset, evaluation_batches
from topgb.records.labels import check_label_counts
from topgb.records.sampling import EVERY_FRAME, FrameSampling
from topgb.tensors import all_finite

EVALUATION_BATCH = 128


class Predictor(Protocol):
    """Anything that turns a batch on its device into probabilities float32 [B, V]."""

    def predict_batch(self, batch: Batch) -> torch.Tensor: ...


@dataclass(frozen=True)
class FrameDraw:
    """Which frames of a video the model sees: those that `sampling` draws, keyed by (seed, round, record)."""

    sampling: FrameSampling = EVERY_FRAME
    seed: int = 0
    round: int = 0


ALL_FRAMES = FrameDraw()


def batches(
    dataset: Dataset,
    progress: Progress = SILENT,
    purpose: str | None = None,
    shard: int | None = None,
    draw: FrameDraw = ALL_FRAMES,
) -> Iterator[Batch]:
    """Yield every video of `dataset`, or of shard number `shard`, once and in file order, in batches on the CPU.

    If there is a `purpose` (a verb for messages, such as "score against"), every video must have labels. `progress`
    advances when the next batch is requested. Later batches reuse the memory of a batch. Raises `InputError` for videos
    without labels, for a whole data set whose labels serve no purpose (see `check_found`), and as `evaluation_batches`
    does.
    """
    positives, videos = np.zeros(dataset.classes, np.int64), 0
    for number in range(len(dataset.shards)) if shard is None else [shard]:
        for batch in evaluation_batches(dataset, EVALUATION_BATCH, [number], draw.sampling, draw.seed, draw.round):
            if purpose is not None:
                if batch.labels is None:
                    # Records of other shards may have labels.
                    raise InputError(
                        f"records of {dataset.shards[number].path} hold no labels (video {batch.ids[0]}), so there is "
                        f"nothing to {purpose}; {dataset.label_advice(number)}, or use topgb predict for unlabelled "
                        "ones"
                    )
                if shard is None:
                    positives += np.count_nonzero(batch.labels.numpy(), axis=0)
                    videos += len(batch)
            yield batch
            progress.advance(len(batch))
    if purpose is not None and shard is None:
        check_found(positives, videos, purpose)


@torch.inference_mode()
def predictions(
    model: Predictor,
    dataset: Dataset,
    device: torch.device,
    progress: Progress = SILENT,
    purpose: str | None = None,
    shard: int | None = None,
    draw: FrameDraw = ALL_FRAMES,
) -> Iterator[tuple[Batch, torch.Tensor]]:
    """Yield each batch of `batches` (on the CPU) with the model's probabilities for it, float32 [B, V] on `device`.

    Raises as `batches` does, and `TopgbError`, which names the video, if a probability is not finite.
    """
    for batch in batches(dataset, progress, purpose, shard, draw):
        yield batch, finite_predictions(model, batch, device)


def finite_predictions(model: Predictor, batch: Batch, device: torch.device) -> torch.Tensor:
    """The model's probabilities for a batch, float32 [B, V] on `device`. Raises `TopgbError` if one is not finite."""
    probabilities = model.predict_batch(batch.to(device))
    if not all_finite(probabilities):
        video = batch.ids[int(probabilities.isfinite().all(1).int().argmin())]
        raise TopgbError(
            f"the model's probabilities for video {video} are not finite: values of its features, or of the model, are "
            "too large; compare them with those of other videos, and try another model"
        )
    return probabilities


def of_known_pairs(probabilities: torch.Tensor, batch: Batch) -> torch.Tensor:
    """`probabilities` [B, V], 0 for pairs that are unknown, which count in no figure of known ones."""
    return probabilities if batch.weights is None else probabilities * (batch.weights > 0).to(probabilities.device)


def check_found(positives: np.ndarray, videos: int, purpose: str) -> None:
    """Raise `InputError` if a data set had no video, or labels that serve no `purpose` (see `check_label_counts`).

    `positives` int64 [V] counts the labels of the `videos` videos by class.
    """
    if not videos:
        raise no_video(purpose)
    check_label_counts(positives, videos, "the records", purpose)


def no_video(purpose: str) -> InputError:
    """The error for a data set from which no video could be read."""
    return InputError(f"no video could be read, so there is nothing to {purpose}; topgb data verify says why")


def shard_pieces(dataset: Dataset) -> list[Piece]:
    """One piece per shard; its size is the shard's number of records."""
    return [
        Piece(number, shard.path, int(count))
        for number, (shard, count) in enumerate(zip(dataset.shards, dataset.counts, strict=True))
    ]


def shared_files(dataset: Dataset) -> list[str]:
    """A file that every node must see if it can read the records: the first shard that is not remote, if any."""
    return [shard.path for shard in dataset.shards if not shard.remote][:1]


def damage_in(dataset: Dataset, shard: int) -> list[DamagedRecordError]:
    """The damaged records found so far in shard number `shard`."""
    return [error for error in dataset.damaged if error.path == dataset.shards[shard].path]
