"""Encodings alone: chosen entries and parts, through every way in which a layer's weights are made of them."""

import math
from collections.abc import Sequence

import torch
from torch import nn

from fuzz.choices import Choices
from fuzz.modelfile_bases import ENCODINGS
from fuzz.refusals import unless_refused
from topgb.features import MOST_VALUES
from topgb.modelfile.encodings import PARTS, checked_parts, decode, padded
from topgb.modelfile.header import MOST_PRODUCT, TensorEncoding
from topgb.modelfile.packed_linear import packed_linear
from topgb.modelfile.rows import bfloat16_rows

_NAME = "members.0.weights"
_MOST_MADE = 1 << 14
_OTHER_DTYPES = [torch.float64, torch.int64, torch.bool, torch.uint8, torch.float32]


def decode_parts(choices: Choices, bombs: list[bytes]) -> None:
    """Decode one tensor as whole, and as a linear layer's packed and halved weights."""
    encoding, flags = choices.pick(ENCODINGS), choices.number()
    shape = tuple(min(choices.size(), MOST_VALUES) for _ in range(choices.number() % 4))
    bits, group = (choices.number() % 12, choices.size()) if flags & 1 else (None, None)
    if not _possible(shape):
        return
    entry = TensorEncoding(encoding, shape, bits, group)
    stored = {}
    for suffix, dtype in PARTS[encoding].items():
        part = _part(entry, suffix, dtype, choices)
        if encoding == "int8_zlib" and suffix == ".codes" and flags & 2:
            part = torch.frombuffer(bytearray(choices.pick(bombs)), dtype=torch.uint8)
        stored[_NAME + suffix] = part
    values = unless_refused(lambda: decode(stored, entry, _NAME), _NAME)
    if values is not None:
        assert tuple(values.shape) == shape
        assert values.dtype == (torch.int32 if encoding == "int32" else torch.float32)
    if len(shape) != 2 or encoding == "int32":
        return
    parts = unless_refused(lambda: checked_parts(stored, entry, _NAME), _NAME)
    if parts is None:
        return
    unless_refused(lambda: bfloat16_rows(parts, entry, _NAME), _NAME)
    # A layer without weights is never packed.
    if encoding in ("float32", "float16") or not math.prod(shape):
        return
    linear = nn.Linear(shape[1], shape[0], bias=False, device="meta")
    layer = unless_refused(lambda: packed_linear(linear, parts, entry, _NAME, "packed"), _NAME)
    if layer is not None and shape[1] <= _MOST_MADE:
        for rows in (1, 30):
            assert layer(torch.ones(rows, shape[1])).shape == (rows, shape[0])


def _possible(shape: Sequence[int]) -> bool:
    # The header's check and the one of safetensors files; decoding begins behind both.
    return math.prod(max(size, 1) for size in shape) <= MOST_PRODUCT


def _part(entry: TensorEncoding, suffix: str, dtype: torch.dtype, choices: Choices) -> torch.Tensor:
    """A part as the entry makes it, or of another type or shape where the choices say so."""
    odd = choices.number()
    if odd & 0x80:
        dtype = choices.pick(_OTHER_DTYPES)
    shape = [choices.size() for _ in range(choices.number() % 4)] if odd & 0x40 else _shape(entry, suffix, choices)
    count = math.prod(shape)
    if count > _MOST_MADE or not _possible(shape):
        # Larger ones would need as large a file, and of no values torch makes none.
        shape, count = [1], 1
    item = torch.empty(0, dtype=dtype).element_size()
    data = bytearray((choices.blob() or b"\0") * (count * item + 1))[: count * item]
    if dtype == torch.bool:
        return torch.frombuffer(data, dtype=torch.uint8).ne(0).reshape(shape) if count else torch.zeros(shape).bool()
    return torch.frombuffer(data, dtype=dtype).reshape(shape) if count else torch.zeros(shape, dtype=dtype)


def _shape(entry: TensorEncoding, suffix: str, choices: Choices) -> list[int]:
    """What docs/model-file.md says of the part."""
    rows, columns = (
        (1, math.prod(entry.shape)) if len(entry.shape) < 2 else (entry.shape[0], math.prod(entry.shape[1:]))
    )
    if entry.encoding == "groups":
        group = max(1, entry.group or 8)
        groups = -(-rows * columns // group)
        return [groups, group // 8 * (entry.bits or 1)] if suffix == ".codes" else [groups]
    if suffix == ".scales":
        return [rows]
    if suffix == ".codebook" or (suffix == ".codes" and entry.encoding == "int8_zlib"):
        return [choices.number()]
    return [rows, padded(columns)] if entry.encoding == "int8" else list(entry.shape)


def seeds_of_parts() -> list[bytes]:
    """A matrix of each encoding, 3 × 4 and 0 × 4."""
    seeds = []
    for number, encoding in enumerate(ENCODINGS):
        for rows in (3, 0):
            grouped = bytes((3, 8)) if encoding == "groups" else b""
            flags = 3 if encoding == "groups" else 2
            one_part = b"\0\2\1\0"
            seeds.append(bytes((2, number, flags, 2, rows, 4)) + grouped + one_part * 3)
    return seeds
