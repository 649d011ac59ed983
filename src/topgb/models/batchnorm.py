"""Batch normalisation as TensorFlow's slim layer computes it, blind to padding."""

import torch
import torch.nn.functional as F
from torch import nn

from topgb.matmul_library import linear as multiply_by_faster
from topgb.models.few_rows import predicts
from topgb.models.precision import full_precision
from topgb.models.readlinear import Fixable, ReadLinear
from topgb.models.synchronised import several_ranks, sum_over_ranks

# 2018: slim.batch_norm's defaults. PyTorch's momentum is the share of the *new* statistic.
EPSILON = 1e-3
MOMENTUM_2018 = 0.999
# Rows whose moments are computed at once on a CPU: at a thousand floats per row they stay in the cache.
BLOCK = 256


class BatchNorm(Fixable):
    """Normalises each of the C channels of [N, C] or [B, T, C] over all other axes.

    Training normalises by the batch's statistics and updates the moving ones, evaluation normalises by the moving ones.
    With `valid` (bool [B, T]) only the valid frames count in the statistics. The moving variance has Bessel's
    correction, as in the 2018 graph for rank-2 inputs; with `population` it has none, as there for rank-3 inputs. When
    several ranks train one model, the statistics cover the rows of all ranks. A rank may have no rows; a step in which
    no rank has any leaves the moving statistics unchanged. Unlike PyTorch's layer this one does not count batches,
    because nothing reads that counter.

    Fixed, it keeps the evaluation's `scale` and `shift`.
    """

    running_mean: torch.Tensor
    running_var: torch.Tensor
    scale: torch.Tensor | None
    shift: torch.Tensor | None

    def __init__(self, features: int, population: bool = False):
        super().__init__()
        self.features, self.population = features, population
        self.momentum = 1.0 - MOMENTUM_2018
        self.weight = nn.Parameter(torch.ones(features))
        self.bias = nn.Parameter(torch.zeros(features))
        self.register_buffer("running_mean", torch.zeros(features))
        self.register_buffer("running_var", torch.ones(features))
        self.register_buffer("scale", None, persistent=False)
        self.register_buffer("shift", None, persistent=False)

    @torch.no_grad()
    def fix(self) -> None:
        super().fix()
        self.scale, self.shift = self._affine(self.running_mean, self.running_var)

    def free(self) -> None:
        super().free()
        self.scale = self.shift = None

    def forward(self, values: torch.Tensor, valid: torch.Tensor | None = None) -> torch.Tensor:
        scale, shift = self.scale, self.shift
        if scale is not None and shift is not None and values.dtype == scale.dtype:
            return torch.addcmul(shift, values, scale)
        rows = values.reshape(-1, self.features)
        # PyTorch refuses to train on a single row; here its variance is 0, as in TensorFlow.
        if self.training and (valid is not None or self.population or len(rows) == 1 or several_ranks()):
            return self._normalize_valid(rows, valid).view(values.shape)
        statistics = self.running_mean, self.running_var
        normalized = F.batch_norm(rows, *statistics, self.weight, self.bias, self.training, self.momentum, EPSILON)
        return normalized.view(values.shape)

    def fold(self, values: torch.Tensor, valid: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
        """The normalisation of `values` as (scale, shift), float32 [C] each: `forward` gives values · scale + shift.

        A linear layer can take scale and shift into its weights (`folded_linear`), so that neither the normalised
        frames nor their gradient are ever computed. No gradient reaches `values`, so they must be inputs such as the
        frames. In training the moving statistics are updated as by `forward`.
        """
        if self.scale is not None and self.shift is not None:
            return self.scale, self.shift
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
        return self._affine(mean, variance)

    def _affine(self, mean: torch.Tensor, variance: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
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
                # Without rows, keep the moving statistics. An `if` would wait for the device.
                moving.lerp_(torch.where(count > 0, found, moving), self.momentum)


def _shares(rows: torch.Tensor, valid: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
    """Each row's weight in the statistics, float32 [N] (summing to 1), and the number of valid rows, float32 []."""
    if valid is None:
        count = torch.full((), float(len(rows)), device=rows.device)
        return torch.full((len(rows),), 1 / max(len(rows), 1), device=rows.device), count
    counted = valid.reshape(-1).float()
    count = counted.sum()
    return counted / count.clamp_min(1), count


def _moments(rows: torch.Tensor, share: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and population variance, float32 [C] each, of rows [N, C] with the weights `share` (float32 [N])."""
    # Subtract the first row (0 without rows): it is near enough to the mean that the squares lose no digits.
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
    """Pool each rank's `mean` and `variance` (float32 [C]) of `count` rows into those of all ranks' rows.

    Returns mean and variance, float32 [C] each, and the number of all ranks' rows, float32 [].
    """
    total = sum_over_ranks(count)
    share = count / total.clamp_min(1)
    joint = sum_over_ranks(share * mean)
    return joint, sum_over_ranks(share * (variance + (mean - joint).square())), total


Affine = tuple[torch.Tensor, torch.Tensor] | None


def folded_linear(
    values: torch.Tensor,
    linear: ReadLinear,
    affine: Affine,
    norm: BatchNorm | None = None,
    valid: torch.Tensor | None = None,
) -> torch.Tensor:
    """`norm(linear(values · scale + shift), valid)` for values [..., C] and `affine` (scale, shift), float32 [C] each.

    Scale and shift go into the layer's weights: W (s ∘ x + t) + b = (W diag(s)) x + (W t + b). The product
    values · scale is never computed. Where `linear` is fixed, `norm` goes into them as well, once. `affine` and `norm`
    may be None.
    """
    if linear.fixed and (affine is not None or norm is not None):
        if linear.folded_weight is None:
            # Ordinary tensors, which other modes may use as well.
            with torch.inference_mode(False), torch.no_grad(), full_precision(values.device):
                weight, linear.folded_bias = _after(norm, *_folded(linear, affine))
                linear.folded_weight = weight
        multiply = multiply_by_faster if predicts(values) else F.linear
        return multiply(values, linear.folded_weight, linear.folded_bias)
    if affine is None:
        products = linear(values)
    else:
        with full_precision(values.device):
            weight, bias = _folded(linear, affine)
        products = F.linear(values, weight, bias)
    return products if norm is None else norm(products, valid)


def _folded(linear: nn.Linear, affine: Affine) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Weight and bias of linear(values · scale + shift)."""
    if affine is None:
        return linear.weight, linear.bias
    scale, shift = affine
    bias = linear.weight @ shift
    return linear.weight * scale, bias if linear.bias is None else bias + linear.bias


def _after(
    norm: BatchNorm | None, weight: torch.Tensor, bias: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Weight and bias of a linear layer with `norm`, in evaluation, after it."""
    if norm is None:
        return weight, bias
    scale, shift = norm.fold(weight, None)
    return weight * scale[:, None], shift if bias is None else torch.addcmul(shift, bias, scale)
