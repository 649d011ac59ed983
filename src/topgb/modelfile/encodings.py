"""The encodings of a tensor in a model file, and how to decode them.

Its encoding stores a tensor as one or several *parts*, named `NAME` + suffix (docs/model-file.md):

    float32, float16   ""                                    the values
    int32              ""                                    whole numbers, which no other encoding can store
    codebook           ".codes" u8, ".codebook" f32          codebook[code], one codebook per tensor, as in 2018
    int8               ".codes" i8, ".scales" bf16           code · scale, one scale per row
    int8_zlib          ".codes" u8, ".scales" bf16           the same, the codes entropy-coded by zlib
    groups             ".codes" u8, ".scales", ".minima" f16 minimum + code · scale, in groups of the flattened tensor

The codes of groups are packed without gaps. Eight codes of b bits take b bytes: the little-endian integer
Σ code[i] · 2^(b · i).
"""

import math
import reprlib
import zlib
from collections.abc import Mapping
from contextlib import suppress

import torch

from topgb.errors import InputError
from topgb.modelfile.header import CHANGED, TensorEncoding
from topgb.tensors import all_finite

PARTS = {
    "float32": {"": torch.float32},
    "float16": {"": torch.float16},
    "int32": {"": torch.int32},
    "codebook": {".codes": torch.uint8, ".codebook": torch.float32},
    "int8": {".codes": torch.int8, ".scales": torch.bfloat16},
    "int8_zlib": {".codes": torch.uint8, ".scales": torch.bfloat16},
    "groups": {".codes": torch.uint8, ".scales": torch.float16, ".minima": torch.float16},
}
# Bits per code that the encoding `groups` allows.
GROUP_BITS = range(2, 9)
# Rows of int8 are padded to a multiple of this; the kernel that reads them in place gives garbage for other lengths.
ROW_MULTIPLE = 16
MOST_CODES = 256
# The most codes that one byte of a zlib stream may unpack to. The Huffman codes that topgb writes give at most 8 codes
# per byte; zlib can give 1,032, and then a small file would fill the memory.
MOST_DEFLATED = 64
# Runs of eight codes packed or unpacked at once, few enough to stay in the cache.
BLOCK = 1 << 15

Parts = dict[str, torch.Tensor]


def encode_plain(tensor: torch.Tensor, encoding: str) -> tuple[TensorEncoding, Parts]:
    """Entry and parts by suffix of `tensor` in the `encoding` `float32` or `float16`; whole numbers get `int32`."""
    if not tensor.is_floating_point():
        encoding = "int32"
    dtype = PARTS[encoding][""]
    return TensorEncoding(encoding, tuple(tensor.shape)), {"": tensor.detach().cpu().to(dtype).contiguous()}


def rows_and_columns(shape: tuple[int, ...]) -> tuple[int, int]:
    """The shape of a tensor as a matrix: the first axis gives the rows, all others the columns; a vector is one row."""
    if len(shape) < 2:
        return 1, math.prod(shape)
    return shape[0], math.prod(shape[1:])


