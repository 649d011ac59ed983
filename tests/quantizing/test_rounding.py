"""Rounding: the nearest grid value, and errors that make up for each other in what a layer gives."""

import pytest
import torch

from topgb.quantizing.rounding import Grid, inverse_factor, round_compensated

pytestmark = pytest.mark.numeric


def _inputs(rows=4000, columns=200, seed=0):
    """Inputs whose columns go together, as a network's do."""
    mixing = torch.randn(20, columns, generator=torch.Generator().manual_seed(100))
    random = torch.Generator().manual_seed(seed)
    return torch.randn(rows, 20, generator=random) @ mixing + 0.3 * torch.randn(rows, columns, generator=random)


def _grid(rows, step):
    return Grid(torch.full((rows, 1), step), torch.zeros(rows, 1), -127, 127)


@pytest.mark.parametrize("step", [0.05, 0.3, 1.0])
def test_a_compensated_layer_gives_what_the_exact_one_gives_more_nearly(step):
    inputs = _inputs()
    weights = torch.randn(50, 200, generator=torch.Generator().manual_seed(1))
    grid = _grid(50, step)
    plain, compensated = (
        grid.values(codes)
        for codes in (grid.codes(weights), round_compensated(weights, inverse_factor(inputs.T @ inputs), grid))
    )
    exact = _inputs(seed=2) @ weights.T
    errors = [float((_inputs(seed=2) @ rounded.T - exact).square().mean()) for rounded in (plain, compensated)]
    assert errors[1] < 0.6 * errors[0]


def test_rounding_follows_the_published_recursion():
    """GPTQ written out: for each column, its error over the inverse's diagonal goes off the columns behind it."""
    inputs, grid = _inputs(columns=150), _grid(7, 0.4)
    weights = torch.randn(7, 150, generator=torch.Generator().manual_seed(1))
    moment = (inputs.T @ inputs).double()
    inverse = torch.linalg.inv(moment + 0.01 * moment.diagonal().mean() * torch.eye(150, dtype=torch.float64))
    left, codes = weights.double(), torch.zeros(7, 150, dtype=torch.float64)
    for column in range(150):
        codes[:, column] = (left[:, column] / 0.4).round().clamp(-127, 127)
        error = (left[:, column] - 0.4 * codes[:, column]) / inverse[0, 0]
        left[:, column:] -= error[:, None] * inverse[0]
        inverse = inverse[1:, 1:] - torch.outer(inverse[1:, 0], inverse[0, 1:]) / inverse[0, 0]
    ours = round_compensated(weights, inverse_factor(inputs.T @ inputs), grid)
    # A value that lies between two codes may go either way, and then others follow it.
    assert (ours == codes).float().mean() > 0.99


def test_inputs_that_never_vary_do_no_harm():
    weights = torch.randn(5, 30)
    grid = _grid(5, 0.1)
    for inputs in (torch.zeros(10, 30), torch.ones(10, 30), torch.eye(30)[:3]):
        values = grid.values(round_compensated(weights, inverse_factor(inputs.T @ inputs), grid))
        assert values.isfinite().all()
    # Columns that have nothing to do with each other are rounded as without.
    assert torch.equal(round_compensated(weights, inverse_factor(torch.eye(30)), grid), grid.codes(weights))
