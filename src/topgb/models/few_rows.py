"""Few rows times a large matrix in prediction, each number of rows in the way that reads the float32 weight fastest.

MKL copies a weight [out, in] into the order in which it multiplies, in every call. That takes a third of the time where
the rows are few. With the factors in the other order it copies the rows instead and reads the weight as it lies.

A single row takes as long as reading the weight, and neither MKL nor oneDNN reads it at the memory's speed. PyTorch's
sum of an embedding bag does: the weight's columns are the embeddings, and the row's values their shares in the sum.
"""

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from topgb.matmul_library import in_use, linear, prefers_onednn
from topgb.models.byfeature import set_child
from topgb.models.precision import computing_dtype
from topgb.models.readlinear import Fixable, fix_weights

# Weights of fewer values are copied in no time, and read from a cache.
LEAST_VALUES = 1 << 20
# For fewer rows MKL has another kernel; for more rows the copy takes a small share of the time.
FEW = range(8, 49)
# The columns are summed in parts, as many whatever the number of threads, so that the bits are the same.
MOST_PARTS, LEAST_COLUMNS = 128, 64
# The columns lie in memory besides the weight: at most this share of what is free. Larger weights are read no faster.
LEAST_FREE, MOST_VALUES = 4, 1 << 26
# Only for these instruction sets has PyTorch a kernel that reads embeddings at the memory's speed (FBGEMM).
CAPABLE = ("AVX2", "AVX512")

FreeMemory = Callable[[torch.device], int | None]


def predicts(values: torch.Tensor) -> bool:
    """Whether a linear layer of these values is computed in float32 on a CPU, without a gradient, and not compiled."""
    return (
        not torch.compiler.is_compiling()
        and values.device.type == "cpu"
        and values.dtype == computing_dtype(values.device) == torch.float32
        and not torch.is_grad_enabled()
    )


class FewRowsLinear(Fixable, nn.Linear):
    """`nn.Linear` for prediction, of the other layer's parameters: float [..., in] to float [..., out].

    Fixed, it keeps a copy of the weight, column by column, from the first call with a single row on, where
    `free_memory`, which gives the bytes that are free on a device or None, has room for it.
    """

    _columns: torch.Tensor | None
    _numbers: torch.Tensor

    def __init__(self, linear: nn.Linear, free_memory: FreeMemory):
        nn.Module.__init__(self)
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.weight, self.bias = linear.weight, linear.bias
        self._columns, self._free_memory = None, free_memory
        self.train(linear.training)

    def free(self) -> None:
        super().free()
        self._columns = None

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        if values.ndim != 2 or not predicts(values):
            return super().forward(values)
        columns = self._kept_columns() if len(values) == 1 else None
        if columns is not None:
            products = self._sum_of_columns(values[0], columns)
        elif len(values) in FEW and in_use() == "mkl" and not prefers_onednn():
            products = (self.weight @ values.T).T.contiguous()
        else:
            return linear(values, self.weight, self.bias)
        return products if self.bias is None else products.add_(self.bias)

    def _kept_columns(self) -> torch.Tensor | None:
        """The weight column by column, float32 [in, out], made now if that is wanted and memory is free."""
        if self._columns is None and self.fixed:
            free = self._free_memory(self.weight.device)
            fits = self.weight.numel() <= MOST_VALUES and (free is None or LEAST_FREE * self.weight.nbytes <= free)
            if fits and torch.backends.cpu.get_cpu_capability() in CAPABLE:
                # Ordinary tensors, which other modes may use as well.
                with torch.inference_mode(False):
                    self._numbers = torch.arange(self.in_features, dtype=torch.int32)
                    # NumPy asks the kernel for huge pages; torch.empty does not.
                    columns = torch.from_numpy(np.empty((self.in_features, self.out_features), np.float32))
                    self._columns = columns.copy_(self.weight.detach().T)
            else:
                # Later calls must give the same bits.
                self.free()
        return self._columns

    def _sum_of_columns(self, row: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
        """The products [1, out] of one row [in]."""
        starts = self._numbers[:: max(-(-self.in_features // MOST_PARTS), LEAST_COLUMNS)]
        sums = F.embedding_bag(self._numbers, columns, starts, mode="sum", per_sample_weights=row)
        return sums.sum(0, keepdim=True)


def prepare_to_predict(model: nn.Module, free_memory: FreeMemory) -> None:
    """Replace the large linear layers of `model` by `FewRowsLinear`s of the same parameters, and fix all weights.

    A layer of any subclass of `nn.Linear` stays as it is: its weight may be read elsewhere.
    """
    modules = dict(model.named_modules())
    for name, module in modules.items():
        if type(module) is nn.Linear and module.weight.numel() >= LEAST_VALUES:
            parent, _, child = name.rpartition(".")
            set_child(modules[parent], child, FewRowsLinear(module, free_memory))
    fix_weights(model)
