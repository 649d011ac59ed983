"""The stored tensors of an exported file, and their decoding in operations that every format can express."""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F

from topgb.modelfile.encodings import GROUP_BITS, Parts, int8_codes, rows_and_columns
from topgb.modelfile.header import TensorEncoding


def kept_parts(parts: Parts, entry: TensorEncoding, name: str) -> Parts:
    """The parts that an exported file stores for these checked parts, in shapes that need few operations to decode.

    Codes of `int8` and `int8_zlib` become int8 [rows, columns], because a graph cannot express entropy coding and does
    not need the padding of rows. Scales and minima become [n, 1], a codebook [codes, 1], and packed codes
    [groups, bytes, 1] where a byte holds whole codes, else [runs, bytes]. No value changes. Raises `InputError` where
    entropy-coded codes cannot be read.
    """
    shaped = {suffix: part[:, None] for suffix, part in parts.items() if suffix in (".scales", ".minima", ".codebook")}
    if entry.encoding in ("int8", "int8_zlib"):
        codes = int8_codes(parts, entry, name)[:, : rows_and_columns(entry.shape)[1]]
        shaped[".codes"] = codes.contiguous()
    elif entry.encoding == "groups" and entry.bits != 8:
        assert entry.bits is not None
        packed = parts[".codes"]
        shaped[".codes"] = packed[:, :, None] if 8 % entry.bits == 0 else packed.reshape(-1, PLACES[entry.bits].width)
    return parts | shaped


def traced_values(parts: Parts, entry: TensorEncoding) -> torch.Tensor:
    """The values of `kept_parts`' result, float32 in the tensor's shape, bit for bit those of `encodings.values`."""
    if entry.encoding in ("float32", "int32"):
        return parts[""]
    if entry.encoding == "float16":
        return parts[""].float()
    if entry.encoding == "codebook":
        # Plain indexing becomes GatherND with int32 indices, which ONNX Runtime refuses.
        return F.embedding(parts[".codes"].int(), parts[".codebook"]).reshape(entry.shape)
    scales = parts[".scales"].float()
    if entry.encoding == "groups":
        assert entry.bits is not None
        assert entry.group is not None
        codes = traced_unpack(parts[".codes"], entry.bits, entry.group)
        return _shaped(codes.float() * scales + parts[".minima"].float(), entry.shape)
    # Avoid DequantizeLinear: under full optimisation ONNX Runtime has returned wrong values for constant inputs.
    return _shaped(parts[".codes"].float() * scales, entry.shape)


def _shaped(values: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
    """The first of `values` in `shape`. Operations that change nothing are left out: each makes an export slower."""
    if tuple(values.shape) == shape:
        return values
    wanted = math.prod(shape)
    return (values if values.numel() == wanted else values.reshape(-1)[:wanted]).reshape(shape)


def traced_unpack(packed: torch.Tensor, bits: int, group: int) -> torch.Tensor:
    """`bits.unpack_bits` of `kept_parts`' codes by shifts of bytes: uint8 [groups, group]."""
    if bits == 8:
        return packed
    places = PLACES[bits]
    codes = torch.bitwise_right_shift(packed if places.width == 1 else packed.index_select(1, places.low), places.right)
    if places.width > 1:
        codes = codes | torch.bitwise_left_shift(packed.index_select(1, places.high), places.left)
    return (codes & ((1 << bits) - 1)).reshape(-1, group)


class _Places(NamedTuple):
    """Positions of the k = 8 / gcd(bits, 8) codes in the shortest run of whole bytes that holds whole codes.

    `width`: bytes in a run. For each code, [k]: `low`, the byte that it starts in, and `high`, the next byte (int64);
    `right`, by how much the first byte is shifted right, and `left`, by how much the next one is shifted left (uint8).
    """

    width: int
    low: torch.Tensor
    high: torch.Tensor
    right: torch.Tensor
    left: torch.Tensor


def _places(bits: int) -> _Places:
    shared = math.gcd(bits, 8)
    width = bits // shared
    starts = torch.arange(8 // shared) * bits
    low, right = starts // 8, (starts % 8).to(torch.uint8)
    # The last code of a run has no next byte; the last byte stands in, and a mask drops its bits. A code that starts
    # its byte needs none of the next byte; as bytes cannot be shifted by 8, 7 leaves one bit, which the mask drops.
    return _Places(width, low, (low + 1).clamp_max(width - 1), right, (8 - right).clamp_max(7))


# Computed before any tracing, so that a graph holds the tensors once, as constants.
PLACES = {bits: _places(bits) for bits in GROUP_BITS if bits < 8}
