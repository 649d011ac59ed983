"""One tensor to its stored form: the schemes that `topgb model quantize` and `shrink` choose from."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from topgb.errors import InputError
from topgb.modelfile.bits import pack_bits
from topgb.modelfile.encodings import Parts, compress_codes, encode_plain, padded, rows_and_columns
from topgb.modelfile.header import TensorEncoding
from topgb.quantizing import codebooks
from topgb.quantizing.rounding import Grid, round_compensated

Kind = Literal["float16", "uniform", "quantile", "kmeans", "int8", "groups", "entropy"]
MOST_CODE = 127
LEAST_SCALE = 1e-30
# Groups quantised at once: what they take stays in the cache.
GROUPS_AT_ONCE = 1 << 11
# Greater than any rounding to 8 bits of mantissa.
ROUND_UP = 1 + 2.0**-8
# Of an entropy-coded row: its step grows with the root of its root mean square. Measured against powers 0 and 1.
ROW_POWER = 0.5

# What errors of a layer's columns ask of each other (`rounding.inverse_factor`), a range of columns after another.
Factors = list[torch.Tensor]


@dataclass(frozen=True)
class Scheme:
    """How to store a tensor. `bits` and `group` are those of `groups`; `step` is the mean step of `entropy`."""

    kind: Kind
    bits: int = 8
    group: int = 128
    step: float = 0.0


def encode(
    tensor: torch.Tensor, scheme: Scheme, factors: Factors | None = None, name: str = "a tensor"
) -> tuple[TensorEncoding, Parts]:
    """`tensor` (float32) as `scheme` stores it: entry, and parts by suffix.

    With `factors` (one for each range of the matrix's columns) rounding to `entropy` makes up for its errors; elsewhere
    that was measured to bring nothing. Raises `InputError` naming it where it has values beyond what float16 holds.
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
    scales = (_int8_scales if scheme.kind == "int8" else _entropy_scales)(matrix, scheme)
    codes = _rows(matrix, scales.float(), factors if scheme.kind == "entropy" else None).char()
    if scheme.kind == "int8":
        columns = matrix.shape[1]
        codes = torch.nn.functional.pad(codes, (0, padded(columns) - columns))
        return TensorEncoding("int8", shape), {".codes": codes, ".scales": scales}
    return TensorEncoding("int8_zlib", shape), {".codes": compress_codes(codes), ".scales": scales}


def plain_codes(matrix: torch.Tensor, step: float) -> torch.Tensor:
    """Codes int8 [R, C] of the scheme `entropy` without making up for errors, to count their entropy."""
    return _rows(matrix, _entropy_scales(matrix, Scheme("entropy", step=step)).float(), None).char()


def _int8_scales(matrix: torch.Tensor, scheme: Scheme) -> torch.Tensor:
    most = matrix.abs().amax(1) / MOST_CODE
    return (most * ROUND_UP).clamp_min(LEAST_SCALE).bfloat16()


def _entropy_scales(matrix: torch.Tensor, scheme: Scheme) -> torch.Tensor:
    rms = matrix.square().mean(1).sqrt()
    relative = (rms / rms.square().mean().sqrt().clamp_min(LEAST_SCALE)).pow(ROW_POWER)
    return torch.maximum((scheme.step * relative).bfloat16(), _int8_scales(matrix, scheme))


def _rows(matrix: torch.Tensor, scales: torch.Tensor, factors: Factors | None) -> torch.Tensor:
    """Codes float32 [R, C] from -127 to 127 on the grid of each row's scale."""
    grid = Grid(scales[:, None], torch.zeros(len(matrix), 1), -MOST_CODE, MOST_CODE)
    if factors is None:
        return grid.codes(matrix)
    widths = [len(factor) for factor in factors]
    parts = zip(matrix.split(widths, dim=1), factors, strict=True)
    return torch.cat([round_compensated(part, factor, grid) for part, factor in parts], dim=1)


def _groups(tensor: torch.Tensor, scheme: Scheme) -> Parts:
    flat = tensor.reshape(-1)
    # Filled up with the last value, which widens no range.
    groups = torch.cat([flat, flat[-1:].expand(-len(flat) % scheme.group)]).view(-1, scheme.group)
    most = (1 << scheme.bits) - 1
    codes, scales, minima = [], [], []
    for part in groups.split(GROUPS_AT_ONCE):
        # From the least to the greatest of a group: cutting outliers off makes the error smaller and the score worse.
        minimum, high = part.amin(1, keepdim=True).half(), part.amax(1, keepdim=True)
        # Half precision has no smaller step than this one; equal weights have code 0 whatever the step.
        scale = ((high - minimum.float()) / most).clamp_min(2.0**-24).half()
        codes.append(pack_bits(Grid(scale.float(), minimum.float(), 0, most).codes(part).byte(), scheme.bits))
        scales.append(scale.view(-1))
        minima.append(minimum.view(-1))
    return {".codes": torch.cat(codes), ".scales": torch.cat(scales), ".minima": torch.cat(minima)}
