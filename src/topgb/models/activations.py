"""Estimate the memory that a model takes to predict a batch: a small header may ask for any amount."""

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any
from weakref import WeakSet, finalize

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from topgb.batch import Batch
from topgb.errors import InputError

# Memory inside of single operations, and the allocator's own, are not counted.
_RESERVE = 1.5


class Living(TorchDispatchMode):
    """Counts the bytes of living tensors that operations have made: `now` at present, `most` at the peak.

    The tensors in `known` exist before and are not counted.
    """

    def __init__(self, known: Iterable[torch.Tensor]):
        super().__init__()
        self.now = self.most = 0
        # Count storages: a view, or a tensor changed in place, takes no new memory.
        self._known = WeakSet(tensor.untyped_storage() for tensor in known)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor) and tensor.untyped_storage() not in self._known:
                self._count(tensor.untyped_storage())
        return result

    def _count(self, storage: torch.UntypedStorage) -> None:
        self._known.add(storage)
        self.now += storage.nbytes()
        self.most = max(self.most, self.now)
        finalize(storage, self._forget, storage.nbytes())

    def _forget(self, count: int) -> None:
        self.now -= count


class ActivationCheck:
    """Refuses batches for which there is too little memory; asks only about those larger than any before."""

    def __init__(self, free_memory: Callable[[torch.device], int | None]):
        self._free_memory = free_memory
        self._videos = self._frames = 0

    def __call__(self, model: nn.Module, predict: Callable[[Batch], torch.Tensor], batch: Batch) -> None:
        """Raise `InputError` if predicting `batch` needs more memory than its device has free.

        One of its videos is predicted, and two where one leaves doubt: what does not grow with the videos is then
        known. Two videos or fewer are not checked.
        """
        videos, frames = batch.features.shape[:2]
        if videos <= 2 or (videos <= self._videos and frames <= self._frames):
            return
        device = batch.features.device
        free = self._free_memory(device)
        if free is not None:
            one = _peak(model, predict, batch, 1)
            needed = float(one * videos)
            if needed * _RESERVE > free:
                needed = one + (_peak(model, predict, batch, 2) - one) * (videos - 1)
            if needed > free:
                raise InputError(
                    f"the model needs about {needed / 1e9:.1f} GB of memory to predict {videos} videos of {frames} "
                    f"frames, but {free / 1e9:.1f} GB are free on {device}; if its sizes are as they should be, use a "
                    "machine with more memory, otherwise get the file again"
                )
        self._videos, self._frames = max(videos, self._videos), max(frames, self._frames)


def _peak(model: nn.Module, predict: Callable[[Batch], torch.Tensor], batch: Batch, videos: int) -> int:
    """The bytes of all tensors that live at once while the first `videos` videos of a batch are predicted."""
    part = replace(
        batch,
        ids=batch.ids[:videos],
        features=batch.features[:videos],
        num_frames=batch.num_frames[:videos],
        labels=None,
        teacher=None,
    )
    with Living([*model.parameters(), *model.buffers(), part.features, part.num_frames]) as living:
        predict(part)
    return living.most
