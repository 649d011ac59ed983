"""Batch normalisation as TensorFlow's slim layer computes it, blind to padding."""

import torch
from torch import nn

# 2018: slim.batch_norm's defaults. PyTorch's momentum is the share of the *new* statistic.
EPSILON = 1e-3
MOMENTUM_2018 = 0.999


class BatchNorm(nn.BatchNorm1d):
    """Normalises the last axis of [N, C] or [B, T, C] over all the others.

    The moving variance takes Bessel's correction, as the 2018 graph's does for rank-2 inputs. With `valid`
    (bool [B, T]) only these frames count as data in training.
    """

    def __init__(self, features: int):
        super().__init__(features, eps=EPSILON, momentum=1.0 - MOMENTUM_2018)
        # An integer counter that nothing reads would be one more thing to save, average and keep in step.
        self.num_batches_tracked = None

    def _load_from_state_dict(self, *args, **kwargs):
        # PyTorch's own version puts the counter back where the state has none.
        nn.Module._load_from_state_dict(self, *args, **kwargs)

    def forward(self, values: torch.Tensor, valid: torch.Tensor | None = None) -> torch.Tensor:
        rows = values.reshape(-1, self.num_features)
        if self.training and (len(rows) == 1 or (valid is not None and not bool(valid.all()))):
            # PyTorch refuses a single row; its variance is 0, as in TensorFlow.
            counted = rows.new_ones(len(rows), dtype=torch.bool) if valid is None else valid.reshape(-1)
            return self._normalize_valid(rows, counted).view(values.shape)
        return super().forward(rows).view(values.shape)

    def _normalize_valid(self, rows: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        rows = rows.float()
        count = valid.sum()
        share = valid.float() / count
        mean = share @ rows
        centred = rows - mean
        variance = share @ centred.square()
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.momentum is not None
        with torch.no_grad():
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * (count / (count - 1).clamp_min(1)), self.momentum)
        return centred * (variance + self.eps).rsqrt() * self.weight + self.bias
