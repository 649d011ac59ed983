"""Products in integers: float32's accuracy for any sizes of values, nothing finite of what is not, and who chooses."""

import copy
import json
import pickle

import pytest
import torch
import torch.nn.functional as F

from topgb import matmul_library as matmul
from topgb.modelfile import integer_products
from topgb.modelfile import packed_linear as packed_module
from topgb.modelfile.integer_products import LARGEST, by_integers, integers_are_exact, packed_codes
from topgb.modelfile.packed_linear import COUNTED_ROWS, STREAMED_ROWS, PackedLinear
from topgb.models.readlinear import keeping_nothing

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
    found = by_integers(rows, packed_codes(_codes()))
    # What a unit of a row's largest value is, in each of the products that are summed.
    bound = rows.abs().amax(1, keepdim=True).double() / LARGEST * _codes().double().abs().sum(1)
    assert bool(((found - expected).abs() <= bound + 1e-6 * expected.abs()).all())
    if kind != "one is far larger":
        assert float((found - expected).norm() / expected.norm()) < 1e-6


@exact
@pytest.mark.parametrize("shape", [(1, 1), (OUT, 1), (1, 17), (OUT, 65), (OUT, 64)])
def test_sizes_of_one(monkeypatch, shape):
    monkeypatch.setattr(integer_products, "COLUMNS", 64)
    rows = torch.randn(VIDEOS, shape[1], generator=torch.Generator().manual_seed(1))
    codes = _codes()[: shape[0], : shape[1]].contiguous()
    torch.testing.assert_close(by_integers(rows, packed_codes(codes)), rows @ codes.float().T, rtol=1e-5, atol=1e-3)
    assert by_integers(rows[:0], packed_codes(codes)).shape == (0, len(codes))


@exact
def test_zeros_have_products_of_zero():
    assert not by_integers(torch.zeros(3, IN), packed_codes(_codes())).any()


@exact
@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_what_is_not_finite_stays_so_in_its_row(value):
    rows = torch.randn(3, IN, generator=torch.Generator().manual_seed(0))
    packed = packed_codes(_codes())
    expected = by_integers(rows, packed)
    rows[1, 5] = value
    found = by_integers(rows, packed)
    assert not found[1].isfinite().any()
    assert torch.equal(found[[0, 2]], expected[[0, 2]])


def test_sums_that_saturate_are_found(monkeypatch):
    """As oneDNN's do on processors with AVX2 alone: two products in 16 bits."""

    def saturating(digits, block, packed):
        unsigned, codes = digits.long(), block.long()
        pairs = unsigned[:, 0::2, None] * codes[None, 0::2] + unsigned[:, 1::2, None] * codes[None, 1::2]
        return (pairs.clamp(-(2**15), 2**15 - 1).sum(1) - integer_products.MIDDLE * codes.sum(0)).float()

    def codes_as_they_are(codes):
        return integer_products.PackedCodes((codes.T,), torch.ones(len(codes)), torch.zeros(len(codes)))

    monkeypatch.setattr(integer_products, "packed_codes", codes_as_they_are)
    monkeypatch.setattr(integer_products, "_exact_products", saturating)
    monkeypatch.delenv(matmul.VARIABLE)
    monkeypatch.setattr(packed_module, "_integers_are_faster", lambda threads: pytest.fail("they are not exact"))
    integers_are_exact.cache_clear()
    try:
        assert not packed_module.integers_are_faster()
    finally:
        integers_are_exact.cache_clear()


@pytest.mark.parametrize("error", [AttributeError, RuntimeError, NotImplementedError])
def test_a_pytorch_without_such_products_has_none(monkeypatch, error):
    def fail(codes):
        raise error("no such product")

    monkeypatch.setattr(integer_products, "packed_codes", fail)
    integers_are_exact.cache_clear()
    try:
        assert not integers_are_exact()
    finally:
        integers_are_exact.cache_clear()


