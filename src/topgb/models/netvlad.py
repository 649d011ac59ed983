"""NetVLAD (Arandjelović et al. 2016, equation 4), as the 2018 system pools frames with it."""

from typing import Any

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import nn

from topgb.errors import InputError
from topgb.features import FeatureSpec
from topgb.models import options, registry
from topgb.models.batchnorm import BatchNorm
from topgb.models.frontend import l2_normalize
from topgb.models.gating import ContextGating
from topgb.models.padding import valid_frames


class VLAD(nn.Module):
    """One feature's frames [B, T, D] to its descriptor [B, D · clusters], feature-major.

    Frames are softly assigned to clusters; per cluster the residuals to its centre are summed (`light`: the frames
    themselves, without centres), normalised over D, then all together.
    """

    def __init__(self, features: int, clusters: int, light: bool, batch_norm: bool):
        super().__init__()
        self.assign = nn.Linear(features, clusters, bias=not batch_norm)
        self.centres = None if light else nn.Parameter(torch.empty(features, clusters))
        for parameter in self.parameters():
            nn.init.normal_(parameter, std=features**-0.5)
        self.norm = BatchNorm(clusters) if batch_norm else None

    def forward(self, frames: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        activation = self.assign(frames)
        if self.norm is not None:
            activation = self.norm(activation, valid)
        assignment = activation.softmax(dim=2).masked_fill(~valid[:, :, None], 0.0)
        descriptor = frames.transpose(1, 2).to(assignment.dtype) @ assignment
        if self.centres is not None:
            descriptor = descriptor - assignment.sum(1, keepdim=True) * self.centres
        return l2_normalize(l2_normalize(descriptor, dim=1).flatten(1), dim=1)


class _ByFeature(nn.ModuleDict):
    """Modules by feature name, which may be that of an attribute too (`keys`, `type`, `training`)."""

    def __setitem__(self, key: str, module: nn.Module) -> None:
        # add_module refuses such names.
        self._modules[key] = module

    def __setattr__(self, name: str, value: Any) -> None:
        # A module's own __setattr__ takes `self.training = …` for the feature of that name.
        object.__setattr__(self, name, value)


@registry.aggregator("netvlad")
class NetVLAD(nn.Module):
    """VLAD of each feature, joined, through a hidden layer: float [B, hidden] (2018: `NetVLADModelLF`)."""

    class Options(options.Options):
        """`clusters` is a number for each feature by name, or one number for every feature.

        2018 flags: `netvlad_cluster_size` (audio had half of it), `netvlad_hidden_size`, `netvlad_relu`,
        `netvlad_add_batch_norm`, `lightvlad`, `gating`, `gating_remove_diag`. `dropout` acts on the
        result in training; the 2018 system had none.
        """

        clusters: dict[str, int] | int = 64
        hidden: int = Field(1024, ge=1)
        relu: bool = True
        batch_norm: bool = True
        light: bool = False
        gating: bool = False
        gating_remove_diagonal: bool = False
        dropout: float = Field(0.0, ge=0.0, lt=1.0)

    def __init__(self, spec: FeatureSpec, options: Options):
        super().__init__()
        self.out_features = options.hidden
        self.relu = options.relu
        clusters = clusters_by_feature(options.clusters, spec)
        self.input_norm = BatchNorm(spec.width) if options.batch_norm else None
        self.vlad = _ByFeature(
            {f.name: VLAD(f.size, clusters[f.name], options.light, options.batch_norm) for f in spec.features}
        )
        self.widths = [feature.size for feature in spec.features]
        width = sum(feature.size * clusters[feature.name] for feature in spec.features)
        self.dropout = nn.Dropout(options.dropout)
        normalized = options.batch_norm and options.relu
        self.hidden = nn.Linear(width, options.hidden, bias=not normalized)
        self.hidden_norm = BatchNorm(options.hidden) if normalized else None
        # 2018 starts from stddev 1/sqrt(clusters of the first feature), whatever the input's width.
        nn.init.normal_(self.hidden.weight, std=next(iter(clusters.values())) ** -0.5)
        if self.hidden.bias is not None:
            nn.init.normal_(self.hidden.bias, std=0.01)
        self.gating = None
        if options.gating:
            self.gating = ContextGating(
                options.hidden, batch_norm=options.batch_norm, remove_diagonal=options.gating_remove_diagonal
            )

    def forward(self, frames: torch.Tensor, num_frames: torch.Tensor) -> torch.Tensor:
        valid = valid_frames(num_frames, frames.shape[1])
        if self.input_norm is not None:
            frames = self.input_norm(frames, valid)
        # The gradient of a split is one concatenation; that of slices fills a whole batch with zeros for each.
        by_feature = zip(self.vlad.values(), frames.split(self.widths, dim=2), strict=True)
        parts = [vlad(part, valid) for vlad, part in by_feature]
        hidden = self.hidden(torch.cat(parts, dim=1))
        if self.hidden_norm is not None:
            hidden = self.hidden_norm(hidden)
        if self.relu:
            hidden = F.relu6(hidden)
        return self.dropout(hidden if self.gating is None else self.gating(hidden))


def clusters_by_feature(clusters: dict[str, int] | int, spec: FeatureSpec) -> dict[str, int]:
    """The number of clusters of each feature of `spec`, in its order.

    Raises `InputError` where a feature has no number, a number has no feature, or a number is below 1.
    """
    names = [feature.name for feature in spec.features]
    if isinstance(clusters, int):
        clusters = dict.fromkeys(names, clusters)
    if set(clusters) != set(names):
        raise InputError(f"'model.clusters' names {', '.join(clusters)}; the model's features are {', '.join(names)}")
    if min(clusters.values()) < 1:
        raise InputError(f"'model.clusters' is {clusters}; every feature needs at least 1 cluster")
    return {name: clusters[name] for name in names}
