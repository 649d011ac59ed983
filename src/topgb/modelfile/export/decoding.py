"""The stored tensors of an exported file, and their decoding in operations that every format can express."""

import math

import torch
import torch.nn.functional as F

from topgb.modelfile.encodings import GROUP_BITS, Parts, int8_codes, rows_and_columns
from topgb.modelfile.header import TensorEncoding


def kept_parts(parts: Parts, entry: TensorEncoding, name: str) -> Parts:
    """The parts that an exported file stores for these checked parts.

    Codes of `int8` and `int8_zlib` become int8 [rows, columns], because a graph cannot express entropy coding and does
    not need the padding of rows; all other parts stay. Raises `InputError` where entropy-coded codes cannot be read.
    """
    if entry.encoding not in ("int8", "int8_zlib"):
        return parts
    codes = int8_codes(parts, entry, name)[:, : rows_and_columns(entry.shape)[1]]
    return parts | {".codes": codes.contiguous()}


def traced_values(parts: Parts, entry: TensorEncoding) -> torch.Tensor:
    """The values of `kept_parts`' result, float32 in the tensor's shape, bit for bit those of `encodings.values`."""
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
    # Avoid DequantizeLinear: under full optimisation ONNX Runtime has returned wrong values for constant inputs.
    return (parts[".codes"].float() * scales).reshape(entry.shape)


def traced_unpack(packed: torch.Tensor, bits: int) -> torch.Tensor:
    """`bits.unpack_bits` by shifts of bytes: uint8 [..., n · bits / 8] to uint8 [n / k, k], k = 8 / gcd(bits, 8)."""
    if bits == 8:
        return packed
    width, low, high, right, left = PLACES[bits]
    runs = packed.reshape(-1, width)
    # Shift twice: a code that starts its byte needs a shift by 8, which is undefined for bytes.
    above = torch.bitwise_left_shift(torch.bitwise_left_shift(runs.index_select(1, high), left), 1)
    codes = torch.bitwise_right_shift(runs.index_select(1, low), right) | above
    return codes & ((1 << bits) - 1)


def _places(bits: int) -> tuple[int, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Positions of the k = 8 / gcd(bits, 8) codes in the shortest run of whole bytes that holds whole codes.

    Returns the number of bytes in a run and, for each code, [k]: the byte that the code starts in and the next byte
    (int64), the number of bits below the code in the first byte, and 7 minus that number (uint8).
    """
    shared = math.gcd(bits, 8)
    width = bits // shared
    starts = torch.arange(8 // shared) * bits
    low, right = starts // 8, (starts % 8).to(torch.uint8)
    # The last code of a run has no next byte; the last byte stands in, and a mask drops its bits.
    return width, low, (low + 1).clamp_max(width - 1), right, 7 - right


# Computed before any tracing, so that a graph holds the tensors once, as constants.
PLACES = {bits: _places(bits) for bits in GROUP_BITS if bits < 8}
