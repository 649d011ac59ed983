"""Stored tensors as an exported file keeps them, and their values in operations that every format can express."""

import math

import torch
import torch.nn.functional as F

from topgb.modelfile.encodings import GROUP_BITS, Parts, int8_codes, rows_and_columns
from topgb.modelfile.header import TensorEncoding


def kept_parts(parts: Parts, entry: TensorEncoding, name: str) -> Parts:
    """What an exported file stores of checked parts: the same, but for the codes of int8.

    Those are int8 [rows, columns]: entropy coding cannot be expressed in a graph, and the padding of a row serves a
    kernel that is not in the file. Raises `InputError` where entropy-coded codes cannot be read.
    """
    if entry.encoding not in ("int8", "int8_zlib"):
        return parts
    codes = int8_codes(parts, entry, name)[:, : rows_and_columns(entry.shape)[1]]
    return parts | {".codes": codes.contiguous()}


def traced_values(parts: Parts, entry: TensorEncoding) -> torch.Tensor:
    """The float32 values, in the tensor's shape, of what `kept_parts` returned; the same bits as `encodings.values`."""
    if entry.encoding in ("float32", "int32"):
        return parts[""]
    if entry.encoding == "float16":
        return parts[""].float()
    if entry.encoding == "codebook":
        # Plain indexing becomes GatherND with int32 indices, which ONNX Runtime refuses.
        return F.embedding(parts[".codes"].int(), parts[".codebook"][:, None]).reshape(entry.shape)
    scales = parts[".scales"].float()[:, None]
    if entry.encoding == "groups":
        assert entry.bits is not None
        assert entry.group is not None
        codes = traced_unpack(parts[".codes"], entry.bits).reshape(-1, entry.group)
        decoded = codes.float() * scales + parts[".minima"].float()[:, None]
        return decoded.reshape(-1)[: math.prod(entry.shape)].reshape(entry.shape)
    # Not DequantizeLinear: ONNX Runtime has returned wrong values for constant ones under full optimisation.
    return (parts[".codes"].float() * scales).reshape(entry.shape)


def traced_unpack(packed: torch.Tensor, bits: int) -> torch.Tensor:
    """`bits.unpack_bits` in shifts of bytes: uint8 [..., n · bits / 8] to uint8 [n / k, k]."""
    if bits == 8:
        return packed
    width, low, high, right, left = PLACES[bits]
    runs = packed.reshape(-1, width)
    # A shift by 8, for a code that starts its byte, is defined nowhere; two shifts are.
    above = torch.bitwise_left_shift(torch.bitwise_left_shift(runs.index_select(1, high), left), 1)
    codes = torch.bitwise_right_shift(runs.index_select(1, low), right) | above
    return codes & ((1 << bits) - 1)


def _places(bits: int) -> tuple[int, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Where codes lie in the bytes after which their places recur.

    The number of these bytes; of each code the byte it starts in and the next one (int64), the bits of the first that
    are below it, and 7 less these (uint8).
    """
    shared = math.gcd(bits, 8)
    width = bits // shared
    starts = torch.arange(8 // shared) * bits
    low, right = starts // 8, (starts % 8).to(torch.uint8)
    # Where there is no next byte nothing is taken from it either: what it would give is masked.
    return width, low, (low + 1).clamp_max(width - 1), right, 7 - right


# Made before any tracing, so that a graph holds them once, as constants.
PLACES = {bits: _places(bits) for bits in GROUP_BITS if bits < 8}
