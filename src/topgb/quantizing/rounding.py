"""Rounding weights to a uniform grid, by themselves or with error compensation (GPTQ, Frantar et al. 2023)."""

import math
from dataclasses import dataclass

import torch

# Columns per block. Errors spread at once inside a block, and to later columns when it is done: a block fits the cache.
BLOCK = 128
# Values squared at once, as float64: the squares of float32 values above 1.8e19 overflow in float32.
SUMMED = 1 << 20
# Added to the diagonal of the Hessian, as a share of its mean (GPTQ's 1 %): constant inputs would make it singular.
DAMPING = 0.01


@dataclass(frozen=True)
class Grid:
    """The values minimum + code · scale for whole codes from `low` to `high`; `scale`, `minimum` float32 [R, 1]."""

    scale: torch.Tensor
    minimum: torch.Tensor
    low: int
    high: int

    def codes(self, weights: torch.Tensor) -> torch.Tensor:
        """The nearest codes (float32 [R, C]) of weights [R, C]."""
        return ((weights - self.minimum) / self.scale).round_().clamp_(self.low, self.high)

    def values(self, codes: torch.Tensor) -> torch.Tensor:
        return codes * self.scale + self.minimum


def root_mean_squares(matrix: torch.Tensor) -> torch.Tensor:
    """The root mean square of each row, float64 [R], of float32 [R, C]."""
    rows = max(1, SUMMED // matrix.shape[1])
    return torch.cat([part.double().square_().mean(1).sqrt_() for part in matrix.split(rows)])


def root_mean_square(tensor: torch.Tensor) -> float:
    """The root mean square of all values of a float32 tensor."""
    blocks = tensor.reshape(-1).split(SUMMED)
    return math.sqrt(sum(float(block.double().square_().sum()) for block in blocks) / tensor.numel())


def inverse_factor(second_moment: torch.Tensor) -> torch.Tensor:
    """Upper Cholesky factor, float32 [C, C], of the inverse of the damped `second_moment` [C, C] of a layer's inputs.

    Row i says, up to a factor, how later columns change to compensate the rounding error of column i (GPTQ).
    """
    moment = second_moment.double()
    damping = DAMPING * moment.diagonal().mean().clamp_min(1e-12)
    moment = moment + damping * torch.eye(len(moment), dtype=torch.float64)
    return torch.linalg.cholesky(torch.cholesky_inverse(torch.linalg.cholesky(moment)), upper=True).float()


def round_compensated(weights: torch.Tensor, factor: torch.Tensor, grid: Grid) -> torch.Tensor:
    """Round weights float32 [R, C] to codes float32 [R, C] of `grid`, compensating the errors (GPTQ, equation 3).

    Columns are rounded from left to right, and all later columns change to compensate the error of each. `factor` is
    the `inverse_factor` [C, C] of the layer's inputs: the more two inputs correlate, the more error moves between them.
    """
    # Divide each row by about its step, so that no sum below overflows. A power of two as divisor loses no digit.
    unit = torch.ldexp(torch.ones_like(grid.scale), -torch.frexp(grid.scale).exponent)
    weights, codes = weights * unit, torch.empty_like(weights)
    scale, minimum = (grid.scale * unit)[:, 0], (grid.minimum * unit)[:, 0]
    for start in range(0, weights.shape[1], BLOCK):
        end = min(start + BLOCK, weights.shape[1])
        # Transposed, so that each column is contiguous in memory.
        own = weights[:, start:end].T.contiguous()
        errors = torch.empty_like(own)
        for place in range(end - start):
            row = factor[start + place]
            code = ((own[place] - minimum) / scale).round_().clamp_(grid.low, grid.high)
            codes[:, start + place] = code
            errors[place] = (own[place] - (code * scale + minimum)) / row[start + place]
            own[place + 1 :].addr_(row[start + place + 1 : end], errors[place], alpha=-1)
        weights[:, end:] -= errors.T @ factor[start:end, end:]
    return codes
