"""Batch normalisation as TensorFlow's slim layer computes it, blind to padding."""

import torch
import torch.nn.functional as F
from torch import nn

from topgb.models.precision import full_precision
from topgb.models.synchronised import several_ranks, sum_over_ranks

# 2018: slim.batch_norm's defaults. PyTorch's momentum is the share of the *new* statistic.
EPSILON = 1e-3
MOMENTUM_2018 = 0.999
# Rows whose statistics are taken at once: a thousand floats each are a few hundred KB.
BLOCK = 256


class BatchNorm(nn.Module):
    """Normalises the last axis of [N, C] or [B, T, C] over all the others.

    The moving variance takes Bessel's correction, as the 2018 graph's does for rank-2 inputs; with `population` it does
    not, as there for rank-3 inputs. With `valid` (bool [B, T]) only these frames count as data in training. Where
    several ranks train one model, the statistics are of all ranks' rows; a rank may have none. A step in which no rank
    has a row leaves the moving statistics as they are. Unlike PyTorch's, it counts no batches: a counter that nothing
    reads would be one more thing to save, average and keep in step.
    """

    running_mean: torch.Tensor
    running_var: torch.Tensor

    def __init__(self, features: int, population: bool = False):
        super().__init__()
        self.features, self.population = features, population
        self.momentum = 1.0 - MOMENTUM_2018
        self.weight = nn.Parameter(torch.ones(features))
        self.bias = nn.Parameter(torch.zeros(features))
        self.register_buffer("running_mean", torch.zeros(features))
        self.register_buffer("running_var", torch.ones(features))

    def forward(self, values: torch.Tensor, valid: torch.Tensor | None = None) -> torch.Tensor:
        rows = values.reshape(-1, self.features)
        # PyTorch refuses a single row; its variance is 0, as in TensorFlow.
        if self.training and (valid is not None or self.population or len(rows) == 1 or several_ranks()):
            return self._normalize_valid(rows, valid).view(values.shape)
        statistics = self.running_mean, self.running_var
        normalized = F.batch_norm(rows, *statistics, self.weight, self.bias, self.training, self.momentum, EPSILON)
        return normalized.view(values.shape)

    def fold(self, values: torch.Tensor, valid: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
        """(scale, shift), float32 [C] each, so that values · scale + shift is what `forward` returns.

        For values without a gradient (the frames): what is linear in them can take the scale and the shift into its
        weights, so that neither the normalised frames nor their gradient are ever made. In training the moving
        statistics are updated as by `forward`.
        """
        if self.training:
            with torch.no_grad():
                rows = values.reshape(-1, self.features)
                share, count = _shares(rows, valid)
                mean, variance = _moments(rows, share)
                if several_ranks():
                    mean, variance, count = _pooled(mean, variance, count)
                self._update(mean, variance, count)
        else:
            mean, variance = self.running_mean, self.running_var
        scale = self.weight * (variance + EPSILON).rsqrt()
        return scale, self.bias - mean * scale

    def _normalize_valid(self, rows: torch.Tensor, valid: torch.Tensor | None) -> torch.Tensor:
        with full_precision(rows.device):
            share, count = _shares(rows, valid)
            if several_ranks():
                own, count = count, sum_over_ranks(count)
                share = share * (own / count.clamp_min(1))
            mean = sum_over_ranks(share @ rows.float())
            centred = rows.float() - mean
            variance = sum_over_ranks(share @ centred.square())
            self._update(mean.detach(), variance.detach(), count)
            return centred * (variance + EPSILON).rsqrt() * self.weight + self.bias

    def _update(self, mean: torch.Tensor, variance: torch.Tensor, count: torch.Tensor) -> None:
        correction = 1.0 if self.population else count / (count - 1).clamp_min(1)
        with torch.no_grad():
            for moving, found in ((self.running_mean, mean), (self.running_var, variance * correction)):
                # No rows have no statistics. Not an `if`, which would wait for the device.
                moving.lerp_(torch.where(count > 0, found, moving), self.momentum)


def _shares(rows: torch.Tensor, valid: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
    """What each of rows [N, C] counts, float32 [N], summing to 1; and how many count, float32 []."""
    if valid is None:
        count = torch.full((), float(len(rows)), device=rows.device)
        return torch.full((len(rows),), 1 / max(len(rows), 1), device=rows.device), count
    counted = valid.reshape(-1).float()
    count = counted.sum()
    return counted / count.clamp_min(1), count


def _moments(rows: torch.Tensor, share: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and population variance, float32 [C] each, of rows [N, C] that count `share` (float32 [N]) each."""
    # About the first row (0 without rows), which is near enough to the mean that squares lose nothing; in blocks that
    # stay in the cache.
    shift = rows[:1].float().sum(0)
    first, second = (torch.zeros_like(shift) for _ in range(2))
    block = BLOCK if rows.device.type == "cpu" else len(rows)
    with full_precision(rows.device):
        for part, weights in zip(rows.split(block), share.split(block), strict=True):
            centred = part.float() - shift
            first += weights @ centred
            second += weights @ centred.square_()
    return first + shift, (second - first.square()).clamp_min_(0.0)


def _pooled(
    mean: torch.Tensor, variance: torch.Tensor, count: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The moments, float32 [C], of all ranks' rows, and how many those are, from those of each rank's own."""
    total = sum_over_ranks(count)
    share = count / total.clamp_min(1)
    joint = sum_over_ranks(share * mean)
    return joint, sum_over_ranks(share * (variance + (mean - joint).square())), total


Affine = tuple[torch.Tensor, torch.Tensor] | None


def folded_linear(values: torch.Tensor, linear: nn.Linear, affine: Affine) -> torch.Tensor:
    """`linear` of values · scale + shift, without making that product; `affine` None: `linear` alone."""
    if affine is None:
        return linear(values)
    scale, shift = affine
    weight = linear.weight
    with full_precision(values.device):
        bias = weight @ shift
    return F.linear(values, weight * scale, bias if linear.bias is None else bias + linear.bias)
