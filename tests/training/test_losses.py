"""Losses at the points that the golden case leaves out."""

import pytest
import torch

from topgb.evaluation.metrics import cross_entropy
from topgb.training.losses import hinge, mixed_labels, softmax

pytestmark = pytest.mark.numeric


def test_hinge_has_no_gradient_at_its_kink():
    probabilities = torch.tensor([[1.0, 0.5]], requires_grad=True)
    hinge(probabilities, torch.tensor([[True, True]])).backward()
    assert probabilities.grad.tolist() == [[0.0, -1.0]]


def test_mixed_labels_lie_between_labels_and_teacher():
    probabilities = torch.tensor([[0.9, 0.2, 0.0], [0.4, 0.6, 1.0]])
    labels = torch.tensor([[True, False, True], [False, True, False]])
    teacher = torch.tensor([[0.7, 0.1, 0.3], [0.5, 0.5, 0.9]], dtype=torch.float16)

    def loss(weight):
        return cross_entropy(probabilities, mixed_labels(labels, teacher, weight)).item()

    assert loss(0.0) == pytest.approx(cross_entropy(probabilities, labels).item())
    assert cross_entropy(probabilities, mixed_labels(labels, labels, 0.3)).item() == pytest.approx(loss(0.0))
    assert loss(0.25) == pytest.approx(0.75 * loss(0.0) + 0.25 * loss(1.0))
    assert loss(0.0) != pytest.approx(loss(1.0), rel=0.1)
    assert torch.equal(mixed_labels(None, teacher, 1.0), teacher.float())


def test_softmax_of_no_labels_is_zero():
    assert softmax(torch.rand(4, 5), torch.zeros(4, 5, dtype=torch.bool)).item() == 0.0
