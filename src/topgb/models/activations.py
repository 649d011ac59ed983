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
from topgb.models.frontend import Frontend, padding_no_further
from topgb.models.readlinear import keeping_nothing

# Factor for memory that is not counted: inside single operations, and the allocator's own.
_RESERVE = 1.5
# Stop trying more frames when this factor more of them would no longer surely fit.
_LEAST_GROWTH = 1.5


class Living(TorchDispatchMode):
    """Counts the bytes of living tensors that operations have made: `now` at present, `most` at the peak.

    The tensors in `known` exist before and are not counted.
    """

    def __init__(self, known: Iterable[torch.Tensor]):
        super().__init__()
        self.now = self.most = 0
        # Count storages: a view, or a tensor changed in place, takes no new memory.
        self._known = WeakSet(tensor.untyped_storage() for tensor in known)

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        # PyTorch would wrap the method below, and the wrapper imports its compiler: two seconds at every prediction.
        return False

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
    """Refuses batches for which there is too little memory; checks only batches larger than any before."""

    def __init__(self, free_memory: Callable[[torch.device], int | None]):
        self._free_memory = free_memory
        self._videos = self._frames = 0

    def __call__(self, model: nn.Module, predict: Callable[[Batch], torch.Tensor], batch: Batch) -> None:
        """Raise `InputError` if predicting `batch` needs more memory than its device has free.

        To find out, part of the batch is predicted: one video, with as many frames as surely fit. If that leaves doubt,
        two videos follow; the difference is what a further video takes.
        """
        videos, frames = batch.features.shape[:2]
        if videos <= self._videos and frames <= self._frames:
            return
        device = batch.features.device
        free = self._free_memory(device)
        if free is not None:
            needed = _needed(model, predict, batch, free)
            if needed > free:
                many = "one video" if videos == 1 else f"{videos} videos"
                raise InputError(
                    f"the model needs about {needed / 1e9:.1f} GB of memory to predict {many} of {frames} frames, but "
                    f"{free / 1e9:.1f} GB are free on {device}; use a machine with more memory, or mistrust the file "
                    "if its sizes, which topgb model show prints, are not what you expect"
                )
        self._videos, self._frames = max(videos, self._videos), max(frames, self._frames)


def _needed(model: nn.Module, predict: Callable[[Batch], torch.Tensor], batch: Batch, free: int) -> float:
    """An estimate of the bytes that predicting `batch` takes, found without taking more than `free`."""
    videos = len(batch)
    whole = max([batch.features.shape[1], *(one.max_frames for one in _padding(model))])
    # One frame takes little more than the weights, and memory grows with the square of the frames at most.
    tried, slope, peak = 1, 0.0, _peak(model, predict, batch, 1, 1)
    while tried < whole:
        bound = peak * videos * (whole / tried) ** 2
        if bound * _RESERVE < free:
            return bound
        ahead = max(tried + 1, min(whole, int(tried * (free / max(peak, 1)) ** 0.5)))
        if tried > 1 and ahead < min(whole, _LEAST_GROWTH * tried):
            break
        before, peak = peak, _peak(model, predict, batch, 1, ahead)
        slope, tried = (peak - before) / (ahead - tried), ahead
    beyond = slope * (whole - tried)
    needed = (peak + beyond) * videos
    if needed * _RESERVE > free and videos > 1:
        return peak + beyond + (_peak(model, predict, batch, 2, tried) - peak + beyond) * (videos - 1)
    return needed


def _peak(model: nn.Module, predict: Callable[[Batch], torch.Tensor], batch: Batch, videos: int, frames: int) -> int:
    """The bytes of all tensors that live at once while `frames` frames of the first `videos` videos are predicted."""
    part = replace(
        batch,
        ids=batch.ids[:videos],
        features=batch.features[:videos, :frames],
        num_frames=batch.num_frames[:videos].clamp_max(frames),
        labels=None,
        teacher=None,
    )
    known = [*model.parameters(), *model.buffers(), part.features, part.num_frames]
    # Other threads may predict with the model meanwhile, so that nothing in it may change.
    with keeping_nothing(), padding_no_further(frames), Living(known) as living:
        predict(part)
    return living.most


def _padding(model: nn.Module) -> list[Frontend]:
    """The frontends that make every video as long as the longest may be."""
    return [one for one in model.modules() if isinstance(one, Frontend) and one.pads_to_max_frames]
