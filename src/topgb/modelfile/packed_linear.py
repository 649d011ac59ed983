"""Linear layers of a loaded model whose weights stay packed in memory as they are in the file."""

import math
from functools import cache, partial
from typing import TYPE_CHECKING, TypeGuard

import torch
import torch.nn.functional as F
from torch import nn

from topgb.devices import Precision, Resident, computes_in_bfloat16, free_memory
from topgb.matmul_library import (
    LEAST_GAIN,
    instruction_sets,
    is_forced,
    kept_choice,
    least_seconds,
    onednn_linear,
    onednn_packed,
    prefers_onednn,
)
from topgb.modelfile.encodings import Parts
from topgb.modelfile.header import TensorEncoding
from topgb.models.few_rows import predicts
from topgb.models.precision import computing_dtype, full_precision
from topgb.models.readlinear import KeepsPacked

if TYPE_CHECKING:
    from topgb.modelfile.integer_products import PackedCodes

QUANTISED = ("codebook", "int8", "int8_zlib", "groups")
# The kernel that reads int8 rows crashes at other addresses, which files of another writer may have.
ALIGNMENT = 16
# The float32 weights of a smaller layer fit in a cache: packing would not make it faster, only round it.
LEAST_WEIGHTS = 1 << 20
# Up to this many rows, reading the weights takes longer than multiplying (docs/benchmarks.md).
STREAMED_ROWS = 24
# From so many rows on products in integers may be faster, which take longer to begin.
COUNTED_ROWS = 8
# Weights that are widened to float32 at once, 8 MB: they stay in the cache, and their product is still efficient.
TILE_VALUES, TILE_COLUMNS = 1 << 21, 1 << 11
# Codes [out, in] that are timed with few rows and with a batch, and the gain that integers must bring. Where these are
# exact but a plain loop, the small codes take a thousand times as long, and the large ones would take seconds.
TIMED = (((64, 1024), 1e-3), ((4096, 1024), LEAST_GAIN))
BATCH = 32


