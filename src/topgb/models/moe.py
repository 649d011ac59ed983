"""One mixture of logistic experts per class (Jordan and Jacobs 1994; 2018: `MoeModel`)."""

from collections import OrderedDict
from typing import Literal

import torch
from pydantic import Field
from torch import nn

from topgb.errors import InputError
from topgb.models.gating import ContextGating
from topgb.models.logistic import start_bias_at
from topgb.models.options import Options as BaseOptions
from topgb.models.penalty import l2_penalty
from topgb.models.registry import head


@head("moe")
class MixtureOfExperts(nn.Module):
    """p(class) = Σ_m gate_m · sigmoid(expert_m), with a dummy expert that always says 0: float32 [B, V].

    The rows of `gates` and `experts` are grouped by class: class v has the rows v · (mixtures + 1) + m and
    v · mixtures + m.
    """

    class Options(BaseOptions):
        """The options of 2018, under other names.

        2018 flags: `moe_num_mixtures`, `moe_l2`, `moe_low_rank_gating` (-1 there is None here),
        `moe_prob_gating` with `moe_prob_gating_input` (`prob` there is `probabilities` here), `gating_remove_diag`.
        """

        mixtures: int = Field(2, ge=1)
        l2: float = Field(1e-8, ge=0.0)
        low_rank: int | None = Field(None, ge=1)
        gating: Literal["none", "probabilities", "input"] = "none"
        gating_remove_diagonal: bool = False

    def __init__(self, in_features: int, classes: int, options: Options):
        super().__init__()
        self.classes, self.mixtures, self.l2 = classes, options.mixtures, options.l2
        self.start_factor = (self.mixtures + 1) / self.mixtures
        gates = classes * (self.mixtures + 1)
        if options.low_rank is None:
            self.gates: nn.Module = nn.Linear(in_features, gates, bias=False)
        else:
            reduce = nn.Linear(in_features, options.low_rank, bias=False)
            expand = nn.Linear(options.low_rank, gates, bias=False)
            self.gates = nn.Sequential(OrderedDict(reduce=reduce, expand=expand))
        self.experts = nn.Linear(in_features, classes * self.mixtures)
        for linear in self._regularized():
            nn.init.xavier_uniform_(linear.weight)
        nn.init.zeros_(self.experts.bias)
        self.gating = None
        self.gating_sees_input = options.gating == "input"
        if options.gating_remove_diagonal and (
            options.gating == "none" or (self.gating_sees_input and in_features < classes)
        ):
            raise InputError(
                "'model.head.gating_remove_diagonal' needs 'model.head.gating' to be 'probabilities', "
                "or 'input' with at least as many inputs as classes"
            )
        if options.gating != "none":
            self.gating = ContextGating(
                classes, in_features if self.gating_sees_input else None, remove_diagonal=options.gating_remove_diagonal
            )
            self.start_factor *= 2

    def forward(self, vectors: torch.Tensor) -> torch.Tensor:
        gates = self._mixtures_first(self.gates(vectors), self.mixtures + 1).softmax(dim=0)
        experts = self._mixtures_first(self.experts(vectors), self.mixtures).sigmoid()
        probabilities = (gates[:-1] * experts).sum(0)
        if self.gating is None:
            return probabilities
        return self.gating(probabilities, vectors if self.gating_sees_input else None)

    def _mixtures_first(self, logits: torch.Tensor, mixtures: int) -> torch.Tensor:
        """Logits [B, V · M] as float32 [M, B, V]: a softmax over the last of few values is several times as slow."""
        return logits.float().view(-1, self.classes, mixtures).movedim(2, 0).contiguous()

    def regularization(self) -> torch.Tensor:
        return l2_penalty(self.l2, *self._regularized())

    def _regularized(self) -> list[nn.Linear]:
        return [module for module in (*self.gates.modules(), self.experts) if isinstance(module, nn.Linear)]

    def start_at(self, frequencies: torch.Tensor) -> None:
        # Untrained gates are near uniform, dummy included, and an untrained probability gate is near 1/2.
        start_bias_at(self.experts.bias, (frequencies * self.start_factor).repeat_interleave(self.mixtures))
