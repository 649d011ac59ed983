"""The deep bag of frames (Abu-El-Haija et al. 2016, section 4.1.2)."""

from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import nn

from topgb.features import FeatureSpec
from topgb.models.batchnorm import BatchNorm, folded_linear
from topgb.models.dropout import Dropout
from topgb.models.initial_values import normal_
from topgb.models.options import Options as BaseOptions
from topgb.models.padding import padding_mask, without_padding
from topgb.models.readlinear import ReadLinear
from topgb.models.registry import aggregator


@aggregator("dbof")
class DeepBagOfFrames(nn.Module):
    """Projects frames to many ReLU6 units, pools them over time and applies a hidden layer: float [B, hidden].

    2018: `DbofModel`.
    """

    class Options(BaseOptions):
        """2018 flags: `dbof_cluster_size`, `dbof_hidden_size`, `dbof_pooling_method`, `dbof_add_batch_norm`."""

        clusters: int = Field(8192, ge=1)
        hidden: int = Field(1024, ge=1)
        pooling: Literal["max", "average"] = "max"
        batch_norm: bool = True
        dropout: float = Field(0.0, ge=0.0, lt=1.0)

    def __init__(self, spec: FeatureSpec, options: Options):
        super().__init__()
        self.pooling = options.pooling
        self.out_features = options.hidden
        bias = not options.batch_norm
        self.input_norm = BatchNorm(spec.width) if options.batch_norm else None
        self.project = ReadLinear(spec.width, options.clusters, bias=bias)
        self.project_norm = BatchNorm(options.clusters) if options.batch_norm else None
        self.hidden = nn.Linear(options.clusters, options.hidden, bias=bias)
        self.hidden_norm = BatchNorm(options.hidden) if options.batch_norm else None
        self.dropout = Dropout(options.dropout)
        for parameter in self.project.parameters():
            normal_(parameter, std=spec.width**-0.5)
        normal_(self.hidden.weight, std=options.clusters**-0.5)
        if bias:
            normal_(self.hidden.bias, std=0.01)

    def forward(self, frames: torch.Tensor, num_frames: torch.Tensor) -> torch.Tensor:
        valid = padding_mask(num_frames, frames.shape[1])
        affine = None if self.input_norm is None else self.input_norm.fold(frames, valid)
        activation = folded_linear(frames, self.project, affine, self.project_norm, valid)
        # ReLU6 is never negative, so padding at 0 never exceeds a video's own maximum.
        activation = without_padding(F.relu6(activation), valid)
        if self.pooling == "max":
            pooled = activation.amax(1)
        else:
            pooled = activation.sum(1) / num_frames[:, None].to(activation.dtype)
        hidden = self.hidden(pooled)
        if self.hidden_norm is not None:
            hidden = self.hidden_norm(hidden)
        return self.dropout(F.relu6(hidden))
