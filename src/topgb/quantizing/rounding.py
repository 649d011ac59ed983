"""Rounding weights to a uniform grid, with or without making up for each weight's error in those not rounded yet."""

from dataclasses import dataclass

import torch

# Columns whose errors are spread among each other before the rest hears of them; what they need stays in the cache.
BLOCK = 128
# What keeps the Hessian of inputs that never vary from being singular, as a share of its mean diagonal (GPTQ's 1 %).
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


def inverse_factor(second_moment: torch.Tensor) -> torch.Tensor:
    """float32 [C, C]: the upper Cholesky factor of the inverse of the second moment of a layer's inputs, damped.

    Row i holds, up to a factor, what column i's error asks of the columns behind it (Frantar et al. 2023, GPTQ).
    """
    moment = second_moment.double()
    damping = DAMPING * moment.diagonal().mean().clamp_min(1e-12)
    moment = moment + damping * torch.eye(len(moment), dtype=torch.float64)
    return torch.linalg.cholesky(torch.cholesky_inverse(torch.linalg.cholesky(moment)), upper=True).float()


def round_compensated(weights: torch.Tensor, factor: torch.Tensor, grid: Grid) -> torch.Tensor:
    """Codes float32 [R, C] of weights float32 [R, C].

    Column by column, each one's rounding error is made up for by those behind it, as far as the inputs that
    `factor` (`inverse_factor`) stands for go together (GPTQ, equation 3).
    """
    weights, codes = weights.clone(), torch.empty_like(weights)
    scale, minimum = grid.scale[:, 0], grid.minimum[:, 0]
    for start in range(0, weights.shape[1], BLOCK):
        end = min(start + BLOCK, weights.shape[1])
        # Transposed, so that a column is one piece of memory.
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
