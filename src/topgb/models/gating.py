"""Context gating (Miech, Laptev and Sivic 2017, "Learnable pooling with Context Gating", equation 1)."""

import torch
from torch import nn

from topgb.models.batchnorm import BatchNorm
from topgb.models.initial_values import normal_
from topgb.models.readlinear import ReadLinear


class ContextGating(nn.Module):
    """values · sigmoid(norm(W · inputs)), float [B, features].

    `inputs` are the values themselves unless `in_features` gives them another width. `norm` is a batch norm; without
    `batch_norm` a bias takes its place. With `remove_diagonal` no value gates itself (2018: `gating_remove_diag`).
    """

    def __init__(
        self, features: int, in_features: int | None = None, batch_norm: bool = True, remove_diagonal: bool = False
    ):
        super().__init__()
        self.remove_diagonal = remove_diagonal
        linear = ReadLinear if remove_diagonal else nn.Linear
        self.gate = linear(in_features or features, features, bias=not batch_norm)
        self.norm = BatchNorm(features) if batch_norm else nn.Identity()
        for parameter in self.gate.parameters():
            normal_(parameter, std=features**-0.5)

    def forward(self, values: torch.Tensor, inputs: torch.Tensor | None = None) -> torch.Tensor:
        gates = self.gate(values if inputs is None else inputs)
        if self.remove_diagonal:
            gates = gates - self.gate.weight.diagonal() * values
        return values * torch.sigmoid(self.norm(gates).float())
