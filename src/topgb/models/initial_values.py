"""Initial values of a model's tensors, and models built without values.

Tensors on the meta device have shapes but no values. Drawing normal values there, or multiplying or joining tensors,
imports PyTorch's compiler, which takes 75 MB and a second or more. So every architecture draws its normal values here.
"""

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import nn

from topgb.errors import InputError

Module = TypeVar("Module", bound=nn.Module)


def normal_(tensor: torch.Tensor, std: float) -> None:
    """Fill `tensor` with normal values of mean 0 and this standard deviation; leave a meta tensor as it is."""
    if not tensor.is_meta:
        nn.init.normal_(tensor, std=std)


def normal(*shape: int, std: float, mean: float = 0.0) -> nn.Parameter:
    """A parameter float32 [shape] of normal values; without values where the meta device is the default device."""
    values = torch.empty(shape)
    return nn.Parameter(values if values.is_meta else values.normal_().mul_(std).add_(mean))


class Embedding(nn.Embedding):
    """An `nn.Embedding` that can be built on the meta device like every other layer."""

    def reset_parameters(self) -> None:
        normal_(self.weight, std=1.0)


def unfilled(build: Callable[[], Module], fault: str) -> Module:
    """The module that `build` makes on the meta device, where its tensors take no memory.

    Raises `InputError` with the sentence `fault` where the sizes make no tensors: each size may be valid while their
    product is too large.
    """
    try:
        with torch.device("meta"):
            return build()
    except (RuntimeError, TypeError, ValueError, OverflowError) as error:
        raise InputError(fault) from error
