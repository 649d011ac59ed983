"""Sums and maxima over a video's frames, with gradients that pass over the frames as rarely as they can."""

from typing import Any

import torch

from topgb.matmul_library import by_mkl

# Values of a gradient that are made at once on a CPU: they stay in the cache.
BLOCK = 1 << 18
# With fewer weights the sums are multiplied the other way round, and turned (benchmarks/pooling.py).
WIDE = 64
# oneDNN copies the frames of one feature of several, in every product, and MKL takes them as they lie. With more
# weights than these oneDNN makes up for the copy where it multiplies twice as fast (benchmarks/pooling.py).
FEW_WEIGHTS = 128


def weighted_sums(frames: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Each video's sums of its frames under K weights: frames [B, T, D] and weights [B, T, K] to [B, D, K]."""
    if torch.is_grad_enabled() and (weights.requires_grad or frames.requires_grad):
        return _WeightedSums.apply(frames, weights)
    return _weighted_sums(frames, weights)


def _weighted_sums(frames: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    with by_mkl(_are_copied(frames, weights)):
        if weights.shape[2] >= WIDE:
            return frames.transpose(1, 2) @ weights
        return (weights.transpose(1, 2) @ frames).transpose(1, 2).contiguous()


def _are_copied(frames: torch.Tensor, factor: torch.Tensor) -> bool:
    """Whether oneDNN would copy `frames` [B, T, D] for a product with [..., K] that is too small to make up for it."""
    strided = frames.device.type == "cpu" and frames.dtype == torch.float32 and not frames.is_contiguous()
    return strided and factor.shape[2] <= FEW_WEIGHTS and not torch.compiler.is_compiling()


class _WeightedSums(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, frames: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(frames, weights)
        return _weighted_sums(frames, weights)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        frames, weights = ctx.saved_tensors
        of_frames = weights @ gradients[0].transpose(1, 2) if ctx.needs_input_grad[0] else None
        with by_mkl(_are_copied(frames, gradients[0])):
            return of_frames, frames @ gradients[0] if ctx.needs_input_grad[1] else None


def sums_and_maxima(values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Sums and maxima over the frames of values [B, T, K], float [B, K] each.

    The gradient of a maximum goes to all frames that have it, in equal shares, as in TensorFlow.
    """
    if torch.is_grad_enabled() and values.requires_grad:
        return _SumsAndMaxima.apply(values)
    return values.sum(1), values.amax(1)


class _SumsAndMaxima(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        maxima = values.amax(1)
        ctx.save_for_backward(values, maxima)
        return values.sum(1), maxima

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> torch.Tensor:
        values, maxima = ctx.saved_tensors
        found = torch.empty_like(values)
        at_once = BLOCK // max(1, values.shape[1] * values.shape[2]) if values.device.type == "cpu" else len(values)
        parts = (tensor.split(max(1, at_once)) for tensor in (values, maxima, *gradients, found))
        for own, most, of_sum, of_maximum, out in zip(*parts, strict=True):
            torch.eq(own, most[:, None], out=out)
            share = of_maximum / out.sum(1)
            torch.addcmul(of_sum[:, None], out, share[:, None], out=out)
        return found
