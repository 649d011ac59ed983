"""Linear layers of a loaded model that stay as small in memory as they are in the file."""

import math
from typing import Literal, TypeGuard, get_args

import torch
import torch.nn.functional as F
from torch import nn

from topgb.devices import computes_in_bfloat16
from topgb.errors import InputError
from topgb.modelfile.encodings import Parts
from topgb.modelfile.header import TensorEncoding
from topgb.modelfile.rows import bfloat16_rows, int8_rows
from topgb.models.precision import full_precision

Resident = Literal["packed", "half", "full"]
RESIDENT: tuple[str, ...] = get_args(Resident)
QUANTISED = ("codebook", "int8", "int8_zlib", "groups")
# The kernel that reads int8 rows crashes where they lie at other addresses, as in another writer's files they may.
ALIGNMENT = 16
# A smaller layer's float32 weights fit in a cache: packed they would be no faster, only rounded.
LEAST_WEIGHTS = 1 << 20
# Up to so many rows reading the weights takes longer than multiplying (docs/benchmarks.md).
STREAMED_ROWS = 24
# Weights widened to float32 at once: 16 MB, few enough for the cache and enough for both cores.
TILE_ROWS, TILE_COLUMNS = 256, 16384


class PackedLinear(nn.Module):
    """Called as the `nn.Linear` it stands for: float32 [..., in] to float32 [..., out].

    weight = `codes` (int8 or bfloat16 [out, in and perhaps padding]) · `scales` (float32 [out]) + `offset`; `sums` are
    the weight's rows summed (float32 [out], needed with an offset). For up to 24 rows the codes are read as they lie,
    with inputs and products rounded to bfloat16; for more they are widened tile by tile and everything is float32.
    Codes may be mapped from a file. `bias` (float32 [out]) is a parameter, on the meta device at first; nothing else is
    in the state.
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
        rows = inputs.reshape(-1, self.in_features).float()
        with full_precision(rows.device):
            products = self._streamed(rows) if self._can_stream(rows) else self._tiled(rows)
            if self.bias is not None:
                products += self.bias
        return products.view(*inputs.shape[:-1], self.out_features)

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}, codes={self.codes.dtype}"

    def _can_stream(self, rows: torch.Tensor) -> bool:
        if not 0 < len(rows) <= STREAMED_ROWS:
            return False
        if self.codes.dtype == torch.int8:
            return rows.device.type == "cpu" and hasattr(torch, "_weight_int8pack_mm") and _is_aligned(self.codes)
        return computes_in_bfloat16(rows.device)

    def _streamed(self, rows: torch.Tensor) -> torch.Tensor:
        if self.sums is None:
            return self._scaled(self._rounded_products(rows.bfloat16()))
        # A large offset would drown what it is added to in the rounding, but not where inputs sum to nothing.
        means = rows.mean(1, keepdim=True)
        centred = (rows - means).bfloat16()
        products = self._scaled(self._rounded_products(centred))
        return products.add_(self.offset * centred.float().sum(1, keepdim=True)).add_(means * self.sums)

    def _rounded_products(self, rows: torch.Tensor) -> torch.Tensor:
        # The kernel gives garbage, or crashes, where a row's length is no multiple of 16.
        rows = F.pad(rows, (0, self.codes.shape[1] - self.in_features))
        if self.codes.dtype != torch.int8:
            return F.linear(rows, self.codes).float()
        # Scales of its own would have to be bfloat16.
        return torch._weight_int8pack_mm(rows, self.codes, rows.new_ones(self.out_features)).float()

    def _tiled(self, rows: torch.Tensor) -> torch.Tensor:
        products = rows.new_zeros(len(rows), self.out_features)
        memory = rows.new_empty(min(TILE_ROWS, self.out_features) * min(TILE_COLUMNS, self.in_features))
        for top in range(0, self.out_features, TILE_ROWS):
            own = products[:, top : top + TILE_ROWS]
            for left in range(0, self.in_features, TILE_COLUMNS):
                codes = self.codes[top : top + TILE_ROWS, left : min(left + TILE_COLUMNS, self.in_features)]
                tile = memory[: codes.numel()].view(codes.shape).copy_(codes)
                own.addmm_(rows[:, left : left + TILE_COLUMNS], tile.T)
        products = self._scaled(products)
        return products.add_(self.offset * rows.sum(1, keepdim=True)) if self.offset else products

    def _scaled(self, products: torch.Tensor) -> torch.Tensor:
        return products if self.scales is None else products.mul_(self.scales)


def _is_aligned(codes: torch.Tensor) -> bool:
    return codes.data_ptr() % ALIGNMENT == 0


def _aligned(codes: torch.Tensor) -> torch.Tensor:
    return codes if _is_aligned(codes) else codes.clone()


def checked_resident(name: str) -> Resident:
    """`name` if it is one of `packed`, `half`, `full`. Raises `InputError` otherwise."""
    for known in get_args(Resident):
        if name == known:
            return known
    raise InputError(f"weights cannot be resident as {name!r}; choose {', '.join(RESIDENT)}")


def is_packed(module: nn.Module, entry: TensorEncoding, resident: Resident) -> TypeGuard[nn.Linear]:
    """Whether `module`, whose `weight` is stored as `entry` says, gives way to a `PackedLinear`."""
    # Of a subclass (`ReadLinear`) the weight is read.
    if type(module) is not nn.Linear or len(entry.shape) != 2 or math.prod(entry.shape) < LEAST_WEIGHTS:
        return False
    return resident == "half" or (resident == "packed" and entry.encoding in QUANTISED)


def packed_linear(
    linear: nn.Linear, parts: Parts, entry: TensorEncoding, name: str, resident: Resident
) -> PackedLinear:
    """What stands for `linear` whose weight has these checked parts. Raises `InputError` as `int8_rows` does."""
    has_bias = linear.bias is not None
    if resident == "half":
        return PackedLinear(linear.in_features, has_bias, bfloat16_rows(parts, entry, name))
    rows = int8_rows(parts, entry, name)
    return PackedLinear(linear.in_features, has_bias, rows.codes, rows.scales, rows.offset, rows.sums)
