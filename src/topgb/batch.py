"""A batch of videos: readers make it; models, training and evaluation take it."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch


@dataclass(frozen=True)
class Batch:
    """B videos of at most T frames with D features, and their labels over V classes.

    ids         video ids, length B
    features    uint8 or float32 [B, T, D], as stored; video-level records have T = 1
    num_frames  int32 [B], valid frames; the rest of the T axis is padding
    labels      bool [B, V], or None for unlabelled records
    teacher     float16 [B, V], soft labels for distillation, or None
    weights     float32 [B, V], what each pair counts in the loss, 0 for unknown ones; None: every pair counts 1
    """

    ids: list[str]
    features: torch.Tensor
    num_frames: torch.Tensor
    labels: torch.Tensor | None = None
    teacher: torch.Tensor | None = None
    weights: torch.Tensor | None = None

    def __len__(self) -> int:
        return len(self.ids)

    def to(self, device: torch.device, non_blocking: bool = False) -> "Batch":
        """The batch with its tensors on `device`; itself, if they are there."""
        if all(tensor.device == device for tensor in self._tensors().values()):
            return self
        return self._map(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> "Batch":
        """The batch in page-locked memory, for overlapped transfers; `DataLoader` calls this."""
        return self._map(torch.Tensor.pin_memory)

    def _map(self, function: Callable[[torch.Tensor], torch.Tensor]) -> "Batch":
        moved: dict[str, Any] = {name: function(tensor) for name, tensor in self._tensors().items()}
        return replace(self, **moved)

    def _tensors(self) -> dict[str, torch.Tensor]:
        return {name: value for name, value in vars(self).items() if isinstance(value, torch.Tensor)}
