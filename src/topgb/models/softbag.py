"""The soft and the gated bag of frames of the 2018 system (`SoftDbofModelLF`, `GatedDbofModelLF`)."""

import torch
from torch import nn

from topgb.errors import InputError
from topgb.features import FeatureSpec
from topgb.models.batchnorm import Affine, BatchNorm
from topgb.models.byfeature import number_by_feature
from topgb.models.framesums import sums_and_maxima
from topgb.models.frontend import l2_normalize
from topgb.models.initial_values import normal_
from topgb.models.pooling import HiddenOptions, PooledFeatures, SoftAssignment
from topgb.models.registry import aggregator


class SoftBag(SoftAssignment):
    """One feature's normalised sums of assignments, [B, clusters]; `max_pool` appends the normalised maxima."""

    def __init__(self, features: int, clusters: int, batch_norm: bool, max_pool: bool):
        super().__init__(features, clusters, batch_norm)
        self.max_pool = max_pool
        self.out_features = clusters * (2 if max_pool else 1)

    def forward(self, frames: torch.Tensor, affine: Affine, valid: torch.Tensor | None) -> torch.Tensor:
        assignment = self.assignment(frames, affine, valid)
        if not self.max_pool:
            return l2_normalize(assignment.sum(1), dim=1)
        return torch.cat([l2_normalize(pooled, dim=1) for pooled in sums_and_maxima(assignment)], dim=1)


class GatedBag(SoftAssignment):
    """One feature's sums of assignments, [B, clusters], gated by the maxima of the assignments and normalised.

    The gates are a sigmoid of the normalised maxima after a bottleneck as wide as the feature.
    """

    def __init__(self, features: int, clusters: int, batch_norm: bool):
        super().__init__(features, clusters, batch_norm)
        self.out_features = clusters
        self.reduce = nn.Linear(clusters, features, bias=False)
        self.expand = nn.Linear(features, clusters, bias=not batch_norm)
        self.gate_norm = BatchNorm(clusters) if batch_norm else None
        for parameter in (*self.reduce.parameters(), *self.expand.parameters()):
            normal_(parameter, std=features**-0.5)

    def forward(self, frames: torch.Tensor, affine: Affine, valid: torch.Tensor | None) -> torch.Tensor:
        assignment = self.assignment(frames, affine, valid)
        sums, maxima = sums_and_maxima(assignment)
        gates = self.expand(self.reduce(l2_normalize(maxima, dim=1)))
        if self.gate_norm is not None:
            gates = self.gate_norm(gates)
        return l2_normalize(sums * torch.sigmoid(gates.float()), dim=1)


class BagOptions(HiddenOptions):
    """`clusters` is a number for each feature by name, or one number for every feature.

    2018 flags: `dbof_cluster_size` (audio had an eighth of it), `dbof_hidden_size`, `dbof_relu`, `dbof_add_batch_norm`,
    `softdbof_maxpool`; `hidden` None is `nofc_dimred`. Gating is not of 2018.
    """

    clusters: dict[str, int] | int = 1024
    max_pool: bool = False


@aggregator("soft_dbof")
class SoftBagOfFrames(PooledFeatures):
    """Soft bags of all features, concatenated: float [B, hidden], or the bags themselves (2018: `SoftDbofModelLF`)."""

    Options = BagOptions

    def __init__(self, spec: FeatureSpec, options: BagOptions):
        clusters = number_by_feature("clusters", options.clusters, spec)
        pools = {f.name: SoftBag(f.size, clusters[f.name], options.batch_norm, options.max_pool) for f in spec.features}
        super().__init__(spec, pools, options, clusters)


@aggregator("gated_dbof")
class GatedBagOfFrames(PooledFeatures):
    """Gated bags of the features in `gated` and soft bags of the others, concatenated (2018: `GatedDbofModelLF`)."""

    class Options(BagOptions):
        """`gated` names the features with gates, None all of them (2018: the video's alone).

        `max_pool` acts on the other features only, as in 2018.
        """

        gated: list[str] | None = None

    def __init__(self, spec: FeatureSpec, options: Options):
        clusters = number_by_feature("clusters", options.clusters, spec)
        names = [feature.name for feature in spec.features]
        gated = names if options.gated is None else options.gated
        if not set(gated) <= set(names):
            raise InputError(f"'model.gated' names {', '.join(gated)}; the model's features are {', '.join(names)}")
        pools = {
            f.name: GatedBag(f.size, clusters[f.name], options.batch_norm)
            if f.name in gated
            else SoftBag(f.size, clusters[f.name], options.batch_norm, options.max_pool)
            for f in spec.features
        }
        super().__init__(spec, pools, options, clusters)
