"""Few rows times a large weight: the products of `nn.Linear` to rounding, and `nn.Linear` itself where others train."""

import copy
import pickle

import pytest
import torch
from torch import nn

from topgb import matmul_library as matmul
from topgb.models import few_rows
from topgb.models.few_rows import FEW, FewRowsLinear, by_blocks, prepare_to_predict
from topgb.models.readlinear import ReadLinear

pytestmark = pytest.mark.numeric

IN, OUT = 300, 67


@pytest.fixture(autouse=True)
def _large(monkeypatch):
    monkeypatch.setattr(few_rows, "LARGE_VALUES", IN * OUT)


def _plenty(device: torch.device) -> None:
    """It is not known how much memory is free."""


@pytest.fixture
def linear() -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(IN, OUT)


@pytest.fixture
def as_linear(monkeypatch) -> list[int]:
    """The numbers of rows that were left to `F.linear`."""
    rows: list[int] = []
    plain = nn.functional.linear

    def noted(values, *weights):
        rows.append(len(values))
        return plain(values, *weights)

    monkeypatch.setattr(nn.functional, "linear", noted)
    return rows


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("fixed", [True, False])
def test_products_are_those_of_linear(linear, as_linear, bias, fixed):
    if not bias:
        linear.bias = None
    few = FewRowsLinear(linear, _plenty)
    if fixed:
        few.fix()
    with torch.no_grad():
        for rows in (1, 7, FEW[0], 20, FEW[-1], FEW[-1] + 1):
            values = torch.randn(rows, IN)
            expected = (values.double() @ linear.weight.double().T).float()
            expected = expected if linear.bias is None else expected + linear.bias
            found = few(values)
            assert found.is_contiguous()
            # Sums of 300 products of float32 in any order.
            torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
        assert few(torch.randn(2, FEW[0], IN)).shape == (2, FEW[0], OUT)
        assert few(torch.zeros(0, IN)).shape == (0, OUT)
    # One row is multiplied by blocks, few rows from the other side.
    assert as_linear == [7, FEW[-1] + 1, 2, 0]


def test_gradients_and_other_dtypes_are_linears(linear):
    few = FewRowsLinear(linear, _plenty).requires_grad_(True)
    few.fix()
    for rows in (1, FEW[0]):
        values = torch.randn(rows, IN)
        few(values).sum().backward()
        assert linear.weight.grad is not None
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(few(values), linear(values))


@pytest.mark.parametrize("short", [0, IN])
@pytest.mark.parametrize("with_bias", [True, False])
@pytest.mark.parametrize("out_features", [1, 8, 64, 70, OUT])
def test_one_row_by_blocks_has_the_products_of_the_whole(monkeypatch, out_features, with_bias, short):
    monkeypatch.setattr(few_rows, "MOST_SHORT", short)
    torch.manual_seed(0)
    # 8 is the least number of blocks, of which 67 leave 3 rows, and 1 is none; 70 are 14 blocks.
    row, weight = torch.randn(1, IN), torch.randn(out_features, IN)
    bias = torch.randn(out_features) if with_bias else None
    before = None if bias is None else bias.clone()
    expected = (row.double() @ weight.double().T).float()
    for path in ("mkl", "onednn"):
        matmul.use(path)
        try:
            found = by_blocks(row, weight, bias)
            assert torch.get_float32_matmul_precision() == ("highest" if path == "mkl" else "medium")
        finally:
            matmul.use("mkl")
        torch.testing.assert_close(found, expected if bias is None else expected + bias, rtol=1e-5, atol=1e-5)
        assert bias is None or torch.equal(bias, before)


@pytest.fixture
def use():
    """`matmul.use` in this test."""
    yield matmul.use
    matmul.use("mkl")


onednn = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="this PyTorch has no oneDNN")


