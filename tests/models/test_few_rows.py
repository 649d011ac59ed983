"""Few rows times a large weight: the products of `nn.Linear` to rounding, and `nn.Linear` itself where others train."""

import pytest
import torch
from torch import nn

from topgb import matmul_library as matmul
from topgb.models import few_rows
from topgb.models.few_rows import FEW, FewRowsLinear, multiply_few_rows
from topgb.models.readlinear import ReadLinear

pytestmark = pytest.mark.numeric

IN, OUT = 300, 70


@pytest.fixture
def linear() -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(IN, OUT)


@pytest.fixture
def turned(monkeypatch) -> list[int]:
    """The numbers of rows that were multiplied from the other side."""
    rows: list[int] = []
    pays = FewRowsLinear._pays

    def noted(self, values):
        if pays(self, values):
            rows.append(len(values))
        return pays(self, values)

    monkeypatch.setattr(FewRowsLinear, "_pays", noted)
    return rows


@pytest.mark.parametrize("bias", [True, False])
def test_products_are_those_of_linear(linear, turned, bias):
    if not bias:
        linear.bias = None
    few = FewRowsLinear(linear)
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
    assert turned == [FEW[0], 20, FEW[-1]]


def test_gradients_other_dtypes_and_other_libraries_are_linears(linear, turned, monkeypatch):
    few, values = FewRowsLinear(linear), torch.randn(FEW[0], IN)
    few(values).sum().backward()
    assert linear.weight.grad is not None
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(few(values), linear(values))
    monkeypatch.setattr(matmul, "_used", "onednn")
    with torch.no_grad():
        assert torch.equal(few(values), linear(values))
    assert turned == []


def test_large_plain_layers_are_replaced_and_keep_their_parameters(linear, monkeypatch):
    monkeypatch.setattr(few_rows, "LEAST_VALUES", IN * OUT)
    read, small = ReadLinear(IN, OUT), nn.Linear(IN, OUT - 1)
    model = nn.ModuleDict({"large": linear, "read": read, "inner": nn.Sequential(nn.Linear(IN, OUT), small)})
    before = dict(model.state_dict())
    multiply_few_rows(model)
    assert [type(model["large"]), type(model["inner"][0])] == [FewRowsLinear] * 2
    assert model["read"] is read
    assert model["inner"][1] is small
    assert model["large"].weight is linear.weight
    assert list(model.state_dict()) == list(before)
