"""NetFV: a Fisher vector with learned clusters (Miech, Laptev and Sivic 2017, section 3.2), as in the 2018 system."""

import torch
from pydantic import Field

from topgb.features import FeatureSpec
from topgb.models.batchnorm import Affine
from topgb.models.byfeature import number_by_feature
from topgb.models.framesums import weighted_sums
from topgb.models.frontend import l2_normalize, normalize_clusters
from topgb.models.initial_values import normal
from topgb.models.pooling import HiddenOptions, PooledFeatures, SoftAssignment
from topgb.models.registry import aggregator

# 2018: added to the squared weights, so that no standard deviation is 0.
LEAST_DEVIATION = 1e-6


class FisherVector(SoftAssignment):
    """One feature's frames [B, T, D] to its Fisher vector [B, 2 · D · clusters], feature-major.

    With σ = deviations² + 1e-6 (the 2018 form) and Σ over a video's frames weighted by the assignment, the first order
    is Σ (x - centre) / σ, normalised over D, then over all values; the second is Σ ((x - centre)² / σ² - 1), normalised
    over all values. With `coupling` the centres are that multiple of the assignment's weights; with None they are
    parameters of their own.
    """

    def __init__(self, features: int, clusters: int, batch_norm: bool, coupling: float | None):
        super().__init__(features, clusters, batch_norm)
        self.out_features = 2 * features * clusters
        self.coupling = coupling
        self.deviations = normal(features, clusters, std=features**-0.5, mean=1.0)
        self.centres = normal(features, clusters, std=features**-0.5) if coupling is None else None

    def forward(self, frames: torch.Tensor, affine: Affine, valid: torch.Tensor | None) -> torch.Tensor:
        assignment = self.assignment(frames, affine, valid).to(frames.dtype)
        deviations = self.deviations.square() + LEAST_DEVIATION
        centres = self.assign.weight.T * (self.coupling or 0.0) if self.centres is None else self.centres
        total = assignment.sum(1, keepdim=True).float()
        first = weighted_sums(frames, assignment).float()
        second = weighted_sums(frames.square(), assignment).float()
        if affine is not None:
            # The batch norm's scale s and shift t act on the sums of x and x², not on the frames.
            scale, shift = affine[0][:, None], affine[1][:, None]
            second = second * scale.square() + first * (2 * scale * shift) + total * shift.square()
            first = first * scale + total * shift
        second = (second - 2 * first * centres + total * centres.square()) / deviations.square() - total
        first = (first - total * centres) / deviations
        return torch.cat([normalize_clusters(first), l2_normalize(second.flatten(1), dim=1)], dim=1)


@aggregator("netfv")
class NetFV(PooledFeatures):
    """Fisher vectors of all features, concatenated, and a hidden layer: float [B, hidden] (2018: `NetFVModelLF`)."""

    class Options(HiddenOptions):
        """`clusters` is a number for each feature by name, or one number for every feature.

        2018 flags: `fv_cluster_size` (audio had half of it), `fv_hidden_size`, `fv_relu`, `netvlad_add_batch_norm`,
        `gating`; `coupling` is `fv_coupling_factor` with `fv_couple_weights`, None without.
        """

        clusters: dict[str, int] | int = 64
        hidden: int | None = Field(2048, ge=1)
        coupling: float | None = 0.01

    def __init__(self, spec: FeatureSpec, options: Options):
        clusters = number_by_feature("clusters", options.clusters, spec)
        pools = {
            f.name: FisherVector(f.size, clusters[f.name], options.batch_norm, options.coupling) for f in spec.features
        }
        super().__init__(spec, pools, options, clusters)
