"""Masks of the frames that are no padding."""

import torch


def valid_frames(num_frames: torch.Tensor, length: int) -> torch.Tensor:
    """bool [B, length], true where the frame is before the video's `num_frames` (int [B])."""
    return torch.arange(length, device=num_frames.device) < num_frames[:, None]


def padding_mask(num_frames: torch.Tensor, length: int) -> torch.Tensor | None:
    """`valid_frames`, or None if a batch on the CPU has no padding (on another device, looking would have to wait)."""
    # An exported graph has to hold for any batch.
    exporting = torch.compiler.is_exporting()
    # A list's minimum takes less time than three small operations, and every prediction asks twice.
    if not exporting and num_frames.device.type == "cpu" and min(num_frames.tolist(), default=length) >= length:
        return None
    return valid_frames(num_frames, length)


def without_padding(values: torch.Tensor, valid: torch.Tensor | None) -> torch.Tensor:
    """`values` [B, T, …] with zeros where `valid` (bool [B, T]) is false; all of them where `valid` is None."""
    if valid is None:
        return values
    return values.masked_fill(~valid.view(*valid.shape, *(1,) * (values.ndim - 2)), 0.0)
