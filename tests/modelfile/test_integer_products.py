"""Products in integers: float32's accuracy for any sizes of values, nothing finite of what is not, and who chooses."""

import json

import pytest
import torch

from topgb import matmul_library as matmul
from topgb.modelfile import integer_products
from topgb.modelfile.integer_products import by_integers, integers_are_exact
from topgb.modelfile.packed_linear import STREAMED_ROWS, PackedLinear

pytestmark = pytest.mark.numeric

VIDEOS, IN, OUT = 30, 1000, 40
exact = pytest.mark.skipif(not integers_are_exact(), reason="products of int8 saturate on this processor")


def _codes(seed: int = 0) -> torch.Tensor:
    return torch.randint(-127, 128, (OUT, IN), dtype=torch.int8, generator=torch.Generator().manual_seed(seed))


@exact
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
    expected = rows.double() @ _codes().double().T
    found = by_integers(rows, _codes())
    # A digit's half in the last place of a row's largest value, in each of the products that are summed.
    bound = rows.abs().amax(1, keepdim=True).double() / 126 / 128**2 / 2 * _codes().double().abs().sum(1)
    assert bool(((found - expected).abs() <= bound + 1e-6 * expected.abs()).all())
    if kind != "one is far larger":
        assert float((found - expected).norm() / expected.norm()) < 1e-6


@exact
@pytest.mark.parametrize("shape", [(1, 1), (OUT, 1), (1, 17), (OUT, 65), (OUT, 64)])
def test_sizes_of_one(monkeypatch, shape):
    monkeypatch.setattr(integer_products, "COLUMNS", 64)
    rows = torch.randn(VIDEOS, shape[1], generator=torch.Generator().manual_seed(1))
    codes = _codes()[: shape[0], : shape[1]].contiguous()
    torch.testing.assert_close(by_integers(rows, codes), rows @ codes.float().T, rtol=1e-5, atol=1e-3)


def test_zeros_have_products_of_zero():
    assert not by_integers(torch.zeros(3, IN), _codes()).any()


@exact
@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_what_is_not_finite_stays_so_in_its_row(value):
    rows = torch.randn(3, IN, generator=torch.Generator().manual_seed(0))
    expected = by_integers(rows, _codes())
    rows[1, 5] = value
    found = by_integers(rows, _codes())
    assert not found[1].isfinite().any()
    assert torch.equal(found[[0, 2]], expected[[0, 2]])


def test_sums_that_saturate_are_found(monkeypatch):
    """As oneDNN's do on processors with AVX2 alone: unsigned digits, two products in 16 bits."""

    def saturating(digits, codes):
        unsigned, codes = digits.long() + 128, codes.long()
        pairs = unsigned[:, 0::2, None] * codes[None, 0::2] + unsigned[:, 1::2, None] * codes[None, 1::2]
        return (pairs.clamp(-(2**15), 2**15 - 1).sum(1) - 128 * codes.sum(0)).int()

    monkeypatch.setattr(torch, "_int_mm", saturating)
    monkeypatch.delenv(matmul.VARIABLE)
    monkeypatch.setattr(integer_products, "_integers_are_faster", lambda threads: pytest.fail("they are not exact"))
    integers_are_exact.cache_clear()
    try:
        assert not integer_products.integers_are_faster()
    finally:
        integers_are_exact.cache_clear()


@exact
@pytest.mark.parametrize("faster", [True, False])
def test_whether_integers_are_used_is_measured_and_kept(monkeypatch, tmp_path, faster):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert not integer_products.integers_are_faster(), "a library is forced"
    monkeypatch.delenv(matmul.VARIABLE)
    monkeypatch.setattr(integer_products, "SHAPE", (8, 16))
    taken = iter([1e-3, 3e-3 if faster else 1e-3] * matmul.ROUNDS)
    monkeypatch.setattr(matmul, "seconds_of", lambda call: (call(), next(taken))[1])
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
