"""One hidden layer with dropout: the plain head that does best on small data."""

import torch
from pydantic import Field
from torch import nn

from topgb.models import options, registry
from topgb.models.batchnorm import BatchNorm
from topgb.models.logistic import Logistic


@registry.head("mlp")
class MLP(nn.Module):
    """dropout, hidden layer, batch norm, ReLU, dropout, logistic regression: float32 [B, V].

    It stands on no 2018 model. Dropout (Srivastava et al. 2014) is what makes it generalise from ten thousand videos.
    """

    class Options(options.Options):
        """`width` of the hidden layer, dropout shares of the input and of that layer, `l2` of the output layer."""

        width: int = Field(1024, ge=1)
        input_dropout: float = Field(0.0, ge=0.0, lt=1.0)
        dropout: float = Field(0.0, ge=0.0, lt=1.0)
        l2: float = Field(0.0, ge=0.0)

    def __init__(self, in_features: int, classes: int, options: Options):
        super().__init__()
        self.input_dropout = nn.Dropout(options.input_dropout)
        self.hidden = nn.Linear(in_features, options.width, bias=False)
        self.norm = BatchNorm(options.width)
        self.dropout = nn.Dropout(options.dropout)
        self.logistic = Logistic(options.width, classes, Logistic.Options(l2=options.l2))
        nn.init.kaiming_normal_(self.hidden.weight, nonlinearity="relu")

    def forward(self, vectors: torch.Tensor) -> torch.Tensor:
        hidden = torch.relu(self.norm(self.hidden(self.input_dropout(vectors))))
        return self.logistic(self.dropout(hidden))

    def regularization(self) -> torch.Tensor:
        return self.logistic.regularization()

    def start_at(self, frequencies: torch.Tensor) -> None:
        self.logistic.start_at(frequencies)
