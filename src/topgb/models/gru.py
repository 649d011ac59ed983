"""GRU models of 2018 (Cho et al. 2014)."""

from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import nn

from topgb.features import FeatureSpec
from topgb.models.batchnorm import BatchNorm, folded_linear
from topgb.models.byfeature import ByFeature, number_by_feature
from topgb.models.dropout import Dropout
from topgb.models.gating import ContextGating
from topgb.models.options import Options as BaseOptions
from topgb.models.padding import padding_mask
from topgb.models.readlinear import ReadLinear
from topgb.models.recurrent import GRU, ResetAfterGRU, last_outputs
from topgb.models.registry import aggregator

Reset = Literal["before", "after"]


class TwoLayerGRU(nn.Module):
    """Two stacked GRUs: frames [B, T, D] to the last state [B, cells] of the upper GRU.

    The lower GRU is bidirectional, with half the cells in each direction. `reset` says whether the reset gate acts
    before the candidate's matrix product (the 2018 cell) or after the product (the cell that cuDNN computes).
    """

    def __init__(self, features: int, cells: int, reset: Reset):
        super().__init__()
        layer = {"before": GRU, "after": ResetAfterGRU}[reset]
        self.both = layer(features, cells // 2, bidirectional=True)
        self.top = layer(cells, cells)

    def forward(self, frames: torch.Tensor, num_frames: torch.Tensor, valid: torch.Tensor | None) -> torch.Tensor:
        return last_outputs(self.top(self.both(frames, valid), valid), num_frames)


@aggregator("bigru")
class BidirectionalGRU(nn.Module):
    """Two stacked GRUs and, with `gating`, context gating of the last state: float [B, cells] (2018: `GRUbidirect`)."""

    class Options(BaseOptions):
        """2018 flags: `lstm_cells`, `gating`. `reset` is as in `TwoLayerGRU`.

        `dropout` acts on the result in training.
        """

        cells: int = Field(1024, ge=2, multiple_of=2)
        reset: Reset = "before"
        gating: bool = False
        dropout: float = Field(0.0, ge=0.0, lt=1.0)

    def __init__(self, spec: FeatureSpec, options: Options):
        super().__init__()
        self.out_features = options.cells
        self.layers = TwoLayerGRU(spec.width, options.cells, options.reset)
        self.gating = ContextGating(options.cells, batch_norm=False) if options.gating else None
        self.dropout = Dropout(options.dropout)

    def forward(self, frames: torch.Tensor, num_frames: torch.Tensor) -> torch.Tensor:
        state = self.layers(frames, num_frames, padding_mask(num_frames, frames.shape[1]))
        return self.dropout(state if self.gating is None else self.gating(state))


class Branch(nn.Module):
    """One batch-normalised feature, a projection to `cells` ReLU6 units, then two stacked GRUs: float [B, cells]."""

    def __init__(self, features: int, cells: int, reset: Reset):
        super().__init__()
        self.input_norm = BatchNorm(features, population=True)
        self.project = ReadLinear(features, cells, bias=False)
        nn.init.xavier_uniform_(self.project.weight)
        self.norm = BatchNorm(cells, population=True)
        self.layers = TwoLayerGRU(cells, cells, reset)

    def forward(self, frames: torch.Tensor, num_frames: torch.Tensor, counted: torch.Tensor | None) -> torch.Tensor:
        affine = self.input_norm.fold(frames, counted)
        units = F.relu6(folded_linear(frames, self.project, affine, self.norm, counted))
        return self.layers(units, num_frames, padding_mask(num_frames, frames.shape[1]))


@aggregator("branched_gru")
class BranchedGRU(nn.Module):
    """One branch of GRUs per feature, concatenated: float [B, sum of `cells`] (2018: `GRUbidirect_branchedBN`)."""

    class Options(BaseOptions):
        """`cells` is the number of cells, by feature name or one for every feature (2018: the feature's size).

        `reset` is as in `bigru`. `count_padding` includes padding in the batch norms' statistics in training, as the
        2018 graph did; predictions never depend on padding. `dropout` acts on the result in training.
        """

        cells: dict[str, int] | int = 1024
        reset: Reset = "before"
        count_padding: bool = False
        dropout: float = Field(0.0, ge=0.0, lt=1.0)

    def __init__(self, spec: FeatureSpec, options: Options):
        super().__init__()
        cells = number_by_feature("cells", options.cells, spec, multiple_of=2)
        self.pads_to_max_frames = options.count_padding
        self.widths = [feature.size for feature in spec.features]
        self.out_features = sum(cells.values())
        self.branches = ByFeature({f.name: Branch(f.size, cells[f.name], options.reset) for f in spec.features})
        self.dropout = Dropout(options.dropout)

    def forward(self, frames: torch.Tensor, num_frames: torch.Tensor) -> torch.Tensor:
        counted = None if self.pads_to_max_frames else padding_mask(num_frames, frames.shape[1])
        by_feature = zip(self.branches.values(), frames.split(self.widths, dim=2), strict=True)
        states = [branch(part, num_frames, counted) for branch, part in by_feature]
        return self.dropout(torch.cat(states, dim=1))
