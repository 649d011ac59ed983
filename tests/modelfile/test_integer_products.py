"""Products in integers: float32's accuracy for any sizes of values, nothing finite of what is not, and who chooses."""

import json

import pytest
import torch

from topgb import matmul_library as matmul
from topgb.modelfile import integer_products
from topgb.modelfile.integer_products import by_integers
from topgb.modelfile.packed_linear import STREAMED_ROWS, PackedLinear

pytestmark = pytest.mark.numeric

VIDEOS, IN, OUT = 30, 1000, 40


def _codes(seed: int = 0) -> torch.Tensor:
    return torch.randint(-127, 128, (OUT, IN), dtype=torch.int8, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("columns", [IN, 96])
@pytest.mark.parametrize("size", [1e-25, 1.0, 1e25])
@pytest.mark.parametrize("kind", ["normal", "uniform", "never negative", "one is far larger"])
def test_products_have_float32s_accuracy(monkeypatch, kind, size, columns):
    monkeypatch.setattr(integer_products, "COLUMNS", columns)
    random = torch.Generator().manual_seed(1)
    rows = torch.rand(VIDEOS, IN, generator=random) * 2 - 1
    if kind != "uniform":
        rows = torch.randn(VIDEOS, IN, generator=random)
    if kind == "never negative":
        rows = rows.abs()
    if kind == "one is far larger":
        rows[:, 7] = 1000
    rows *= size
    exact = rows.double() @ _codes().double().T
    found = by_integers(rows, _codes())
    # A digit's half in the last place of a row's largest value, in each of the products that are summed.
    bound = rows.abs().amax(1, keepdim=True).double() / 126 / 128**2 / 2 * _codes().double().abs().sum(1)
    assert bool(((found - exact).abs() <= bound + 1e-6 * exact.abs()).all())
    if kind != "one is far larger":
        assert float((found - exact).norm() / exact.norm()) < 1e-6


def test_zeros_have_products_of_zero():
    assert not by_integers(torch.zeros(3, IN), _codes()).any()


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_what_is_not_finite_stays_so_in_its_row(value):
    rows = torch.randn(3, IN, generator=torch.Generator().manual_seed(0))
    expected = by_integers(rows, _codes())
    rows[1, 5] = value
    found = by_integers(rows, _codes())
    assert not found[1].isfinite().any()
    assert torch.equal(found[[0, 2]], expected[[0, 2]])


@pytest.mark.parametrize("faster", [True, False])
def test_whether_integers_are_used_is_measured_and_kept(monkeypatch, tmp_path, faster):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert not integer_products.integers_are_faster(), "a library is forced"
    monkeypatch.delenv(matmul.VARIABLE)
    monkeypatch.setattr(integer_products, "SHAPE", (8, 16))
    taken = iter([1e-3, 3e-3 if faster else 1e-3] * integer_products.ROUNDS)
    monkeypatch.setattr(integer_products, "seconds_of", lambda call: (call(), next(taken))[1])
    integer_products._integers_are_faster.cache_clear()
    try:
        assert integer_products.integers_are_faster() == faster
        kept = json.loads((tmp_path / "topgb" / "matmul.json").read_text())
        assert list(kept.values()) == ["integers" if faster else "floats"]
        integer_products._integers_are_faster.cache_clear()
        assert integer_products.integers_are_faster() == faster
        assert next(taken, None) is None
    finally:
        integer_products._integers_are_faster.cache_clear()


def test_gradients_are_those_of_floats(monkeypatch):
    monkeypatch.setattr(integer_products, "integers_are_faster", lambda: pytest.fail("integers have no gradient"))
    layer = PackedLinear(IN, False, _codes())
    inputs = torch.randn(STREAMED_ROWS + 1, IN, requires_grad=True)
    layer(inputs).sum().backward()
    torch.testing.assert_close(inputs.grad[0], _codes().float().sum(0))