@onednn
@pytest.mark.parametrize("whose", ["the prediction's", "the process's"])
@pytest.mark.parametrize("bias", [True, False])
def test_onednn_multiplies_by_a_copy_in_its_own_order(linear, monkeypatch, use, bias, whose):
    if not bias:
        linear.bias = None
    if whose == "the process's":
        use("onednn")
    else:
        monkeypatch.setattr(matmul, "_preferred", "onednn")
    few = FewRowsLinear(linear, _plenty)
    few.fix()
    with torch.inference_mode():
        for rows in (1, 2, 7, 32, 33, 130):
            values = torch.randn(rows, IN)
            found = few(values)
            expected = nn.functional.linear(values.double(), linear.weight.double()).float()
            expected = expected if linear.bias is None else expected + linear.bias
            # Products of 300 pairs, whose sizes sum to about 7, may each be rounded, and added one by one.
            torch.testing.assert_close(found, expected, rtol=0, atol=7 * 300 * 2**-24)
            assert torch.equal(found, few(values))
            assert (few._packed is None) == (rows == 1)
        # The copy is dropped with the weights it was made of, and is no part of a copy of the model.
        state = nn.Linear(IN, OUT, bias=bias).state_dict()
        for copied in (copy.deepcopy(few), pickle.loads(pickle.dumps(few))):
            assert copied._packed is None
            assert torch.equal(copied(values), found)
        few.load_state_dict(state)
        assert few._packed is None
        torch.testing.assert_close(few(values), linear(values), rtol=0, atol=7 * 300 * 2**-24)


@onednn
def test_without_memory_onednn_reads_the_weight_as_it_lies(linear, monkeypatch):
    free = [linear.weight.nbytes]
    monkeypatch.setattr(matmul, "_preferred", "onednn")
    few = FewRowsLinear(linear, lambda device: free[0])
    few.fix()
    values = torch.randn(5, IN)
    with torch.inference_mode():
        first = few(values)
        free[0] *= 100
        assert few._packed is None
        assert torch.equal(few(values), first)
        assert few._packed is None, "other bits than before"


@pytest.mark.parametrize("faster", [True, False])
def test_whether_blocks_are_read_is_measured_and_kept(linear, as_linear, monkeypatch, tmp_path, faster):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv(matmul.VARIABLE)
    monkeypatch.setattr(few_rows, "SHAPES", ((8, 16), (16, 8)))
    monkeypatch.setattr(matmul, "seconds_of", lambda call: 2e-3 - 1e-3 * faster * (call.func is by_blocks))
    few_rows._blocks_are_faster.cache_clear()
    try:
        assert few_rows.blocks_are_faster() == faster
        monkeypatch.setattr(few_rows, "_faster_for_one_row", lambda path: pytest.fail("it is kept"))
        few_rows._blocks_are_faster.cache_clear()
        few = FewRowsLinear(linear, _plenty)
        row = torch.randn(1, IN)
        with torch.inference_mode():
            torch.testing.assert_close(few(row), linear(row), rtol=1e-5, atol=1e-5)
        # The plain layer, and this one if it does not read blocks.
        assert as_linear == [1] * (2 - faster)
        assert few_rows.blocks_are_faster() == faster
    finally:
        few_rows._blocks_are_faster.cache_clear()


def test_large_plain_layers_are_replaced_and_keep_their_parameters(linear, monkeypatch):
    monkeypatch.setattr(few_rows, "LEAST_VALUES", IN * OUT)
    read, small = ReadLinear(IN, OUT), nn.Linear(IN, OUT - 1)
    model = nn.ModuleDict({"large": linear, "read": read, "inner": nn.Sequential(nn.Linear(IN, OUT), small)})
    before = dict(model.state_dict())
    prepare_to_predict(model, _plenty)
    assert [type(model["large"]), type(model["inner"][0])] == [FewRowsLinear] * 2
    assert model["read"] is read
    assert model["inner"][1] is small
    assert model["large"].weight is linear.weight
    assert list(model.state_dict()) == list(before)
    assert all(model[name].fixed for name in ("large", "read"))
