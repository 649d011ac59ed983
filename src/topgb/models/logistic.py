"""One logistic regression per class (2018: `LogisticModel`)."""

import torch
from pydantic import Field
from torch import nn

from topgb.models.options import Options as BaseOptions
from topgb.models.penalty import l2_penalty
from topgb.models.registry import head


def start_bias_at(bias: torch.Tensor, frequencies: torch.Tensor) -> None:
    """Set `bias` [V] in place to the log-odds of `frequencies` [V], each kept inside (0, 1)."""
    with torch.no_grad():
        bias.copy_(frequencies.clamp(1e-6, 1 - 1e-3).logit())


@head("logistic")
class Logistic(nn.Module):
    """sigmoid(W x + b), float32 [B, V]."""

    class Options(BaseOptions):
        """`l2` is the penalty on W (2018: 1e-8)."""

        l2: float = Field(1e-8, ge=0.0)

    def __init__(self, in_features: int, classes: int, options: Options):
        super().__init__()
        self.l2 = options.l2
        self.output = nn.Linear(in_features, classes)
        nn.init.xavier_uniform_(self.output.weight)
        nn.init.zeros_(self.output.bias)

    def forward(self, vectors: torch.Tensor) -> torch.Tensor:
        return torch.sigmoid(self.output(vectors).float())

    def regularization(self) -> torch.Tensor:
        return l2_penalty(self.l2, self.output)

    def start_at(self, frequencies: torch.Tensor) -> None:
        start_bias_at(self.output.bias, frequencies)
