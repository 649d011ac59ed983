"""The L2 penalty on a head's weights."""

from typing import Any

import torch
from torch import nn

from topgb.matmul_library import block_squares
from topgb.models.factored import FactoredLinear, Factors


class _HalfSquares(torch.autograd.Function):
    """Σ w² / 2, float32 []; autograd would make two temporaries as large as w.

    The gradient goes to `factors`, if there are any.
    """

    @staticmethod
    def forward(ctx: Any, weight: torch.Tensor, factors: Factors | None) -> torch.Tensor:
        squares = torch.stack(block_squares(weight)).sum()
        ctx.factors = factors
        ctx.save_for_backward(weight, squares)
        return squares / 2

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, None]:
        weight, squares = ctx.saved_tensors
        if ctx.factors is None:
            return weight * gradients[0], None
        ctx.factors.add_decay(gradients[0], squares)
        return None, None


def l2_penalty(l2: float, *linears: nn.Linear) -> torch.Tensor:
    """`l2` · Σ w² / 2 over the weights of all `linears`, float32 []: slim's `l2_regularizer`."""
    if l2 == 0.0:
        return torch.zeros((), device=linears[0].weight.device)
    factors = [linear.factors if isinstance(linear, FactoredLinear) else None for linear in linears]
    return (
        l2
        * torch.stack(
            [_HalfSquares.apply(linear.weight, own) for linear, own in zip(linears, factors, strict=True)]
        ).sum()
    )
