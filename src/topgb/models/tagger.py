"""A whole model: frontend, aggregator and head."""

from collections.abc import Callable

import torch
from torch import nn

from topgb.batch import Batch
from topgb.features import FeatureSpec
from topgb.models.batchnorm import BatchNorm
from topgb.models.config import ModelConfig
from topgb.models.frontend import Frontend
from topgb.models.mixture import MixtureAggregator, MixtureHead
from topgb.models.precision import computing_dtype
from topgb.models.registry import find_aggregator, find_head


class Tagger(nn.Module):
    """Frames to class probabilities.

    `forward(frames float [B, T, D], num_frames int [B]) -> float32 [B, classes]`. A video's output is the same, up to
    rounding, at any padded length and in any batch; only 2018's models that attend to padding need frames padded to
    `max_frames`. `predict` starts from stored features instead of frames.
    """

    def __init__(self, spec: FeatureSpec, classes: int, config: ModelConfig):
        super().__init__()
        self.config = config
        self.classes = classes
        aggregator = find_aggregator(config.aggregator)
        head = find_head(config.head)
        seen = spec if config.features is None else spec.select(config.features)
        aggregators = [aggregator(seen, config.aggregator_options) for _ in range(config.mixture)]
        heads = [head(a.out_features, classes, config.head_options) for a in aggregators]
        if config.mixture == 1:
            self.aggregator, self.head = aggregators[0], heads[0]
        else:
            self.aggregator = MixtureAggregator(aggregators, seen.width)
            self.head = MixtureHead(heads, self.aggregator.splits)
        self.frontend = Frontend(spec, config, getattr(self.aggregator, "pads_to_max_frames", False))

    def forward(self, frames: torch.Tensor, num_frames: torch.Tensor) -> torch.Tensor:
        # Convert the frames once: under autocast every product with them would make its own copy.
        return self.head(self.aggregator(frames.to(computing_dtype(frames.device)), num_frames))

    def predict(self, features: torch.Tensor, num_frames: torch.Tensor) -> torch.Tensor:
        """Probabilities float32 [B, V] from stored features (uint8 or float32 [B, T, D of the data's spec])."""
        return self(*self.frontend(features, num_frames))

    def predict_batch(self, batch: Batch) -> torch.Tensor:
        """`predict` of a `Batch` that lies on the model's device."""
        return self.predict(batch.features, batch.num_frames)

    def regularization(self) -> torch.Tensor:
        """The L2 penalty that training adds to the loss, a scalar."""
        return self.head.regularization()

    def distillation_loss(
        self, labels: torch.Tensor, loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
    ) -> torch.Tensor | None:
        """The loss of a mixture's members on the batch seen last, a scalar; None for a single model."""
        return self.head.distillation(labels, loss) if isinstance(self.head, MixtureHead) else None

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
