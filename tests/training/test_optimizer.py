"""Gradient clipping, as the CPU and as a GPU does it; TF1Adam is compared with TensorFlow's in tests/golden."""

import pytest
import torch

from topgb.models import penalty
from topgb.training.optimizer import clip_each, clip_without_waiting

SHAPES = ((40, 30), (7,), (), (0, 5))


def _gradients() -> list[torch.Tensor]:
    torch.manual_seed(0)
    return [torch.randn(shape) * scale for shape, scale in zip(SHAPES, (2.0, 0.01, 9.0, 1.0), strict=True)]


def _clip_each(gradients: list[torch.Tensor], clip_norm: float) -> None:
    parameters = [torch.nn.Parameter(torch.zeros_like(gradient)) for gradient in gradients]
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = gradient
    clip_each([*parameters, torch.nn.Parameter(torch.zeros(3))], clip_norm)


@pytest.mark.parametrize("clip", [_clip_each, clip_without_waiting])
def test_each_gradient_is_scaled_by_itself(clip, monkeypatch):
    # The largest gradient has several blocks then.
    monkeypatch.setattr(penalty, "BLOCK", 500)
    before, after = _gradients(), _gradients()
    clip(after, 1.0)
    for old, new in zip(before, after, strict=True):
        norm = torch.linalg.vector_norm(old.double())
        torch.testing.assert_close(new, (old / norm.clamp_min(1.0)).float())
    assert torch.equal(after[1], before[1])
