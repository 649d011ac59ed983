"""Encode one tensor by one of the schemes that `topgb model quantize` and `topgb model shrink` choose from."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from topgb.errors import InputError
from topgb.modelfile.encodings import Parts, compress_codes, encode_plain, pack_bits, padded, rows_and_columns
from topgb.modelfile.header import TensorEncoding
from topgb.quantizing import codebooks
from topgb.quantizing.rounding import Grid, root_mean_squares, round_compensated

Kind = Literal["float16", "uniform", "quantile", "kmeans", "int8", "groups", "entropy"]
MOST_CODE = 127
# Bounds of a scale. Code times scale must stay in float32's range, and 127 · 2^121 does.
LEAST_SCALE, MOST_SCALE = 1e-30, 2.0**121
# Groups quantised at once, few enough that their values stay in the cache.
GROUPS_AT_ONCE = 1 << 11
# Outweighs the rounding of a scale to bfloat16, which has 8 bits of mantissa.
ROUND_UP = 1 + 2.0**-8
# The step of an entropy-coded row grows with this power of the row's root mean square; powers 0 and 1 measured worse.
ROW_POWER = 0.5

# Inverse-Hessian factors (`rounding.inverse_factor`), one per range of columns.
Factors = list[torch.Tensor]


@dataclass(frozen=True)
class Scheme:
    """How to store a tensor.

    `groups` alone uses `bits` (bits per code) and `group` (values per group); `entropy` alone uses `step`, its mean
    step.
    """

    kind: Kind
    bits: int = 8
    group: int = 128
    step: float = 0.0


def encode(
    tensor: torch.Tensor, scheme: Scheme, factors: Factors | None = None, name: str = "a tensor"
) -> tuple[TensorEncoding, Parts]:
    """Encode `tensor` (float32) by `scheme`: its entry in the header, and its parts by suffix.

    With `factors` (one per range of the matrix's columns) the scheme `entropy` compensates its rounding errors; the
    other schemes were measured to gain nothing by it. Raises `InputError` naming the tensor where float16 cannot hold
    a value.
    """
    if scheme.kind in ("float16", "groups") and float(tensor.abs().max()) > torch.finfo(torch.float16).max:
        raise InputError(f"{name} has values beyond float16's 65,504; quantise it by another method")
    if scheme.kind == "float16":
        return encode_plain(tensor, "float16")
    shape = tuple(tensor.shape)
    if scheme.kind in codebooks.METHODS:
        weights = tensor.numpy()
        levels = codebooks.METHODS[scheme.kind](weights.reshape(-1))
        codes = torch.from_numpy(codebooks.nearest_codes(weights, levels))
        return TensorEncoding("codebook", shape), {
            ".codes": codes,
            ".codebook": torch.from_numpy(levels.astype(np.float32)),
        }
    if scheme.kind == "groups":
        return TensorEncoding("groups", shape, scheme.bits, scheme.group), _groups(tensor, scheme)
    matrix = tensor.reshape(rows_and_columns(shape))
    if scheme.kind == "int8":
        scales, columns = _least_scales(matrix), matrix.shape[1]
        codes = torch.nn.functional.pad(rounded_codes(matrix, scales), (0, padded(columns) - columns))
        return TensorEncoding("int8", shape), {".codes": codes, ".scales": scales}
    scales = RowScales.of(matrix).at(scheme.step)
    codes = compress_codes(rounded_codes(matrix, scales, factors))
    return TensorEncoding("int8_zlib", shape), {".codes": codes, ".scales": scales}


@dataclass(frozen=True)
class RowScales:
    """The parts of a matrix's `entropy` scales that do not change with the step.

    relative  float64 [R], the step of each row as a multiple of the matrix's mean step
    least     bfloat16 [R], the least scale of each row, at which no code exceeds 127
    """

    relative: torch.Tensor
    least: torch.Tensor

    @classmethod
    def of(cls, matrix: torch.Tensor) -> "RowScales":
        """The `RowScales` of a matrix float32 [R, C]."""
        rms = root_mean_squares(matrix)
        # In a matrix of zeros this is 0 / 0.
        relative = (rms / rms.square().mean().sqrt()).nan_to_num(0.0).pow(ROW_POWER)
        return cls(relative, _least_scales(matrix))

    def at(self, step: float) -> torch.Tensor:
        """Scales of the rows, bfloat16 [R], for a mean step of the matrix."""
        return torch.maximum((step * self.relative).clamp_max(MOST_SCALE).bfloat16(), self.least)


def rounded_codes(matrix: torch.Tensor, scales: torch.Tensor, factors: Factors | None = None) -> torch.Tensor:
    """Codes int8 [R, C] from -127 to 127 of `matrix` float32 [R, C], whose row r has the step `scales[r]` (bfloat16).

    With `factors` the rounding errors are compensated.
    """
    grid = Grid(scales.float()[:, None], torch.zeros(len(matrix), 1), -MOST_CODE, MOST_CODE)
    if factors is None:
        return grid.codes(matrix).char()
    widths = [len(factor) for factor in factors]
    parts = zip(matrix.split(widths, dim=1), factors, strict=True)
    return torch.cat([round_compensated(part, factor, grid).char() for part, factor in parts], dim=1)


def _least_scales(matrix: torch.Tensor) -> torch.Tensor:
    """The least scale of each row, bfloat16 [R], at which no code exceeds 127."""
    most = matrix.abs().amax(1) / MOST_CODE
    return (most * ROUND_UP).clamp(LEAST_SCALE, MOST_SCALE).bfloat16()


def _groups(tensor: torch.Tensor, scheme: Scheme) -> Parts:
    flat = tensor.reshape(-1)
    # Pad the last group with the last value, which does not widen the group's range.
    groups = torch.cat([flat, flat[-1:].expand(-len(flat) % scheme.group)]).view(-1, scheme.group)
    most = (1 << scheme.bits) - 1
    codes, scales, minima = [], [], []
    for part in groups.split(GROUPS_AT_ONCE):
        # The grid spans the whole range of a group: clipping outliers makes the error smaller but the score worse.
        minimum, high = part.amin(1, keepdim=True).half(), part.amax(1, keepdim=True)
        # 2^-24 is the least positive float16; equal weights have code 0 whatever the step.
        scale = ((high - minimum.float()) / most).clamp_min(2.0**-24).half()
        codes.append(pack_bits(Grid(scale.float(), minimum.float(), 0, most).codes(part).byte(), scheme.bits))
        scales.append(scale.view(-1))
        minima.append(minimum.view(-1))
    return {".codes": torch.cat(codes), ".scales": torch.cat(scales), ".minima": torch.cat(minima)}
