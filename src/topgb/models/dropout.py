"""Dropout that evaluation skips."""

import torch
from torch import nn


class Dropout(nn.Dropout):
    """`nn.Dropout`, float [...] to float [...], that costs nothing in evaluation.

    PyTorch's own takes as long there as a small operation, which single videos show. In evaluation no hooks are called.
    """

    def __call__(self, values: torch.Tensor) -> torch.Tensor:
        return super().__call__(values) if self.training else values
