"""NeXtVLAD (Lin, Xiao and Fan 2018, "NeXtVLAD: An Efficient Neural Network to Aggregate Frame-level Features")."""

from math import sqrt

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import nn

from topgb.errors import InputError
from topgb.features import FeatureSpec
from topgb.models.batchnorm import BatchNorm
from topgb.models.byfeature import ByFeature, number_by_feature
from topgb.models.dropout import Dropout
from topgb.models.frontend import l2_normalize
from topgb.models.initial_values import normal, normal_
from topgb.models.options import Options as BaseOptions
from topgb.models.padding import padding_mask, without_padding
from topgb.models.readlinear import ReadLinear
from topgb.models.registry import aggregator


class GroupedVLAD(nn.Module):
    """One feature's frames [B, T, D] to its descriptor [B, clusters · expansion · D / groups] (equations 3 to 6).

    Each frame is expanded to expansion · D values and cut into groups. Every group has an attention of its own and is
    softly assigned to clusters that all groups share. The residuals to the centres are summed over groups and frames,
    normalised for each cluster, flattened and batch-normalised.
    """

    def __init__(self, features: int, clusters: int, groups: int, expansion: int):
        super().__init__()
        width = expansion * features
        self.clusters, self.groups = clusters, groups
        self.out_features = clusters * width // groups
        self.expand = ReadLinear(features, width)
        self.attend = ReadLinear(width, groups)
        self.assign = ReadLinear(width, groups * clusters, bias=False)
        self.assign_norm = BatchNorm(groups * clusters)
        self.centres = normal(clusters, width // groups, std=features**-0.5)
        self.norm = BatchNorm(self.out_features)
        for linear in (self.expand, self.attend):
            nn.init.xavier_uniform_(linear.weight)
            nn.init.zeros_(linear.bias)
        normal_(self.assign.weight, std=width**-0.5)

    def forward(self, frames: torch.Tensor, valid: torch.Tensor | None) -> torch.Tensor:
        batch, time, _ = frames.shape
        expanded = self.expand(frames)
        # Both projections are linear in the frames: folding the expansion into their weights halves their work.
        weight, bias = self.expand.weight, self.expand.bias
        attention = torch.sigmoid(
            F.linear(frames, self.attend.weight @ weight, self.attend.weight @ bias + self.attend.bias).float()
        )
        activation = F.linear(frames, self.assign.weight @ weight, self.assign.weight @ bias)
        activation = self.assign_norm(activation, valid).view(batch, time, self.groups, self.clusters)
        assignment = (activation.softmax(dim=3) * attention[:, :, :, None]).to(expanded.dtype)
        assignment = without_padding(assignment, valid).view(batch, time * self.groups, self.clusters)
        # Give the last size explicitly: PyTorch cannot infer -1 for a batch without videos.
        groups = expanded.view(batch, time * self.groups, self.centres.shape[1])
        descriptor = assignment.transpose(1, 2) @ groups - assignment.sum(1)[:, :, None] * self.centres
        return self.norm(l2_normalize(descriptor, dim=2).flatten(1))


class SqueezeGating(nn.Module):
    """values · σ(gates), the gates through a layer `reduction` times narrower: float [B, features] (section 3.3)."""

    def __init__(self, features: int, reduction: int):
        super().__init__()
        narrow = max(features // reduction, 1)
        self.reduce = nn.Linear(features, narrow, bias=False)
        self.reduce_norm = BatchNorm(narrow)
        self.expand = nn.Linear(narrow, features, bias=False)
        for linear in (self.reduce, self.expand):
            nn.init.xavier_uniform_(linear.weight)

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        narrow = F.relu(self.reduce_norm(self.reduce(values)))
        return values * torch.sigmoid(self.expand(narrow).float())


@aggregator("nextvlad")
class NeXtVLAD(nn.Module):
    """Grouped VLADs of all features, concatenated; dropout; hidden layer with batch norm; gating: float [B, hidden]."""

    class Options(BaseOptions):
        """`clusters` and `groups` are a number for each feature by name, or one number for every feature.

        `expansion` is the paper's λ. `dropout` acts on the concatenated descriptors in training. `reduction` is by how
        much the gates' hidden layer is narrower, None for no gates.
        """

        clusters: dict[str, int] | int = 128
        groups: dict[str, int] | int = 8
        expansion: int = Field(2, ge=1)
        hidden: int = Field(2048, ge=1)
        dropout: float = Field(0.5, ge=0.0, lt=1.0)
        reduction: int | None = Field(8, ge=1)

    def __init__(self, spec: FeatureSpec, options: Options):
        super().__init__()
        clusters = number_by_feature("clusters", options.clusters, spec)
        groups = number_by_feature("groups", options.groups, spec)
        for feature in spec.features:
            if feature.size * options.expansion % groups[feature.name]:
                raise InputError(
                    f"'model.groups' is {groups[feature.name]} for {feature.name}, which does not divide its "
                    f"{feature.size} · {options.expansion} values"
                )
        self.widths = [feature.size for feature in spec.features]
        self.out_features = options.hidden
        pools = {
            f.name: GroupedVLAD(f.size, clusters[f.name], groups[f.name], options.expansion) for f in spec.features
        }
        self.pools = ByFeature(dict(pools))
        self.dropout = Dropout(options.dropout)
        joined = sum(pool.out_features for pool in pools.values())
        self.hidden = nn.Linear(joined, options.hidden, bias=False)
        normal_(self.hidden.weight, std=1 / sqrt(joined))
        self.hidden_norm = BatchNorm(options.hidden)
        self.gating = None if options.reduction is None else SqueezeGating(options.hidden, options.reduction)

    def forward(self, frames: torch.Tensor, num_frames: torch.Tensor) -> torch.Tensor:
        valid = padding_mask(num_frames, frames.shape[1])
        by_feature = zip(self.pools.values(), frames.split(self.widths, dim=2), strict=True)
        joined = torch.cat([pool(part, valid) for pool, part in by_feature], dim=1)
        hidden = self.hidden_norm(self.hidden(self.dropout(joined)))
        return hidden if self.gating is None else self.gating(hidden)
