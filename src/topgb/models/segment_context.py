"""A segment beside its context: the mean of the segment's own frames, and that of the frames around them."""

import torch
from pydantic import Field
from torch import nn

from topgb.features import FeatureSpec
from topgb.models.options import Options as BaseOptions
from topgb.models.padding import valid_frames
from topgb.models.precision import full_precision
from topgb.models.registry import aggregator


@aggregator("segment_context")
class SegmentContext(nn.Module):
    """Mean over the first `own` valid frames beside the mean over all valid frames: float [B, 2 D].

    The rows of a recipe's `segments` begin with the segment's own 5 frames. A video of no more than `own` frames is its
    own context.
    """

    class Options(BaseOptions):
        """`own` is the number of frames of a segment."""

        own: int = Field(5, ge=1)

    def __init__(self, spec: FeatureSpec, options: Options):
        super().__init__()
        self.own = options.own
        self.out_features = 2 * spec.width

    def forward(self, frames: torch.Tensor, num_frames: torch.Tensor) -> torch.Tensor:
        counts = torch.stack([num_frames.clamp(max=self.own), num_frames], 1)
        valid = torch.stack([valid_frames(count, frames.shape[1]) for count in counts.unbind(1)], 1)
        with full_precision(frames.device):
            means = torch.bmm(valid / counts[:, :, None].float(), frames.float())
        return means.flatten(1)
