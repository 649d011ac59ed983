"""Attention over frames (2018: `attention_frames_v0`)."""

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import nn

from topgb.features import FeatureSpec
from topgb.models.batchnorm import BatchNorm, folded_linear
from topgb.models.byfeature import ByFeature, number_by_feature
from topgb.models.dropout import Dropout
from topgb.models.options import Options as BaseOptions
from topgb.models.padding import padding_mask
from topgb.models.readlinear import ReadLinear
from topgb.models.registry import aggregator


class AttentionPool(nn.Module):
    """Pools one feature's frames [B, T, D] to [B, hidden]: ReLU6 units, averaged by a softmax over time."""

    def __init__(self, features: int, hidden: int):
        super().__init__()
        self.input_norm = BatchNorm(features, population=True)
        self.project = ReadLinear(features, hidden, bias=False)
        self.norm = BatchNorm(hidden, population=True)
        self.gate = ReadLinear(features, 1, bias=False)
        for linear in (self.project, self.gate):
            nn.init.xavier_uniform_(linear.weight)

    def forward(self, frames: torch.Tensor, valid: torch.Tensor | None) -> torch.Tensor:
        affine = self.input_norm.fold(frames, valid)
        units = F.relu6(folded_linear(frames, self.project, affine, self.norm, valid))
        gates = folded_linear(frames, self.gate, affine).float()
        if valid is not None:
            gates = gates.masked_fill(~valid[:, :, None], float("-inf"))
        return (gates.softmax(dim=1).to(units.dtype).transpose(1, 2) @ units).squeeze(1)


@aggregator("attention")
class Attention(nn.Module):
    """Attention pools, one per batch-normalised feature, concatenated: float [B, sum of `hidden`]."""

    class Options(BaseOptions):
        """`hidden` is the number of units, by feature name or one for every feature (2018: twice the feature's size).

        `attend_to_padding` includes the padding of a video shorter than `max_frames` in the attention and in the batch
        norm's statistics, as the 2018 graph did. Only checkpoints of 2018 need this option.
        """

        hidden: dict[str, int] | int = 1024
        attend_to_padding: bool = False
        dropout: float = Field(0.0, ge=0.0, lt=1.0)

    def __init__(self, spec: FeatureSpec, options: Options):
        super().__init__()
        hidden = number_by_feature("hidden", options.hidden, spec)
        self.pads_to_max_frames = options.attend_to_padding
        self.widths = [feature.size for feature in spec.features]
        self.out_features = sum(hidden.values())
        self.pools = ByFeature({f.name: AttentionPool(f.size, hidden[f.name]) for f in spec.features})
        self.dropout = Dropout(options.dropout)

    def forward(self, frames: torch.Tensor, num_frames: torch.Tensor) -> torch.Tensor:
        valid = None if self.pads_to_max_frames else padding_mask(num_frames, frames.shape[1])
        by_feature = zip(self.pools.values(), frames.split(self.widths, dim=2), strict=True)
        return self.dropout(torch.cat([pool(part, valid) for pool, part in by_feature], dim=1))
