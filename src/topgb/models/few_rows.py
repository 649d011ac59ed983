"""Few rows times a large matrix in prediction, each number of rows in the way that reads the float32 weight fastest.

MKL copies a weight [out, in] into the order in which it multiplies, in every call. That takes a third of the time where
the rows are few. With the factors in the other order it copies the rows instead and reads the weight as it lies. oneDNN
takes a weight that was copied once.

A single row takes as long as reading the weight, and on many processors neither MKL nor oneDNN reads it at the memory's
speed. PyTorch's sum of an embedding bag does: the weight's columns are the embeddings, and the row's values their
shares in the sum. Which is faster is measured.
"""

from collections.abc import Callable
from functools import cache, partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from topgb.matmul_library import (
    LEAST_GAIN,
    ROUNDS,
    in_use,
    is_forced,
    kept_choice,
    linear,
    onednn_linear,
    onednn_packed,
    prefers_onednn,
    seconds_of,
)
from topgb.models.byfeature import set_child
from topgb.models.precision import computing_dtype
from topgb.models.readlinear import Fixable, fix_weights

# Smaller weights are read from a cache, whoever multiplies.
LEAST_VALUES = 1 << 18
# MKL copies weights of fewer values in no time, and an embedding bag begins late.
LARGE_VALUES = 1 << 20
# For fewer rows MKL has another kernel; for more rows the copy takes a small share of the time.
FEW = range(8, 49)
# The columns are summed in parts, as many whatever the number of threads, so that the bits are the same.
MOST_PARTS, LEAST_COLUMNS = 128, 64
# Copies lie in memory besides the weight: at most this share of what is free. Larger weights are read no faster.
LEAST_FREE, MOST_VALUES = 4, 1 << 26
# oneDNN multiplies rows of more values no faster by its own order.
MOST_PACKED_WIDTH = 1 << 12
# Only for these instruction sets has PyTorch a kernel that reads embeddings at the memory's speed (FBGEMM).
CAPABLE = ("AVX2", "AVX512")
# Weights [out, in] like those of a hidden layer and of a mixture of experts, whose reading is timed.
SHAPES = ((512, 8192), (8192, 512))

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

    Fixed, it keeps copies of the weight where `free_memory`, which gives the bytes that are free on a device or None,
    has room for them: column by column from the first call with a single row on, if this machine reads it faster so,
    and in oneDNN's order from the first call with several rows on, if oneDNN multiplies.
    """

    _columns: torch.Tensor | None
    _packed: torch.Tensor | None
    _numbers: torch.Tensor
    _starts: torch.Tensor

    def __init__(self, linear: nn.Linear, free_memory: FreeMemory):
        nn.Module.__init__(self)
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.weight, self.bias = linear.weight, linear.bias
        self._columns = self._packed = None
        self._free_memory = free_memory
        self.train(linear.training)

    def __getstate__(self) -> dict[str, Any]:
        # A copy of the layer makes copies of its own weight; oneDNN's cannot be pickled.
        return {**self.__dict__, "_columns": None, "_packed": None}

    def free(self) -> None:
        super().free()
        self._columns = self._packed = None

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        if values.ndim != 2 or not predicts(values):
            return super().forward(values)
        rows = len(values)
        columns = self._kept_columns() if rows == 1 else None
        if columns is not None:
            products = sum_of_columns(values[0], columns, self._numbers, self._starts)
        elif in_use() == "onednn" or prefers_onednn():
            # A single row is read as fast from the weight as it lies.
            packed = self._kept_packed() if rows > 1 else None
            return onednn_linear(values, self.weight if packed is None else packed, self.bias)
        elif rows in FEW and self.weight.numel() >= LARGE_VALUES:
            products = (self.weight @ values.T).T.contiguous()
        else:
            return linear(values, self.weight, self.bias)
        return products if self.bias is None else products.add_(self.bias)

    def _kept_columns(self) -> torch.Tensor | None:
        """The weight column by column, float32 [in, out], made now if that is wanted and memory is free."""
        if self._columns is None and self.fixed:
            fits = LARGE_VALUES <= self.weight.numel() <= MOST_VALUES and columns_are_faster()
            if fits and self._has_room():
                # Ordinary tensors, which other modes may use as well.
                with torch.inference_mode(False):
                    self._numbers, self._starts = parts_of_sum(self.in_features)
                    # NumPy asks the kernel for huge pages; torch.empty does not.
                    columns = torch.from_numpy(np.empty((self.in_features, self.out_features), np.float32))
                    self._columns = columns.copy_(self.weight.detach().T)
        return self._columns

    def _kept_packed(self) -> torch.Tensor | None:
        """The weight in oneDNN's order, made now if that is wanted and memory is free."""
        if self._packed is None and self.fixed and self.in_features <= MOST_PACKED_WIDTH and self._has_room():
            with torch.inference_mode(False):
                self._packed = onednn_packed(self.weight.detach())
        return self._packed

    def _has_room(self) -> bool:
        """Whether a copy of the weight may be kept; if not, never again, as later calls must give the same bits."""
        free = self._free_memory(self.weight.device)
        if free is not None and LEAST_FREE * self.weight.nbytes > free:
            self.free()
        return self.fixed


def columns_are_faster() -> bool:
    """Whether an embedding bag over a large weight's columns reads it clearly faster here than a product does.

    That is measured once for this machine; where it cannot be kept, or a library is forced, the columns are read.
    """
    if torch.backends.cpu.get_cpu_capability() not in CAPABLE:
        return False
    return _columns_are_faster(torch.get_num_threads(), "onednn" if prefers_onednn() else in_use())


@cache
def _columns_are_faster(threads: int, path: str) -> bool:
    if is_forced():
        return True
    name = f"one row by columns or {path}, "
    return kept_choice(name, ("columns", path), lambda: _faster_for_one_row(path), lambda: "columns")[0] == "columns"


@torch.inference_mode()
def _faster_for_one_row(path: str) -> str:
    by_columns = by_weight = 0.0
    for out_features, in_features in SHAPES:
        weight, columns = torch.ones(out_features, in_features), torch.ones(in_features, out_features)
        row, parts = torch.ones(1, in_features), parts_of_sum(in_features)
        multiply = onednn_linear if path == "onednn" else F.linear
        # In turns, because a neighbour's work disturbs for a while.
        times = [
            (
                seconds_of(partial(sum_of_columns, row[0], columns, *parts)),
                seconds_of(partial(multiply, row, weight, None)),
            )
            for _ in range(ROUNDS)
        ]
        best = [min(each) for each in zip(*times, strict=True)]
        by_columns, by_weight = by_columns + best[0], by_weight + best[1]
    return "columns" if by_weight > LEAST_GAIN * by_columns else path


def parts_of_sum(in_features: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The columns' numbers, int32 [in], and the places where the parts of the sum start."""
    numbers = torch.arange(in_features, dtype=torch.int32)
    return numbers, numbers[:: max(-(-in_features // MOST_PARTS), LEAST_COLUMNS)].contiguous()


def sum_of_columns(
    row: torch.Tensor, columns: torch.Tensor, numbers: torch.Tensor, starts: torch.Tensor
) -> torch.Tensor:
    """The products [1, out] of one row [in] and columns [in, out], with `parts_of_sum`, float32."""
    sums = F.embedding_bag(numbers, columns, starts, mode="sum", per_sample_weights=row)
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
