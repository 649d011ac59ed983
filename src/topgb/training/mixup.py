"""Mixup (Zhang, Cissé, Dauphin and Lopez-Paz 2018): training on averages of two videos, with the labels of both."""

from collections.abc import Callable

import torch

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def mix(
    frames: torch.Tensor, num_frames: torch.Tensor, loss: Loss, alpha: float
) -> tuple[torch.Tensor, torch.Tensor, Loss]:
    """Frames [B, T, D], num_frames [B] and the loss of a batch in which each video is averaged with another one's.

    The share of the other is drawn for the whole batch from Beta(alpha, alpha), folded to at most one half, so that a
    video stays the greater part of itself and goes with its own labels; the loss returned takes those. The shorter
    video of a pair ends in zeros. The order of the batch, which is random, says which two are averaged.
    """
    parameter = torch.tensor(alpha, device="cpu")
    share = float(torch.distributions.Beta(parameter, parameter).sample())
    share = min(share, 1.0 - share)
    mixed = torch.lerp(frames, frames.flip(0), share)

    def mixed_loss(probabilities: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return (1.0 - share) * loss(probabilities, labels) + share * loss(probabilities, labels.flip(0))

    return mixed, torch.maximum(num_frames, num_frames.flip(0)), mixed_loss
