"""A second stage: a small transformer that rescores a video's best classes (the candidates) together.

The first stage scores every class by itself, although `Minecraft` makes `Video game` likely. In chaining (Wang et al.
2017, "Monkeytyping") later scores depend on earlier scores; here each candidate's score depends on all candidates.
"""

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import nn

from topgb.models.dropout import Dropout
from topgb.models.initial_values import Embedding
from topgb.models.options import Options

# Probabilities are kept this far from 0 and 1, so that their logits are finite.
LEAST_PROBABILITY = 1e-6
# Inputs per candidate besides its class: its logit, rank, distance to the best, probability, and the sum of all.
FIGURES = 5


class RerankerOptions(Options):
    """The sizes of a second stage.

    candidates   how many of a video's best classes are rescored; the others keep their probabilities
    embedding    size of the vector that represents a class
    width        of the transformer
    layers, heads, dropout   of the transformer; dropout also on the embedding
    """

    candidates: int = Field(30, ge=1)
    embedding: int = Field(48, ge=1)
    width: int = Field(128, ge=1)
    layers: int = Field(1, ge=0)
    heads: int = Field(4, ge=1)
    dropout: float = Field(0.3, ge=0.0, lt=1.0)

    @model_validator(mode="after")
    def _heads_divide_width(self) -> "RerankerOptions":
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is not a multiple of {self.heads} heads")
        return self


class Reranker(nn.Module):
    """Probabilities float32 [B, V] to probabilities float32 [B, V] in which each video's best classes are rescored."""

    def __init__(self, classes: int, options: RerankerOptions):
        super().__init__()
        self.options = options
        self.candidates = min(options.candidates, classes)
        self.embedding = Embedding(classes, options.embedding)
        self.bias = Embedding(classes, 1)
        self.enter = nn.Linear(options.embedding + FIGURES, options.width)
        self.blocks = nn.ModuleList(
            [_Block(options.width, options.heads, options.dropout) for _ in range(options.layers)]
        )
        self.leave = nn.Linear(options.width, 1)
        self.dropout = Dropout(options.dropout)
        # Zeros let the untrained second stage keep every probability.
        for weight in (self.bias.weight, self.leave.weight, self.leave.bias):
            nn.init.zeros_(weight)

    def forward(self, probabilities: torch.Tensor) -> torch.Tensor:
        best, classes = probabilities.topk(self.candidates, dim=1)
        return probabilities.scatter(1, classes, torch.sigmoid(self.logits(best, classes)))

    def logits(self, best: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
        """New logits float32 [B, K] of candidates from their probabilities float32 [B, K], best first, and classes."""
        old = best.clamp(LEAST_PROBABILITY, 1 - LEAST_PROBABILITY).logit()
        rank = torch.arange(self.candidates, device=best.device).expand_as(best) / self.candidates
        total = best.sum(1, keepdim=True).expand_as(best)
        figures = torch.stack([old / 4, rank, (old - old[:, :1]) / 4, best, total / 4], dim=2)
        hidden = self.enter(torch.cat([self.dropout(self.embedding(classes)), figures], dim=2))
        for block in self.blocks:
            hidden = block(hidden)
        return old + self.leave(hidden)[:, :, 0] + self.bias(classes)[:, :, 0]


class _Block(nn.Module):
    """A pre-norm transformer block over the candidates, [B, K, width] to the same: attention, then a hidden layer."""

    def __init__(self, width: int, heads: int, dropout: float):
        super().__init__()
        self.heads = heads
        self.attention_norm, self.hidden_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query_key_value = nn.Linear(width, 3 * width)
        self.attended = nn.Linear(width, width)
        self.widen, self.narrow = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)
        self.dropout = Dropout(dropout)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        parts = self.query_key_value(self.attention_norm(hidden)).unflatten(2, (3, self.heads, -1))
        query, key, value = parts.permute(2, 0, 3, 1, 4)
        share = self.dropout.p if self.training else 0.0
        seen = F.scaled_dot_product_attention(query, key, value, dropout_p=share).transpose(1, 2).flatten(2)
        hidden = hidden + self.dropout(self.attended(seen))
        return hidden + self.dropout(self.narrow(self.dropout(F.gelu(self.widen(self.hidden_norm(hidden))))))
