"""The L2 penalty on a head's weights, and the sums of squares from which it comes."""

from typing import Any

import torch
from torch import nn

from topgb.matmul_library import by_mkl
from topgb.models.factored import FactoredLinear, Factors

# Squares are summed in float32 within blocks of this many values, to lose no digits.
BLOCK = 1 << 20


def block_squares(tensor: torch.Tensor) -> list[torch.Tensor]:
    """Sums of squares of `tensor`'s values, block by block, float32 [] each.

    A dot product reads memory three times as fast as a norm. It goes to MKL, as oneDNN's is six times as slow.
    """
    values = tensor.reshape(-1)
    # Without values, where only memory is estimated, thousands of blocks would take seconds.
    blocks = [values] if tensor.is_meta else values.split(BLOCK)
    with by_mkl(tensor.device.type == "cpu"):
        return [torch.dot(block, block) for block in blocks]


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
