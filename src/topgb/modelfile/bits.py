"""Codes of a few bits, packed without gaps.

Eight codes of b bits take b bytes: the little-endian integer Σ code[i] · 2^(b · i).
"""

import torch

# Runs of eight codes packed or unpacked at once, few enough to stay in the cache.
BLOCK = 1 << 15


def packed_bytes(codes: int, bits: int) -> int:
    """Bytes that `codes` codes of `bits` bits take; `codes` is a multiple of eight."""
    return codes // 8 * bits


def pack_bits(codes: torch.Tensor, bits: int) -> torch.Tensor:
    """Pack codes uint8 [..., n] below 2^bits into uint8 [..., n · bits / 8]; n is a multiple of eight."""
    runs = codes.reshape(-1, 8)
    packed = torch.empty(len(runs), bits, dtype=torch.uint8)
    shifts = torch.arange(8) * bits
    places = torch.arange(bits) * 8
    for run, out in zip(runs.split(BLOCK), packed.split(BLOCK), strict=True):
        integers = (run.long() << shifts).sum(1)
        out.copy_((integers[:, None] >> places) & 0xFF)
    return packed.view(*codes.shape[:-1], packed_bytes(codes.shape[-1], bits))


def unpack_bits(packed: torch.Tensor, bits: int) -> torch.Tensor:
    """The inverse of `pack_bits`: uint8 [..., n · bits / 8] to uint8 [..., n]."""
    runs = packed.reshape(-1, bits)
    codes = torch.empty(len(runs), 8, dtype=torch.uint8)
    integer = torch.zeros(min(BLOCK, len(runs)), 8, dtype=torch.uint8)
    shifts = torch.arange(8) * bits
    for run, out in zip(runs.split(BLOCK), codes.split(BLOCK), strict=True):
        integer[: len(run), :bits] = run
        out.copy_((integer[: len(run)].view(torch.int64) >> shifts) & ((1 << bits) - 1))
    return codes.view(*packed.shape[:-1], packed.shape[-1] // bits * 8)
