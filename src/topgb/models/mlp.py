"""One hidden layer with dropout: the plain head that does best on small data."""

from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import nn

from topgb.models.batchnorm import BatchNorm
from topgb.models.dropout import Dropout
from topgb.models.logistic import Logistic
from topgb.models.options import Options as BaseOptions
from topgb.models.registry import head

ACTIVATIONS = {"relu": F.relu, "silu": F.silu}


@head("mlp")
class MLP(nn.Module):
    """Dropout, hidden layer, batch norm, activation, dropout, logistic regression: float32 [B, V].

    2018 had no such head. Dropout (Srivastava et al. 2014) lets it generalise from ten thousand videos.
    """

    class Options(BaseOptions):
        """`width` and `activation` of the hidden layer, dropout of its input and of itself, `l2` of the output layer.

        `silu` is x · sigmoid(x) (Elfwing et al. 2018).
        """

        width: int = Field(1024, ge=1)
        activation: Literal["relu", "silu"] = "relu"
        input_dropout: float = Field(0.0, ge=0.0, lt=1.0)
        dropout: float = Field(0.0, ge=0.0, lt=1.0)
        l2: float = Field(0.0, ge=0.0)

    def __init__(self, in_features: int, classes: int, options: Options):
        super().__init__()
        self.activation = ACTIVATIONS[options.activation]
        self.input_dropout = Dropout(options.input_dropout)
        self.hidden = nn.Linear(in_features, options.width, bias=False)
        self.norm = BatchNorm(options.width)
        self.dropout = Dropout(options.dropout)
        self.logistic = Logistic(options.width, classes, Logistic.Options(l2=options.l2))

    def hidden_vectors(self, vectors: torch.Tensor) -> torch.Tensor:
        """Activations of the hidden layer, float [B, width]."""
        return self.activation(self.norm(self.hidden(self.input_dropout(vectors))))

    def forward(self, vectors: torch.Tensor) -> torch.Tensor:
        return self.logistic(self.dropout(self.hidden_vectors(vectors)))

    def regularization(self) -> torch.Tensor:
        return self.logistic.regularization()

    def start_at(self, frequencies: torch.Tensor) -> None:
        self.logistic.start_at(frequencies)
