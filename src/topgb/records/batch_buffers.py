"""Form a padded batch from decoded records.

The memory of a batch is used again: fresh pages cost a fifth of the time that reading a batch of frames takes.
"""

import weakref
from collections.abc import Sequence

import numpy as np
import torch
from torch.utils.data import get_worker_info

from topgb.errors import InputError
from topgb.features import FeatureSpec
from topgb.records.codec import DecodedRecord
from topgb.records.labels import LABELS_APART, TeacherSource, or_teacher_alone

_WORTHWHILE_BYTES = 1 << 20
_KEPT = 2


class BufferPool:
    """Lends arrays and takes their memory back when they are freed."""

    def __init__(self) -> None:
        self._free: list[np.ndarray] = []
        self._lent: dict[int, weakref.ref] = {}

    def lend(self, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        """An array of `shape` and `dtype` with undefined content.

        The pool lends the memory again once the array object is freed. A tensor made by `torch.from_numpy(array)` keeps
        the array object alive, and so does everything that shares the tensor's storage (views, `tensor.numpy()`). NumPy
        views of the array do not, because they keep its base instead, so they must not outlive it.
        """
        size = int(np.prod(shape)) * dtype.itemsize
        if size < _WORTHWHILE_BYTES:
            return np.empty(shape, dtype)
        buffer = self._take_buffer(size)
        array = buffer[:size].view(dtype).reshape(shape)
        key = id(array)

        def give_back(_: weakref.ref) -> None:
            del self._lent[key]
            if len(self._free) < _KEPT:
                self._free.append(buffer)

        self._lent[key] = weakref.ref(array, give_back)
        return array

    def _take_buffer(self, size: int) -> np.ndarray:
        for position, buffer in enumerate(self._free):
            # At most twice the size, because a batch that is kept holds on to the whole buffer.
            if size <= buffer.nbytes <= 2 * size:
                return self._free.pop(position)
        if len(self._free) == _KEPT:
            self._free.pop(0)
        # NumPy asks the kernel for huge pages; torch.empty does not.
        return np.empty(size, np.uint8)


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


def label_matrix(
    records: Sequence[DecodedRecord], paths: Sequence[str], classes: int | None, teacher: TeacherSource | None = None
) -> torch.Tensor | None:
    """The records' labels, bool [B, classes]; None if `classes` is None, or if there are records and none is labelled.

    Raises `InputError` if some records are labelled and others are not. A `teacher` is one to learn from beside labels.
    """
    labelled = [record.labels is not None for record in records]
    if classes is None or (records and not any(labelled)):
        return None
    if not all(labelled):
        missing, other = labelled.index(False), labelled.index(True)
        where = "" if paths[other] == paths[missing] else f" of {paths[other]}"
        raise InputError(
            f"{paths[missing]}: video {records[missing].id!r} has no labels, but video {records[other].id!r}{where} "
            f"has; {LABELS_APART}{or_teacher_alone(teacher)}"
        )
    matrix = np.zeros((len(records), classes), np.bool_)
    for row, record in zip(matrix, records, strict=True):
        row[record.labels] = True
    return torch.from_numpy(matrix)