class PackedLinear(KeepsPacked, nn.Module):
    """Replaces an `nn.Linear`: float32 [..., in] to float32 [..., out].

    weight = `codes` (int8 or bfloat16 [out, in and perhaps padding]) · `scales` (float32 [out]) + `offset`; `sums` are
    the exact sums of the weight's rows (float32 [out], needed with an offset and where the codes are rounded). Up to 24
    input rows the codes are read in place, with inputs and products rounded to bfloat16. Beyond, the codes are widened
    tile by tile to float32, or under autocast to its dtype. Codes may be mapped from a file. The state holds only
    `bias` (float32 [out]), a parameter that is on the meta device at first.

    Fixed, it multiplies eight rows and more in integers where that is faster, as accurately as in float32. From the
    first such call on it keeps int8 codes in oneDNN's order as well, if a quarter of the free memory holds them, and so
    it does with bfloat16 under autocast.
    """

    codes: torch.Tensor
    scales: torch.Tensor | None
    sums: torch.Tensor | None
    ones: torch.Tensor

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
        # PyTorch's kernel takes only bfloat16 scales: it gets ones, and the products are scaled in float32.
        self.register_buffer("ones", torch.ones(len(codes), dtype=torch.bfloat16), persistent=False)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        rows, dtype = inputs.reshape(-1, self.in_features).float(), computing_dtype(inputs.device)
        with full_precision(rows.device):
            products = self._products(rows, dtype) if self.sums is None else self._centred(rows, dtype, self.sums)
            if self.bias is not None:
                products += self.bias
        return products.view(*inputs.shape[:-1], self.out_features)

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}, codes={self.codes.dtype}"

    def _centred(self, rows: torch.Tensor, dtype: torch.dtype, sums: torch.Tensor) -> torch.Tensor:
        # Inputs that are never negative have a large mean, which would add up the rounding errors of a row's weights
        # and, with an offset, drown the products. So the mean is multiplied by the exact sums instead.
        means = rows.mean(1, keepdim=True)
        return self._products(rows - means, dtype).add_(means * sums)

    def _products(self, rows: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        packs = self.fixed and self._can_pack(rows, dtype)
        packed = self.kept_packed(self.codes, self._in_onednns_order, free_memory) if packs else None
        if isinstance(packed, torch.Tensor):
            products = onednn_linear(rows.bfloat16(), packed, None).float()
        elif packed is not None:
            from topgb.modelfile.integer_products import by_integers

            products = by_integers(rows, packed)
        elif self._can_stream(rows, dtype):
            rows = rows.bfloat16()
            products = self._rounded_products(rows)
        else:
            products = self._tiled(rows, dtype)
        if self.scales is not None:
            products.mul_(self.scales)
        # Where the inputs were rounded, so is their sum: the two errors together are those of the weight.
        return products.add_(self.offset * rows.float().sum(1, keepdim=True)) if self.offset else products

    def _can_pack(self, rows: torch.Tensor, dtype: torch.dtype) -> bool:
        """Whether oneDNN's order is the fastest for a prediction of `rows` in the arithmetic `dtype`."""
        if self.codes.dtype == torch.int8:
            many = dtype == torch.float32 and len(rows) >= COUNTED_ROWS
            return many and predicts(rows) and integers_are_faster()
        return dtype == torch.bfloat16 and len(rows) > 0 and predicts(rows) and computes_in_bfloat16(rows.device)

    def _in_onednns_order(self, codes: torch.Tensor) -> "PackedCodes | torch.Tensor":
        if codes.dtype != torch.int8:
            return onednn_packed(codes)
        from topgb.modelfile.integer_products import packed_codes

        return packed_codes(codes[:, : self.in_features])

    def _can_stream(self, rows: torch.Tensor, dtype: torch.dtype) -> bool:
        if len(rows) > STREAMED_ROWS and dtype == self.codes.dtype and self.sums is None:
            return True
        if not 0 < len(rows) <= STREAMED_ROWS:
            return False
        if self.codes.dtype == torch.int8:
            return rows.device.type == "cpu" and hasattr(torch, "_weight_int8pack_mm") and _is_aligned(self.codes)
        return computes_in_bfloat16(rows.device)

    def _rounded_products(self, rows: torch.Tensor) -> torch.Tensor:
        if missing := self.codes.shape[1] - self.in_features:
            # The kernel gives garbage, or crashes, where a row's length is no multiple of 16.
            rows = F.pad(rows, (0, missing))
        if self.codes.dtype != torch.int8:
            return F.linear(rows, self.codes).float()
        return torch._weight_int8pack_mm(rows, self.codes, self.ones).float()

    def _tiled(self, rows: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        products = rows.new_zeros(len(rows), self.out_features)
        columns = min(TILE_COLUMNS, self.in_features)
        high = min(max(1, TILE_VALUES // columns), self.out_features)
        memory, factors = rows.new_empty(high * columns, dtype=dtype), rows.to(dtype)
        multiply = onednn_linear if prefers_onednn() else F.linear
        for top in range(0, self.out_features, high):
            own = products[:, top : top + high]
            for left in range(0, self.in_features, columns):
                codes = self.codes[top : top + high, left : min(left + columns, self.in_features)]
                tile = memory[: codes.numel()].view(codes.shape).copy_(codes)
                if dtype == torch.float32:
                    own += multiply(factors[:, left : left + columns], tile, None)
                else:
                    # The sum over the tiles is float32.
                    own += factors[:, left : left + columns] @ tile.T
        return products


def _is_aligned(codes: torch.Tensor) -> bool:
    return codes.data_ptr() % ALIGNMENT == 0


def _aligned(codes: torch.Tensor) -> torch.Tensor:
    return codes if _is_aligned(codes) else codes.clone()


def integers_are_faster() -> bool:
    """Whether eight rows and more are multiplied with int8 codes in integers: exactly here, and clearly faster.

    How fast they are is measured once for this machine; where it cannot be kept, the processor's instructions decide.
    Where a library is forced, they are not used.
    """
    from topgb.modelfile.integer_products import integers_are_exact

    return not is_forced() and integers_are_exact() and _integers_are_faster(torch.get_num_threads())


@cache
def _integers_are_faster(threads: int) -> bool:
    unkept = "integers" if "avx512_vnni" in instruction_sets() else "floats"
    return kept_choice("int8 codes, ", ("integers", "floats"), _faster, lambda: unkept)[0] == "integers"


@torch.inference_mode()
def _faster() -> str:
    from topgb.modelfile.integer_products import by_integers, packed_codes

    for shape, least in TIMED:
        codes = torch.ones(shape, dtype=torch.int8)
        ways = PackedLinear(shape[1], False, codes), partial(by_integers, codes=packed_codes(codes))
        batches = [torch.ones(rows, shape[1]) for rows in (COUNTED_ROWS, BATCH)]
        taken = least_seconds([partial(way, rows) for way in ways for rows in batches])
        if taken[0] * taken[1] < least * taken[2] * taken[3]:
            return "floats"
    return "integers"


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
