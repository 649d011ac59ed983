"""The L2 penalty on a head's weights."""

from typing import Any

import torch

# Values whose squares are summed at once.
BLOCK = 1 << 20


class _HalfSquares(torch.autograd.Function):
    """Σ w² / 2, float32 []; autograd would make two temporaries as large as w."""

    @staticmethod
    def forward(ctx: Any, weight: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(weight)
        # Sum by blocks, so that float32 loses no digits.
        blocks = [torch.dot(block, block) for block in weight.reshape(-1).split(BLOCK)]
        return torch.stack(blocks).sum() / 2

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> torch.Tensor:
        return ctx.saved_tensors[0] * gradients[0]


def l2_penalty(l2: float, *weights: torch.Tensor) -> torch.Tensor:
    """`l2` · Σ w² / 2 over all `weights`, float32 []: slim's `l2_regularizer`."""
    if l2 == 0.0:
        return torch.zeros((), device=weights[0].device)
    return l2 * torch.stack([_HalfSquares.apply(weight) for weight in weights]).sum()
