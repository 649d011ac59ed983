"""Few rows times a large matrix in prediction, each number of rows in the way that reads the float32 weight fastest.

MKL copies a weight [out, in] into the order in which it multiplies, in every call. That takes a third of the time where
the rows are few. With the factors in the other order it copies the rows instead and reads the weight as it lies. oneDNN
takes a weight that was copied once.

A single row takes as long as reading the weight, and on many processors neither MKL nor oneDNN reads it at the memory's
speed: MKL does it with one thread. As a batch of products with blocks of the weight's rows it uses all threads. Which
is faster is measured.
"""

from collections.abc import Callable
from functools import cache, partial

import torch
import torch.nn.functional as F
from torch import nn

from topgb.matmul_library import (
    LEAST_GAIN,
    by_mkl,
    in_use,
    is_forced,
    kept_choice,
    least_seconds,
    onednn_linear,
    onednn_packed,
    prefers_onednn,
)
from topgb.models.byfeature import set_child
from topgb.models.precision import computing_dtype
from topgb.models.readlinear import FreeMemory, KeepsPacked, fix_weights

# Smaller weights are read from a cache, whoever multiplies.
LEAST_VALUES = 1 << 18
# MKL copies weights of fewer values in no time.
LARGE_VALUES = 1 << 20
# For fewer rows MKL has another kernel; for more rows the copy takes a small share of the time.
FEW = range(8, 49)
# Blocks of a weight's rows, as many whatever the number of threads.
LEAST_BLOCKS, MOST_BLOCKS = 8, 32
# MKL reads rows of so few values faster on the product's left.
MOST_SHORT = 1 << 11
# Weights [out, in] like those of a hidden layer and of a mixture of experts, whose reading is timed: 33 MB each, so
# that the other one has left the caches of most processors, as in a model.
SHAPES = ((512, 16384), (16384, 512))


def predicts(values: torch.Tensor) -> bool:
    """Whether a linear layer of these values is computed in float32 on a CPU, without a gradient, and not compiled."""
    return (
        not torch.compiler.is_compiling()
        and values.device.type == "cpu"
        and values.dtype == computing_dtype(values.device) == torch.float32
        and not torch.is_grad_enabled()
    )


class FewRowsLinear(KeepsPacked, nn.Linear):
    """`nn.Linear` for prediction, of the other layer's parameters: float [..., in] to float [..., out].

    Fixed, it keeps a copy of the weight in oneDNN's order from the first call with several rows on, if oneDNN
    multiplies and `free_memory`, which gives the bytes that are free on a device or None, has room for it.
    """

    def __init__(self, linear: nn.Linear, free_memory: FreeMemory):
        nn.Module.__init__(self)
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.weight, self.bias = linear.weight, linear.bias
        self._free_memory = free_memory
        self.train(linear.training)

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        if values.ndim != 2 or not predicts(values):
            return super().forward(values)
        rows = len(values)
        if rows == 1 and blocks_are_faster():
            return by_blocks(values, self.weight, self.bias)
        if in_use() == "onednn" or prefers_onednn():
            # A single row is read as fast from the weight as it lies.
            packed = self.kept_packed(self.weight, onednn_packed, self._free_memory) if rows > 1 else None
            return onednn_linear(values, self.weight if packed is None else packed, self.bias)
        if rows in FEW and self.weight.numel() >= LARGE_VALUES:
            products = (self.weight @ values.T).T.contiguous()
            return products if self.bias is None else products.add_(self.bias)
        return F.linear(values, self.weight, self.bias)


def blocks_are_faster() -> bool:
    """Whether blocks of a large weight are clearly faster to read here than the weight as a whole, for a single row.

    That is measured once for this machine; where it cannot be kept, or a library is forced, blocks are read.
    """
    return _blocks_are_faster(torch.get_num_threads(), "onednn" if prefers_onednn() else in_use())


@cache
def _blocks_are_faster(threads: int, path: str) -> bool:
    if is_forced():
        return True
    name = f"one row by blocks or {path}, "
    return kept_choice(name, ("blocks", path), lambda: _faster_for_one_row(path), lambda: "blocks")[0] == "blocks"


@torch.inference_mode()
def _faster_for_one_row(path: str) -> str:
    pairs = [(torch.ones(1, shape[1]), torch.ones(shape)) for shape in SHAPES]
    whole: Callable[..., torch.Tensor] = onednn_linear if path == "onednn" else F.linear
    taken = least_seconds([partial(way, *pair, bias=None) for way in (by_blocks, whole) for pair in pairs])
    by_block, at_once = sum(taken[: len(pairs)]), sum(taken[len(pairs) :])
    return "blocks" if at_once > LEAST_GAIN * by_block else path


def by_blocks(row: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """`F.linear` of one float32 row [1, in] and a weight [out, in]: float32 [1, out]. It has no gradient."""
    out_features, in_features = weight.shape
    count = _blocks_of(out_features)
    high = out_features // count
    inside = count * high
    blocks = weight[:inside].view(count, high, in_features)
    products = row.new_zeros(out_features) if bias is None else bias.clone()
    # oneDNN reads blocks no faster than the whole.
    with by_mkl():
        if in_features <= MOST_SHORT:
            products[:inside].view(count, high, 1).baddbmm_(blocks, row.T.expand(count, in_features, 1))
        else:
            columns = blocks.transpose(1, 2)
            products[:inside].view(count, 1, high).baddbmm_(row.expand(count, 1, in_features), columns)
        if inside < out_features:
            products[inside:].addmv_(weight[inside:], row[0])
    return products[None]


@cache
def _blocks_of(rows: int) -> int:
    """Into how many equal blocks to divide a weight's rows: without a rest, if that can be."""
    return next((count for count in range(MOST_BLOCKS, LEAST_BLOCKS, -1) if rows % count == 0), LEAST_BLOCKS)


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
