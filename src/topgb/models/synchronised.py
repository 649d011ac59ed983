"""Sums over the processes that train one model, with gradients."""

from typing import Any

import torch
import torch.distributed as dist


class _SumOverRanks(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: torch.Tensor) -> torch.Tensor:
        total = values.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        # Every rank's loss depends on every rank's values.
        total = gradient.contiguous().clone()
        dist.all_reduce(total)
        return total


def several_ranks() -> bool:
    """Whether several processes train one model together."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def sum_over_ranks(values: torch.Tensor) -> torch.Tensor:
    """The sum of `values` over all ranks, the same on each; with one rank, `values` themselves."""
    return _SumOverRanks.apply(values) if several_ranks() else values
