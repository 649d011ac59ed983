"""The mean over a video's frames (2018: `FrameLevelLogisticModel`; the identity on video-level records)."""

import torch
from torch import nn

from topgb.features import FeatureSpec
from topgb.models.options import Options as BaseOptions
from topgb.models.padding import valid_frames, without_padding
from topgb.models.precision import full_precision
from topgb.models.registry import aggregator


@aggregator("average")
class Average(nn.Module):
    """Mean over the valid frames, float [B, D]; `std` appends their standard deviation, float [B, 2 D]."""

    class Options(BaseOptions):
        std: bool = False

    def __init__(self, spec: FeatureSpec, options: Options):
        super().__init__()
        self.std = options.std
        self.one_frame = spec.level == "video"
        self.out_features = spec.width * (2 if self.std else 1)

    def forward(self, frames: torch.Tensor, num_frames: torch.Tensor) -> torch.Tensor:
        # An exported graph is the same whatever the level, so that its size can be estimated.
        if self.one_frame and not self.std and not torch.compiler.is_exporting():
            return frames[:, 0].float()
        count = num_frames[:, None].float()
        valid = valid_frames(num_frames, frames.shape[1])
        # A matrix product reads the frames once; masking and summing would write a copy of them.
        with full_precision(frames.device):
            mean = torch.bmm((valid / count)[:, None], frames.float())[:, 0]
        if not self.std:
            return mean
        deviation = without_padding(frames - mean[:, None], valid)
        # One frame or a constant feature has variance 0, where the gradient of the square root is infinite.
        return torch.cat([mean, (deviation.square().sum(1) / count + 1e-12).sqrt()], dim=1)