def padded(columns: int) -> int:
    """The stored length of an int8 row: `columns` rounded up to a multiple of 16."""
    return -(-columns // ROW_MULTIPLE) * ROW_MULTIPLE


def part_names(name: str, entry: TensorEncoding) -> list[str]:
    """Names of the stored tensors of the tensor `name`. Raises `InputError` where the encoding is unknown."""
    if entry.encoding not in PARTS:
        raise InputError(
            f"tensor {name!r} has the encoding {entry.encoding!r}, which this topgb does not know; upgrade topgb"
        )
    return [name + suffix for suffix in PARTS[entry.encoding]]


def stored_bytes(stored: Mapping[str, torch.Tensor], entry: TensorEncoding, name: str) -> int:
    """Bytes of the tensor's parts in the file."""
    return sum(stored[part].nbytes for part in part_names(name, entry))


def checked_parts(stored: Mapping[str, torch.Tensor], entry: TensorEncoding, name: str) -> Parts:
    """The tensor's parts by suffix, checked.

    Raises `InputError` where the encoding is unknown, a part's dtype or shape does not match the header, or a value is
    not finite.
    """
    parts = {part[len(name) :]: stored[part] for part in part_names(name, entry)}
    shapes = _shapes(entry, name)
    for suffix, part in parts.items():
        shape = shapes[suffix]
        fits = len(part.shape) == 1 if shape is None else tuple(part.shape) == shape
        if part.dtype != PARTS[entry.encoding][suffix] or not fits:
            raise InputError(
                f"tensor {name + suffix!r} is {part.dtype} {list(part.shape)}, but the header says {entry.encoding} "
                f"{reprlib.repr(list(entry.shape))}; {CHANGED}"
            )
        if part.dtype.is_floating_point and not all_finite(part):
            raise InputError(f"tensor {name + suffix!r} has values that are not finite; {CHANGED}")
    if entry.encoding == "codebook":
        _check_codes(parts, name)
    return parts


def decode(stored: Mapping[str, torch.Tensor], entry: TensorEncoding, name: str) -> torch.Tensor:
    """The values of a stored tensor in its shape: float32, or int32 for the encoding `int32`.

    A tensor stored as float32 or int32 is not copied. Raises `InputError` as `checked_parts` does, and where
    entropy-coded codes cannot be read.
    """
    return values(checked_parts(stored, entry, name), entry, name)


def values(parts: Parts, entry: TensorEncoding, name: str = "") -> torch.Tensor:
    """The values of checked parts in the tensor's shape: float32, or int32 for the encoding `int32`.

    Raises `InputError` where entropy-coded codes cannot be read.
    """
    if entry.encoding == "int32":
        return parts[""]
    if entry.encoding in ("float32", "float16"):
        return parts[""].float()
    if entry.encoding == "codebook":
        # An embedding is much faster than indexing (4 s against 20 s per 10⁹ values).
        book = parts[".codebook"][:, None]
        return torch.nn.functional.embedding(parts[".codes"].int(), book).view(entry.shape)
    if entry.encoding == "groups":
        bits, group = _group_sizes(entry, name)
        codes = unpack_bits(parts[".codes"], bits).view(-1, group).float()
        decoded = codes.mul_(parts[".scales"].float()[:, None]).add_(parts[".minima"].float()[:, None])
        return decoded.view(-1)[: math.prod(entry.shape)].reshape(entry.shape)
    codes = int8_codes(parts, entry, name)
    columns = rows_and_columns(entry.shape)[1]
    return codes[:, :columns].float().mul_(parts[".scales"].float()[:, None]).reshape(entry.shape)


def int8_codes(parts: Parts, entry: TensorEncoding, name: str = "") -> torch.Tensor:
    """The codes int8 [rows, padded columns] of a tensor stored as `int8` (not copied) or `int8_zlib`.

    Raises `InputError` where an entropy-coded stream is damaged or of another length.
    """
    if entry.encoding == "int8":
        return parts[".codes"]
    rows, columns = rows_and_columns(entry.shape)
    size = rows * columns
    decoder = zlib.decompressobj()
    check_deflated(parts[".codes"], size, name)
    raw = b""
    with suppress(zlib.error):
        raw = decoder.decompress(parts[".codes"].numpy().data, size + 1)
    if len(raw) != size or not decoder.eof or decoder.unused_data:
        raise not_unpacked(name)
    codes = (
        torch.frombuffer(bytearray(raw), dtype=torch.int8).view(rows, columns) if size else torch.zeros(rows, 0).char()
    )
    return torch.nn.functional.pad(codes, (0, padded(columns) - columns))


def check_deflated(stream: torch.Tensor, size: int, name: str) -> None:
    """Raise `InputError` where the stream is too short for `size` codes, before any memory is taken for the codes."""
    if size > MOST_DEFLATED * len(stream):
        raise not_unpacked(name)


def not_unpacked(name: str) -> InputError:
    """The error for entropy-coded codes of the tensor `name` that cannot be unpacked."""
    return InputError(f"tensor {name + '.codes'!r} is damaged: its codes cannot be unpacked; {CHANGED}")


def compress_codes(codes: torch.Tensor) -> torch.Tensor:
    """Entropy-code codes int8 [rows, columns] as the stream uint8 [n] of `int8_zlib`: zlib with Huffman codes only."""
    # A network's weights hold no repeats; searching for them costs time and bytes.
    packer = zlib.compressobj(9, zlib.DEFLATED, zlib.MAX_WBITS, 9, zlib.Z_HUFFMAN_ONLY)
    raw = packer.compress(codes.contiguous().numpy().data) + packer.flush()
    return torch.frombuffer(bytearray(raw), dtype=torch.uint8)


def _shapes(entry: TensorEncoding, name: str) -> dict[str, tuple[int, ...] | None]:
    """The shape of each part by suffix; None means a vector of any length."""
    rows, columns = rows_and_columns(entry.shape)
    if entry.encoding == "groups":
        bits, group = _group_sizes(entry, name)
        groups = -(-math.prod(entry.shape) // group)
        return {".codes": (groups, packed_bytes(group, bits)), ".scales": (groups,), ".minima": (groups,)}
    if entry.bits is not None or entry.group is not None:
        raise InputError(f"tensor {name!r} has bits or groups, which {entry.encoding} has not; {CHANGED}")
    if entry.encoding == "codebook":
        return {".codes": entry.shape, ".codebook": None}
    if entry.encoding == "int8":
        return {".codes": (rows, padded(columns)), ".scales": (rows,)}
    if entry.encoding == "int8_zlib":
        return {".codes": None, ".scales": (rows,)}
    return {"": entry.shape}


def _group_sizes(entry: TensorEncoding, name: str) -> tuple[int, int]:
    if entry.bits is None or entry.bits not in GROUP_BITS or entry.group is None or entry.group < 8 or entry.group % 8:
        raise InputError(f"tensor {name!r} has groups of {entry.group} codes of {entry.bits} bits; {CHANGED}")
    return entry.bits, entry.group


def _check_codes(parts: Parts, name: str) -> None:
    codes, book = parts[".codes"], parts[".codebook"]
    if len(book) > MOST_CODES or (codes.numel() and int(codes.max()) >= len(book)):
        raise InputError(f"tensor {name!r} has codes beyond its codebook of {len(book)}; {CHANGED}")


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
