"""A mixture of several models of one kind, trained together (Lin, Xiao and Fan 2018, section 3.4: MixNeXtVLAD).

A gate computes the members' weights from each video's mean frame, and the mixture averages the members' logits with
these weights. In training every member learns from the labels and from the mixture (on-the-fly distillation, Lan, Zhu
and Gong 2018).
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import nn

from topgb.models.batchnorm import BatchNorm
from topgb.models.initial_values import normal_
from topgb.models.padding import padding_mask, without_padding

# The paper's temperature.
TEMPERATURE = 3.0
# Probabilities are kept this far from 0 and 1, so that their logits are finite.
LEAST_PROBABILITY = 1e-7


class MixtureAggregator(nn.Module):
    """Concatenates the members' vectors and the mean frame that the gate sees: float [B, sum of widths + D]."""

    def __init__(self, members: list[nn.Module], width: int):
        super().__init__()
        self.members = nn.ModuleList(members)
        self.splits = [*(int(member.out_features) for member in members), width]  # type: ignore[arg-type]
        self.out_features = sum(self.splits)
        self.pads_to_max_frames = any(getattr(member, "pads_to_max_frames", False) for member in members)

    def forward(self, frames: torch.Tensor, num_frames: torch.Tensor) -> torch.Tensor:
        total = without_padding(frames, padding_mask(num_frames, frames.shape[1])).float().sum(1)
        vectors = [member(frames, num_frames).float() for member in self.members]
        return torch.cat([*vectors, total / num_frames[:, None]], dim=1)


class MixtureHead(nn.Module):
    """Applies each member's head to its vector and mixes the logits: probabilities float32 [B, V].

    `distillation` is the loss of the batch that `forward` saw last in training.
    """

    def __init__(self, members: list[nn.Module], splits: list[int]):
        super().__init__()
        self.members = nn.ModuleList(members)
        self.splits = splits
        self.gate_norm = BatchNorm(splits[-1])
        self.gate = nn.Linear(splits[-1], len(members))
        # Small weights let members begin almost equal; weights of exactly 0 would keep the norm from learning.
        normal_(self.gate.weight, std=0.1 * splits[-1] ** -0.5)
        nn.init.zeros_(self.gate.bias)
        self._last: tuple[list[torch.Tensor], torch.Tensor] | None = None

    def forward(self, vectors: torch.Tensor) -> torch.Tensor:
        *parts, mean = vectors.split(self.splits, dim=1)
        weights = self.gate(self.gate_norm(mean)).float().softmax(dim=1)
        members = [head(part) for head, part in zip(self.members, parts, strict=True)]
        mixed = (torch.stack([_logits(p) for p in members], dim=2) * weights[:, None]).sum(2)
        self._last = (members, mixed) if self.training else None
        return torch.sigmoid(mixed)

    def distillation(
        self, labels: torch.Tensor, loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
    ) -> torch.Tensor:
        """Σ over members of `loss` against labels and T² · KL(mixture ‖ member), softmaxes at temperature T."""
        assert self._last is not None, "distillation needs a forward pass in training"
        members, mixed = self._last
        self._last = None
        target = (mixed.detach() / TEMPERATURE).softmax(dim=1)
        # `batchmean` would give NaN for a batch without videos.
        divergences = [
            F.kl_div((_logits(p) / TEMPERATURE).log_softmax(dim=1), target, reduction="sum") / max(len(p), 1)
            for p in members
        ]
        return torch.stack([loss(p, labels) for p in members]).sum() + TEMPERATURE**2 * torch.stack(divergences).sum()

    def regularization(self) -> torch.Tensor:
        return torch.stack([member.regularization() for member in self.members]).sum()  # type: ignore[operator]

    def start_at(self, frequencies: torch.Tensor) -> None:
        for member in self.members:
            member.start_at(frequencies)  # type: ignore[operator]


def _logits(probabilities: torch.Tensor) -> torch.Tensor:
    return probabilities.logit(LEAST_PROBABILITY)
