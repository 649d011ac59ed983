"""Every method on tensors from the ends of float32's range, and of odd shapes: finite values, or a sentence."""

import math

import numpy as np
import pytest
import torch

from quantizing.deadline import deadline
from topgb.errors import InputError
from topgb.features import Feature, FeatureSpec
from topgb.modelfile import Header, Member
from topgb.modelfile.encodings import values
from topgb.modelfile.header import TensorEncoding
from topgb.models import parse_model
from topgb.quantizing.quantize import GROUPED, METHODS, QuantizeOptions, quantize
from topgb.quantizing.rounding import root_mean_square, root_mean_squares

pytestmark = pytest.mark.numeric

NAME = "members.0.weights"
GREATEST = torch.finfo(torch.float32).max
LEAST = 2.0**-149
BITS = 6.0


def _normal(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


def _with_one(value: float) -> torch.Tensor:
    tensor = _normal(40, 50)
    tensor[3, 2] = value
    return tensor


TENSORS = {
    "zeros": torch.zeros(40, 50),
    "constant": torch.full((40, 50), 0.3),
    "large constant": torch.full((40, 50), -7e4),
    "sparse": torch.where(_normal(40, 50) > 2.3, _normal(40, 50), 0.0),
    "1e30": _normal(40, 50) * 1e30,
    "one of 1e30": _with_one(1e30),
    "one of the greatest": _with_one(GREATEST),
    "greatest": torch.full((40, 50), GREATEST),
    "greatest of both signs": _normal(40, 50).sign() * GREATEST,
    "up to the greatest": _normal(40, 50).clamp(-1, 1) * GREATEST,
    "1e-30": _normal(40, 50) * 1e-30,
    "denormal": _normal(40, 50) * 1e-42,
    "least": torch.full((40, 50), LEAST),
    "rows from 1e-30 to 1e30": _normal(40, 50) * torch.logspace(-30, 30, 40)[:, None],
    "columns from 1e-30 to 1e30": _normal(40, 50) * torch.logspace(-30, 30, 50),
    "rows of zeros": _normal(40, 50) * (torch.arange(40) % 2)[:, None],
    "vector": _normal(900),
    "one row": _normal(1, 900),
    "one column": _normal(900, 1),
    "many axes": _normal(5, 4, 3, 40),
}


def _quantized(tensor: torch.Tensor, method: str) -> torch.Tensor:
    """The decoded values of `tensor`, stored by `method`."""
    config = parse_model({"aggregator": "average", "head": "logistic"})
    spec, entry = FeatureSpec("frame", (Feature("rgb", 40),)), TensorEncoding("float32", tuple(tensor.shape))
    header = Header(spec, 5, (Member(1.0, config),), {NAME: entry})
    encoded, parts = quantize(header, {NAME: tensor}, QuantizeOptions(method, BITS, min_elements=100))[NAME]
    return values(parts, encoded)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", TENSORS)
def test_values_are_finite_or_refused(kind, method):
    tensor = TENSORS[kind]
    largest = float(tensor.abs().max())
    refused = None
    if (method == "float16" or method in GROUPED) and largest > torch.finfo(torch.float16).max:
        refused = "beyond float16's 65,504"
    if method == "entropy" and kind == "one column":
        refused = r"at least 17.\d+ bits a weight"
    if method == "entropy" and kind == "up to the greatest":
        refused = "cannot be coded in 6 bits a weight"
    with deadline(60), np.errstate(all="raise", under="ignore"):
        if refused is not None:
            with pytest.raises(InputError, match=refused):
                _quantized(tensor, method)
            return
        found = _quantized(tensor, method)
    assert found.shape == tensor.shape
    assert bool(found.isfinite().all())
    assert float(found.abs().max()) <= max(1.02 * largest, LEAST)


@pytest.mark.parametrize("method", ["uniform", "kmeans", "int8", "entropy"])
def test_huge_weights_are_stored_as_well_as_others(method):
    def error(size: float) -> float:
        tensor = _normal(40, 50) * size
        return root_mean_square(_quantized(tensor, method) - tensor) / root_mean_square(tensor)

    assert error(2.0**100) == pytest.approx(error(1.0), rel=0.1)


def test_root_mean_squares_do_not_overflow():
    for size in (GREATEST, 1e30, 1.0, 1e-30, 1e-38):
        matrix = torch.full((3, 4), size)
        assert root_mean_square(matrix) == pytest.approx(size)
        assert root_mean_squares(matrix).tolist() == pytest.approx([size] * 3)
    wide = _normal(3, 1_500_000)
    assert root_mean_squares(wide).tolist() == pytest.approx([math.sqrt(row.double().square().mean()) for row in wide])
    assert root_mean_square(wide) == pytest.approx(math.sqrt(wide.double().square().mean()))
