"""NetVLAD (Arandjelović et al. 2016, equation 4), as the 2018 system pools frames with it."""

import torch

from topgb.features import FeatureSpec
from topgb.models.batchnorm import Affine
from topgb.models.byfeature import number_by_feature
from topgb.models.framesums import weighted_sums
from topgb.models.frontend import normalize_clusters, own_memory
from topgb.models.initial_values import normal
from topgb.models.pooling import HiddenOptions, PooledFeatures, SoftAssignment
from topgb.models.readlinear import Fixable
from topgb.models.registry import aggregator


class VLAD(Fixable, SoftAssignment):
    """One feature's frames [B, T, D] to its descriptor [B, D · clusters], feature-major.

    Frames are softly assigned to clusters. Each cluster sums the residuals to its centre (with `light` the frames
    themselves, without a centre). The sums are normalised over D, then over all values.
    """

    kept_offset: torch.Tensor | None

    def __init__(self, features: int, clusters: int, light: bool, batch_norm: bool):
        super().__init__(features, clusters, batch_norm)
        self.out_features = features * clusters
        self.centres = None if light else normal(features, clusters, std=features**-0.5)
        self.register_buffer("kept_offset", None, persistent=False)

    def free(self) -> None:
        super().free()
        self.kept_offset = None

    def forward(self, frames: torch.Tensor, affine: Affine, valid: torch.Tensor | None) -> torch.Tensor:
        assignment = self.assignment(frames, affine, valid).to(frames.dtype)
        # Σ a (s x + t - c) = s Σ a x + (t - c) Σ a, so that the batch norm's s and t act on [D, K], not on the frames.
        descriptor = weighted_sums(frames, assignment)
        if affine is not None:
            descriptor = torch.mul(descriptor, affine[0][:, None], out=own_memory(descriptor))
        offset = self._offset(affine)
        if offset is not None:
            sums = assignment.sum(1, keepdim=True)
            descriptor = torch.addcmul(descriptor, sums, offset, out=own_memory(descriptor))
        return normalize_clusters(descriptor)

    def _offset(self, affine: Affine) -> torch.Tensor | None:
        """t - c, which broadcasts to [D, K]; None without either."""
        if self.centres is None:
            return None if affine is None else affine[1][:, None]
        if self.kept_offset is not None:
            return self.kept_offset
        offset = -self.centres if affine is None else affine[1][:, None] - self.centres
        if self.fixed:
            # An ordinary tensor, which other modes may use as well.
            with torch.inference_mode(False), torch.no_grad():
                self.kept_offset = offset.clone()
        return offset


@aggregator("netvlad")
class NetVLAD(PooledFeatures):
    """VLADs of all features, concatenated, and a hidden layer: float [B, hidden] (2018: `NetVLADModelLF`)."""

    class Options(HiddenOptions):
        """`clusters` is a number for each feature by name, or one number for every feature.

        2018 flags: `netvlad_cluster_size` (audio had half of it), `netvlad_hidden_size`, `netvlad_relu`,
        `netvlad_add_batch_norm`, `lightvlad`, `gating`, `gating_remove_diag`.
        """

        clusters: dict[str, int] | int = 64
        light: bool = False

    def __init__(self, spec: FeatureSpec, options: Options):
        clusters = number_by_feature("clusters", options.clusters, spec)
        pools = {f.name: VLAD(f.size, clusters[f.name], options.light, options.batch_norm) for f in spec.features}
        super().__init__(spec, pools, options, clusters)
