"""Linear layers of a loaded model whose weights stay packed in memory as they are in the file."""

import math
from typing import TypeGuard

import torch
import torch.nn.functional as F
from torch import nn

from topgb.devices import Precision, Resident, computes_in_bfloat16
from topgb.matmul_library import linear
from topgb.modelfile.encodings import Parts
from topgb.modelfile.header import TensorEncoding
from topgb.models.few_rows import predicts
from topgb.models.precision import computing_dtype, full_precision

QUANTISED = ("codebook", "int8", "int8_zlib", "groups")
# The kernel that reads int8 rows crashes at other addresses, which files of another writer may have.
ALIGNMENT = 16
# The float32 weights of a smaller layer fit in a cache: packing would not make it faster, only round it.
LEAST_WEIGHTS = 1 << 20
# Up to this many rows, reading the weights takes longer than multiplying (docs/benchmarks.md).
STREAMED_ROWS = 24
# Weights that are widened to float32 at once, 8 MB: they stay in the cache, and their product is still efficient.
TILE_VALUES, TILE_COLUMNS = 1 << 21, 1 << 11


class PackedLinear(nn.Module):
    """Replaces an `nn.Linear`: float32 [..., in] to float32 [..., out].

    weight = `codes` (int8 or bfloat16 [out, in and perhaps padding]) · `scales` (float32 [out]) + `offset`; `sums` are
    the exact sums of the weight's rows (float32 [out], needed with an offset and where the codes are rounded). Up to 24
    input rows the codes are read in place, with inputs and products rounded to bfloat16. Beyond, products are as
    accurate as float32's, in integers where that is faster; else the codes are widened tile by tile to float32, or
    under autocast to its dtype. Codes may be mapped from a file. The state holds only `bias` (float32 [out]), a
    parameter that is on the meta device at first.
    """

    codes: torch.Tensor
    scales: torch.Tensor | None
    sums: torch.Tensor | None

    def __init__(
        self,
        in_features: int,
        bias: bool,
        codes: torch.Tensor,
        scales: torch.Tensor | None = None,
        offset: float = 0.0,
        sums: torch.Tensor | None = None,
    ):
        super().__init__()
        self.in_features, self.out_features, self.offset = in_features, len(codes), offset
        self.bias = nn.Parameter(torch.empty(len(codes), device="meta")) if bias else None
        self.register_buffer("codes", _aligned(codes), persistent=False)
        self.register_buffer("scales", scales, persistent=False)
        self.register_buffer("sums", sums, persistent=False)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        rows, dtype = inputs.reshape(-1, self.in_features).float(), computing_dtype(inputs.device)
        with full_precision(rows.device):
            products = self._products(rows, dtype) if self.sums is None else self._centred(rows, dtype, self.sums)
            if self.bias is not None:
                products += self.bias
        return products.view(*inputs.shape[:-1], self.out_features)

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}, codes={self.codes.dtype}"

    def _can_stream(self, rows: torch.Tensor, dtype: torch.dtype) -> bool:
        if len(rows) > STREAMED_ROWS and dtype == self.codes.dtype and self.sums is None:
            return True
        if not 0 < len(rows) <= STREAMED_ROWS:
            return False
        if self.codes.dtype == torch.int8:
            return rows.device.type == "cpu" and hasattr(torch, "_weight_int8pack_mm") and _is_aligned(self.codes)
        return computes_in_bfloat16(rows.device)

    def _can_count(self, rows: torch.Tensor, dtype: torch.dtype) -> bool:
        if self.codes.dtype != torch.int8 or dtype != torch.float32 or not len(rows) or not predicts(rows):
            return False
        # Imported here, because many models are float32.
        from topgb.modelfile.integer_products import integers_are_faster

        return integers_are_faster()

    def _centred(self, rows: torch.Tensor, dtype: torch.dtype, sums: torch.Tensor) -> torch.Tensor:
        # Inputs that are never negative have a large mean, which would add up the rounding errors of a row's weights
        # and, with an offset, drown the products. So the mean is multiplied by the exact sums instead.
        means = rows.mean(1, keepdim=True)
        return self._products(rows - means, dtype).add_(means * sums)

    def _products(self, rows: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        if self._can_stream(rows, dtype):
            rows = rows.bfloat16()
            products = self._rounded_products(rows)
        elif self._can_count(rows, dtype):
            from topgb.modelfile.integer_products import by_integers

            products = by_integers(rows, self.codes)
        else:
            products = self._tiled(rows, dtype)
        if self.scales is not None:
            products.mul_(self.scales)
        return products.add_(self.offset * rows.float().sum(1, keepdim=True)) if self.offset else products

    def _rounded_products(self, rows: torch.Tensor) -> torch.Tensor:
        if missing := self.codes.shape[1] - self.in_features:
            # The kernel gives garbage, or crashes, where a row's length is no multiple of 16.
            rows = F.pad(rows, (0, missing))
        if self.codes.dtype != torch.int8:
            return F.linear(rows, self.codes).float()
        # The kernel takes only bfloat16 scales: give it ones, and scale the products in float32.
        return torch._weight_int8pack_mm(rows, self.codes, rows.new_ones(self.out_features)).float()

    def _tiled(self, rows: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        products = rows.new_zeros(len(rows), self.out_features)
        columns = min(TILE_COLUMNS, self.in_features)
        high = min(max(1, TILE_VALUES // columns), self.out_features)
        memory, factors = rows.new_empty(high * columns, dtype=dtype), rows.to(dtype)
        for top in range(0, self.out_features, high):
            own = products[:, top : top + high]
            for left in range(0, self.in_features, columns):
                codes = self.codes[top : top + high, left : min(left + columns, self.in_features)]
                tile = memory[: codes.numel()].view(codes.shape).copy_(codes)
                if dtype == torch.float32:
                    own += linear(factors[:, left : left + columns], tile, None)
                else:
                    # The sum over the tiles is float32.
                    own += factors[:, left : left + columns] @ tile.T
        return products


def _is_aligned(codes: torch.Tensor) -> bool:
    return codes.data_ptr() % ALIGNMENT == 0


def _aligned(codes: torch.Tensor) -> torch.Tensor:
    return codes if _is_aligned(codes) else codes.clone()


def is_packed(
    module: nn.Module, entry: TensorEncoding, resident: Resident, precision: Precision = "float32"
) -> TypeGuard[nn.Linear]:
    """Whether a `PackedLinear` replaces `module`, whose `weight` is stored as `entry` says.

    A model that computes in bfloat16 holds its float matrices so, rounded once, unless they are to stay `full`.
    """
    # Leave subclasses alone: the model reads the weight of a `ReadLinear`.
    if type(module) is not nn.Linear or len(entry.shape) != 2 or math.prod(entry.shape) < LEAST_WEIGHTS:
        return False
    return resident == "half" or (resident == "packed" and (entry.encoding in QUANTISED or precision == "bfloat16"))


def packed_linear(
    linear: nn.Linear, parts: Parts, entry: TensorEncoding, name: str, resident: Resident
) -> PackedLinear:
    """The `PackedLinear` for `linear`, whose weight has the checked `parts`. Raises `InputError` as `int8_rows`."""
    # Imported here, because many models are float32.
    from topgb.modelfile.rows import bfloat16_rows, int8_rows

    has_bias = linear.bias is not None
    if resident == "half" or entry.encoding not in QUANTISED:
        return PackedLinear(linear.in_features, has_bias, bfloat16_rows(parts, entry, name))
    rows = int8_rows(parts, entry, name)
    return PackedLinear(linear.in_features, has_bias, rows.codes, rows.scales, rows.offset, rows.sums)
