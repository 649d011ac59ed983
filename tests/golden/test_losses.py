"""The losses and their gradients equal the 2018 code's."""

import re
from collections.abc import Callable

import numpy as np
import pytest
import torch

from golden.cases import Case, cases
from topgb.evaluation.metrics import cross_entropy
from topgb.training.losses import hinge, mixed_labels, softmax

INPUTS = {"predictions", "labels", "teacher"}
CASES = cases("losses*")
VALUES = [(case, key) for case in CASES for key in case.arrays() if key not in INPUTS and not key.endswith("|grad")]

pytestmark = [
    pytest.mark.numeric,
    pytest.mark.skipif(not CASES, reason="the golden cases (TOPGB_GOLDEN or ../shared/golden) are absent"),
]


def _loss(key: str, teacher: torch.Tensor) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    """The loss that a case's key names: its 2018 class, then the parameter (`HingeLoss_b0.5`)."""
    name, parameter = re.fullmatch(r"(\w+Loss)(?:_b?([\d.]+))?", key).groups()
    if name == "MixedCrossEntropyLoss":
        return lambda p, y: cross_entropy(p, mixed_labels(y, teacher, float(parameter)))
    if name == "HingeLoss" and parameter is not None:
        return lambda p, y: hinge(p, y, float(parameter))
    assert parameter is None, key
    return {"CrossEntropyLoss": cross_entropy, "HingeLoss": hinge, "SoftmaxLoss": softmax}[name]


@pytest.mark.parametrize(("case", "key"), VALUES, ids=str)
def test_loss_and_gradient_equal_2018(case: Case, key: str):
    arrays = {name: torch.from_numpy(value) for name, value in case.arrays().items()}
    probabilities = arrays["predictions"].requires_grad_()
    loss = _loss(key, arrays["teacher"])(probabilities, arrays["labels"])
    loss.backward()
    np.testing.assert_allclose(loss.item(), arrays[key].item(), rtol=1e-6)
    torch.testing.assert_close(probabilities.grad, arrays[f"{key}|grad"], rtol=1e-5, atol=1e-6)
