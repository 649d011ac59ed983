"""Soft assignment to clusters and the layers after pooling, shared by NetVLAD, NetFV and the soft bags of frames."""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import nn

from topgb.errors import InputError
from topgb.features import FeatureSpec
from topgb.models.batchnorm import Affine, BatchNorm, folded_linear
from topgb.models.byfeature import ByFeature
from topgb.models.dropout import Dropout
from topgb.models.gating import ContextGating
from topgb.models.initial_values import normal_
from topgb.models.options import Options as BaseOptions
from topgb.models.padding import padding_mask, without_padding
from topgb.models.readlinear import ReadLinear


class SoftAssignment(nn.Module):
    """Assigns a feature's frames [B, T, D] to clusters; a subclass pools the frames: float [B, out_features].

    The assignment is a softmax over the clusters of a linear projection, which has a batch norm or, without
    `batch_norm`, a bias.
    """

    out_features: int

    def __init__(self, features: int, clusters: int, batch_norm: bool):
        super().__init__()
        self.assign = ReadLinear(features, clusters, bias=not batch_norm)
        self.norm = BatchNorm(clusters) if batch_norm else None
        for parameter in self.assign.parameters():
            normal_(parameter, std=features**-0.5)

    def assignment(self, frames: torch.Tensor, affine: Affine, valid: torch.Tensor | None) -> torch.Tensor:
        """The assignment of frames · scale + shift (`affine`), float [B, T, clusters], 0 at padding."""
        activation = folded_linear(frames, self.assign, affine, self.norm, valid)
        return without_padding(activation.softmax(dim=2), valid)


class HiddenOptions(BaseOptions):
    """Options of a hidden layer over the concatenated features, with batch norm and ReLU6 or with a bias; then gating.

    `hidden` is the number of units; None leaves the concatenated features as they are. `batch_norm` switches the batch
    norms of the input, the clusters, the hidden layer and the gates. `dropout` acts on the result in training; the 2018
    system had none.
    """

    hidden: int | None = Field(1024, ge=1)
    relu: bool = True
    batch_norm: bool = True
    gating: bool = False
    gating_remove_diagonal: bool = False
    dropout: float = Field(0.0, ge=0.0, lt=1.0)


class PooledFeatures(nn.Module):
    """Pools each feature of the batch-normalised frames by a module of its own, concatenates, applies a hidden layer.

    `pools` have `out_features` and are called with (frames float [B, T, D of the feature], affine, valid), where
    `valid` is None if nothing is padding. The hidden layer's weights start at a standard deviation of
    1/√(`clusters` of the first feature), as in 2018.
    """

    def __init__(
        self, spec: FeatureSpec, pools: Mapping[str, SoftAssignment], options: HiddenOptions, clusters: dict[str, int]
    ):
        super().__init__()
        self.widths = [feature.size for feature in spec.features]
        self.input_norm = BatchNorm(spec.width) if options.batch_norm else None
        self.pools = ByFeature(dict(pools))
        self.out_features = sum(pool.out_features for pool in pools.values())
        self.dropout = Dropout(options.dropout)
        self.hidden = self.hidden_norm = self.gating = None
        self.relu = options.relu
        if options.gating_remove_diagonal and not options.gating:
            raise InputError("'model.gating_remove_diagonal' needs 'model.gating'")
        if options.hidden is None:
            if options.gating:
                raise InputError("'model.gating' needs a hidden layer to gate; set 'model.hidden'")
            return
        normalized = options.batch_norm and options.relu
        self.hidden = nn.Linear(self.out_features, options.hidden, bias=not normalized)
        self.hidden_norm = BatchNorm(options.hidden) if normalized else None
        self.out_features = options.hidden
        normal_(self.hidden.weight, std=next(iter(clusters.values())) ** -0.5)
        if self.hidden.bias is not None:
            normal_(self.hidden.bias, std=0.01)
        if options.gating:
            self.gating = ContextGating(
                options.hidden, batch_norm=options.batch_norm, remove_diagonal=options.gating_remove_diagonal
            )

    def forward(self, frames: torch.Tensor, num_frames: torch.Tensor) -> torch.Tensor:
        valid = padding_mask(num_frames, frames.shape[1])
        affines: list[Affine] = [None] * len(self.widths)
        if self.input_norm is not None:
            scale, shift = self.input_norm.fold(frames, valid)
            affines = list(zip(scale.split(self.widths), shift.split(self.widths), strict=True))
        features = frames.split(self.widths, dim=2)
        if frames.device.type == "cpu" and frames.dtype == torch.bfloat16 and len(frames) > 1:
            # oneDNN would copy them for every product. With a single video it hardly matters.
            features = tuple(feature.contiguous() for feature in features)
        by_feature = zip(self.pools.values(), features, affines, strict=True)
        parts = [pool(feature, affine, valid) for pool, feature, affine in by_feature]
        pooled = torch.cat(parts, dim=1) if len(parts) > 1 else parts[0]
        if self.hidden is None:
            return self.dropout(pooled)
        hidden = self.hidden(pooled)
        if self.hidden_norm is not None:
            hidden = self.hidden_norm(hidden)
        if self.relu:
            hidden = F.relu6(hidden)
        return self.dropout(hidden if self.gating is None else self.gating(hidden))
