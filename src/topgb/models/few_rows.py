"""A few rows times a large weight by MKL, as fast in float32 as with a weight packed ahead, and without a copy of it.

MKL copies a weight [out, in] into the order in which it multiplies, in every call. That takes a third of the time where
the rows are few. With the factors in the other order it copies the rows instead and reads the weight as it lies.
"""

import torch
from torch import nn

from topgb.matmul_library import in_use
from topgb.models.byfeature import set_child
from topgb.models.precision import computing_dtype

# Weights of fewer values are copied in no time.
LEAST_VALUES = 1 << 20
# For fewer rows MKL has another kernel; for more rows the copy takes a small share of the time.
FEW = range(8, 49)


class FewRowsLinear(nn.Linear):
    """`nn.Linear` for prediction, of the other layer's parameters: float [..., in] to float [..., out]."""

    def __init__(self, linear: nn.Linear):
        nn.Module.__init__(self)
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.weight, self.bias = linear.weight, linear.bias
        self.train(linear.training)

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        if not self._pays(values):
            return super().forward(values)
        products = (self.weight @ values.T).T.contiguous()
        return products if self.bias is None else products.add_(self.bias)

    def _pays(self, values: torch.Tensor) -> bool:
        return (
            values.ndim == 2
            and len(values) in FEW
            and values.device.type == "cpu"
            and values.dtype == computing_dtype(values.device) == torch.float32
            and in_use() == "mkl"
            and not torch.is_grad_enabled()
        )


def multiply_few_rows(model: nn.Module) -> None:
    """Replace the large linear layers of `model` by `FewRowsLinear`s of the same parameters.

    A layer of any subclass of `nn.Linear` stays as it is: its weight may be read elsewhere.
    """
    modules = dict(model.named_modules())
    for name, module in modules.items():
        if type(module) is nn.Linear and module.weight.numel() >= LEAST_VALUES:
            parent, _, child = name.rpartition(".")
            set_child(modules[parent], child, FewRowsLinear(module))
