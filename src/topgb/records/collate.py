"""Form a padded batch from decoded records."""

from collections.abc import Sequence

import numpy as np
import torch
from torch.utils.data import get_worker_info

from topgb.errors import InputError
from topgb.features import FeatureSpec
from topgb.records.buffers import BufferPool
from topgb.records.codec import DecodedRecord

_buffers = BufferPool()


def empty_features(videos: int, frames: int, spec: FeatureSpec) -> tuple[torch.Tensor, np.ndarray]:
    """A tensor [videos, frames, width] of undefined content in the batch's dtype, and an array of the same memory."""
    dtype = np.dtype(np.uint8 if spec.all_bytes else np.float32)
    shape = (videos, frames, spec.width)
    bytes_needed = videos * frames * spec.width * dtype.itemsize
    if get_worker_info() is not None and bytes_needed:
        # A worker of the loader hands batches over in shared memory; filling that memory directly saves a copy.
        storage = torch.UntypedStorage._new_shared(bytes_needed)
        tensor = torch.empty(0, dtype=torch.uint8 if spec.all_bytes else torch.float32).set_(storage).view(shape)
        return tensor, tensor.numpy()
    array = _buffers.lend(shape, dtype)
    return torch.from_numpy(array), array


def label_matrix(records: Sequence[DecodedRecord], paths: Sequence[str], classes: int | None) -> torch.Tensor | None:
    """The records' labels, bool [B, classes]; None if `classes` is None, or if there are records and none is labelled.

    Raises `InputError` if some records are labelled and others are not.
    """
    labelled = [record.labels is not None for record in records]
    if classes is None or (records and not any(labelled)):
        return None
    if not all(labelled):
        missing = labelled.index(False)
        raise InputError(
            f"{paths[missing]}: video {records[missing].id!r} has no labels, but {paths[labelled.index(True)]} has; "
            "read labelled and unlabelled records apart"
        )
    matrix = np.zeros((len(records), classes), np.bool_)
    for row, record in zip(matrix, records, strict=True):
        row[record.labels] = True
    return torch.from_numpy(matrix)
