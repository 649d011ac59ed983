"""Which frames of a padded batch are a video's own."""

import torch


def valid_frames(num_frames: torch.Tensor, length: int) -> torch.Tensor:
    """bool [B, length], true where the frame is before the video's `num_frames` (int [B])."""
    return torch.arange(length, device=num_frames.device) < num_frames[:, None]
