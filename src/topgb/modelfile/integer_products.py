"""Products of float32 rows and int8 codes in integers: as accurate as float32's, and faster where a processor has them.

A row is written as three digits in base 256, as multiples of its largest value's 4,177,855th part: 22 bits and a sign.
oneDNN multiplies bytes without a sign by codes with one and takes away what the middle of the bytes adds. Its products
and their sums are exact in int32, if the processor has instructions for them: without these it adds two products in 16
bits, which saturate. So it is tried with the largest values first.
"""

from functools import cache
from typing import NamedTuple

import torch

# The bits of a float32 from 2²³ to 2²⁴ hold an integer: its distance from 2²³, here three bytes from 0.
DIGITS, BASE, MIDDLE = 3, 256, 64
ZERO = 2**23 + MIDDLE * (1 + BASE + BASE**2)
LARGEST = 2**24 - 1 - ZERO
# Columns at once: a sum of 255 · 127 each is below 2³¹.
COLUMNS = 1 << 16
# A row whose largest value is smaller than this counts as zeros.
LEAST = 1e-30
_OFFSET = torch.tensor(float(ZERO), device="cpu")


class PackedCodes(NamedTuple):
    """Codes [out, in] in the order in which oneDNN reads them, with what it asks for: they mean themselves.

    blocks    int8, `COLUMNS` columns each; only oneDNN can read them
    ones      float32 [out], the codes' scales
    zeros     int32 [out], what a zero is
    """

    blocks: tuple[torch.Tensor, ...]
    ones: torch.Tensor
    zeros: torch.Tensor


def packed_codes(codes: torch.Tensor) -> PackedCodes:
    """`codes`, int8 [out, in], in oneDNN's order, at some 0.4 GB a second."""
    prepack = torch.ops.onednn.qlinear_prepack
    # It would take the codes beside a block for the block's own.
    blocks = tuple(prepack(block.contiguous(), None) for block in codes.split(COLUMNS, dim=1))
    return PackedCodes(blocks, torch.ones(len(codes)), torch.zeros(len(codes), dtype=torch.int32))


@cache
def integers_are_exact() -> bool:
    """Whether this process multiplies the largest digits and codes exactly: an environment may forbid instructions."""
    random = torch.Generator().manual_seed(0)
    for inner, out in ((1024, 256), (1000, 70), (16, 33)):
        for positive in (1.0, 0.5):
            digits = torch.where(torch.rand(DIGITS, inner, generator=random) < positive, BASE - 1, 0).to(torch.uint8)
            codes = torch.where(torch.rand(out, inner, generator=random) < positive, 127, -127).to(torch.int8)
            expected = (digits.double() - MIDDLE) @ codes.double().T
            try:
                packed = packed_codes(codes)
                if not torch.equal(_exact_products(digits, packed.blocks[0], packed).double(), expected):
                    return False
            except (AttributeError, RuntimeError):
                # PyTorch was built without oneDNN, or with one that has no such product.
                return False
    return True


def by_integers(rows: torch.Tensor, codes: PackedCodes) -> torch.Tensor:
    """`rows` (float32 [B, in]) times the transpose of `codes` [out, in]: float32 [B, out].

    A row that is not finite has products that are not.
    """
    if not len(rows):
        return rows.new_zeros(0, len(codes.ones))
    if len(codes.blocks) == 1:
        return _block_products(rows, codes.blocks[0], codes)
    products = rows.new_zeros(len(rows), len(codes.ones))
    for part, block in zip(rows.split(COLUMNS, dim=1), codes.blocks, strict=True):
        products += _block_products(part, block, codes)
    return products


def _block_products(rows: torch.Tensor, block: torch.Tensor, codes: PackedCodes) -> torch.Tensor:
    digits, units = _digits(rows)
    least, middle, most = _exact_products(digits, block, codes).chunk(DIGITS)
    return least.add_(middle, alpha=BASE).add_(most, alpha=BASE**2).div_(units)


def _exact_products(digits: torch.Tensor, block: torch.Tensor, codes: PackedCodes) -> torch.Tensor:
    """(`digits` [N, in] - `MIDDLE`) times the transpose of a block [out, in]: float32 [N, out]."""
    linear = torch.ops.onednn.qlinear_pointwise.default
    return linear(digits, 1.0, MIDDLE, block, codes.ones, codes.zeros, None, 1.0, 0, torch.float32, "none", [], "")


def _digits(rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Digits of `rows` [B, in], all least ones first, uint8 [DIGITS · B, in], and units in one, float32 [B, 1]."""
    units = rows.abs().amax(1, keepdim=True).clamp_min_(LEAST).reciprocal_().mul_(float(LARGEST))
    # Adding the offset rounds to integers.
    bits = torch.addcmul(_OFFSET, rows, units).view(torch.uint8)
    return torch.cat([bits[:, place::4] for place in range(DIGITS)]), units
