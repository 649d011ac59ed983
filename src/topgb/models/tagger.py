"""A whole model: frontend, aggregator and head."""

import torch
from torch import nn

from topgb.batch import Batch
from topgb.features import FeatureSpec
from topgb.models import registry
from topgb.models.batchnorm import BatchNorm
from topgb.models.config import ModelConfig
from topgb.models.frontend import Frontend


class Tagger(nn.Module):
    """Frames to class probabilities.

    `forward(frames float [B, T, D], num_frames int [B]) -> float32 [B, classes]`; a video's output is the same, to
    rounding, at any padded length and in any batch. `predict` starts from a batch's stored features instead.
    """

    def __init__(self, spec: FeatureSpec, classes: int, config: ModelConfig):
        super().__init__()
        self.config = config
        self.classes = classes
        self.frontend = Frontend(spec, config)
        aggregator = registry.aggregators()[config.aggregator]
        head = registry.heads()[config.head]
        self.aggregator = aggregator(self.frontend.spec, config.aggregator_options)
        self.head = head(self.aggregator.out_features, classes, config.head_options)

    def forward(self, frames: torch.Tensor, num_frames: torch.Tensor) -> torch.Tensor:
        return self.head(self.aggregator(frames, num_frames))

    def predict(self, features: torch.Tensor, num_frames: torch.Tensor) -> torch.Tensor:
        """Probabilities float32 [B, V] from stored features (uint8 or float32 [B, T, D of the data's spec])."""
        return self(*self.frontend(features, num_frames))

    def predict_batch(self, batch: Batch) -> torch.Tensor:
        """`predict` of a `Batch` that lies on the model's device."""
        return self.predict(batch.features, batch.num_frames)

    def regularization(self) -> torch.Tensor:
        """The L2 penalty that training adds to the loss, a scalar."""
        return self.head.regularization()

    def set_batch_norm_momentum(self, momentum: float) -> None:
        """Set the share of a moving statistic that each training step keeps (2018: `decay`, 0.999)."""
        for module in self.modules():
            if isinstance(module, BatchNorm):
                module.momentum = 1.0 - momentum


def build_tagger(spec: FeatureSpec, classes: int, config: ModelConfig) -> Tagger:
    """A freshly initialised model for records of `spec` with `classes` classes.

    Under `torch.device("meta")` no memory is taken. Raises `InputError` where the options don't fit the spec.
    """
    return Tagger(spec, classes, config)
