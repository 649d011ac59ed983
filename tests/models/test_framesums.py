"""Sums and maxima over frames, and their gradients, beside what autograd makes of the plain formulas."""

import pytest
import torch

from topgb.models import framesums
from topgb.models.framesums import sums_and_maxima, weighted_sums

pytestmark = pytest.mark.numeric


def _random(*shape: int) -> torch.Tensor:
    return torch.rand(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(len(shape)))


@pytest.mark.parametrize("frames_need_gradient", [False, True])
def test_weighted_sums(frames_need_gradient):
    # As the models call it, with some columns of wider frames.
    frames = _random(3, 7, 9)[:, :, 2:].detach().requires_grad_(frames_need_gradient)
    weights = _random(3, 7, 4).requires_grad_()
    with torch.no_grad():
        torch.testing.assert_close(weighted_sums(frames, weights), frames.transpose(1, 2) @ weights)
    torch.testing.assert_close(weighted_sums(frames, weights), frames.transpose(1, 2) @ weights)
    assert torch.autograd.gradcheck(weighted_sums, (frames, weights))


@pytest.mark.parametrize("block", [1, 60, framesums.BLOCK])
def test_sums_and_maxima(block, monkeypatch):
    monkeypatch.setattr(framesums, "BLOCK", block)
    values = _random(3, 7, 4)
    # Ties, and padding.
    values[0, 2:5] = 0.999
    values[1, 3:] = 0.0
    expected, found = values.clone().requires_grad_(), values.clone().requires_grad_()
    factors = _random(3, 4), _random(3, 4) - 0.5
    for (of_sum, of_maximum), own in (
        ((expected.sum(1), expected.amax(1)), expected),
        (sums_and_maxima(found), found),
    ):
        (of_sum * factors[0] + of_maximum.square() * factors[1]).sum().backward()
        torch.testing.assert_close(own.grad, expected.grad)
    with torch.no_grad():
        assert all(map(torch.equal, sums_and_maxima(values), (values.sum(1), values.amax(1))))