@exact
@pytest.mark.parametrize("gain", [3.0, 1.0, 1e-3], ids=["faster", "as fast", "a plain loop"])
def test_whether_integers_are_used_is_measured_and_kept(monkeypatch, tmp_path, gain):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert not packed_module.integers_are_faster(), "a library is forced"
    monkeypatch.delenv(matmul.VARIABLE)
    monkeypatch.setattr(packed_module, "TIMED", tuple(((8, 16), least) for _, least in packed_module.TIMED))
    # Floats with few and with many rows, then integers; if these were a plain loop, the larger codes are not tried.
    taken = iter(([gain * 1e-3] * 2 + [1e-3] * 2) * matmul.ROUNDS * (1 if gain < 1e-2 else 2))
    monkeypatch.setattr(matmul, "seconds_of", lambda call: (call(), next(taken))[1])
    packed_module._integers_are_faster.cache_clear()
    try:
        assert packed_module.integers_are_faster() == (gain > 1)
        kept = json.loads((tmp_path / "topgb" / "matmul.json").read_text())
        assert list(kept.values()) == ["integers" if gain > 1 else "floats"]
        packed_module._integers_are_faster.cache_clear()
        assert packed_module.integers_are_faster() == (gain > 1)
        assert next(taken, None) is None
    finally:
        packed_module._integers_are_faster.cache_clear()


@pytest.fixture
def fixed_layer(monkeypatch) -> PackedLinear:
    """A fixed layer, where integers are faster."""
    monkeypatch.setattr(packed_module, "integers_are_faster", lambda: True)
    layer = PackedLinear(IN, False, F.pad(_codes(), (0, -IN % 16), value=99), torch.linspace(0.5, 2, OUT))
    layer.fix()
    return layer


def _rows(count: int) -> torch.Tensor:
    return torch.randn(count, IN, generator=torch.Generator().manual_seed(1))


def _expected(rows: torch.Tensor) -> torch.Tensor:
    return rows.double() @ _codes().double().T * torch.linspace(0.5, 2, OUT)


def _error(found: torch.Tensor, rows: torch.Tensor) -> float:
    return float((found - _expected(rows)).norm() / _expected(rows).norm())


@exact
@torch.no_grad()
@pytest.mark.parametrize("rows", [COUNTED_ROWS, STREAMED_ROWS, STREAMED_ROWS + 1])
def test_a_fixed_layer_counts_from_eight_rows_on(fixed_layer, rows):
    assert _error(fixed_layer(_rows(rows)), _rows(rows)) < 1e-6
    assert fixed_layer._packed is not None
    one_fewer = fixed_layer(_rows(COUNTED_ROWS - 1))
    assert 1e-6 < _error(one_fewer, _rows(COUNTED_ROWS - 1)) < 1e-2, "rounded to bfloat16"


@exact
@torch.no_grad()
def test_nothing_is_packed_for_a_few_rows_or_in_a_trial(fixed_layer):
    fixed_layer(_rows(COUNTED_ROWS - 1))
    assert fixed_layer._packed is None
    with keeping_nothing():
        fixed_layer(_rows(COUNTED_ROWS))
    assert fixed_layer._packed is None
    fixed_layer(_rows(COUNTED_ROWS))
    assert fixed_layer._packed is not None
    fixed_layer.train()
    assert fixed_layer._packed is None


@exact
@torch.no_grad()
def test_without_room_a_layer_never_packs(fixed_layer, monkeypatch):
    monkeypatch.setattr(packed_module, "free_memory", lambda device: 3 * OUT * IN)
    before = fixed_layer(_rows(STREAMED_ROWS + 1))
    monkeypatch.undo()
    assert fixed_layer._packed is None
    assert not fixed_layer.fixed
    assert torch.equal(fixed_layer(_rows(STREAMED_ROWS + 1)), before), "later calls give the same bits"


@exact
@torch.no_grad()
def test_a_copy_of_a_layer_packs_anew(fixed_layer):
    expected = fixed_layer(_rows(COUNTED_ROWS))
    for twin in (copy.deepcopy(fixed_layer), pickle.loads(pickle.dumps(fixed_layer))):
        assert twin._packed is None
        assert torch.equal(twin(_rows(COUNTED_ROWS)), expected)


def test_gradients_are_those_of_floats(fixed_layer):
    inputs = torch.randn(STREAMED_ROWS + 1, IN, requires_grad=True)
    fixed_layer(inputs).sum().backward()
    assert fixed_layer._packed is None
    weight = _codes().float() * torch.linspace(0.5, 2, OUT)[:, None]
    torch.testing.assert_close(inputs.grad[0], weight.sum(0), rtol=1e-5, atol=1e-3)
