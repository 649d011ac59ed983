"""A stored matrix as rows of int8 or bfloat16, made block by block: no float32 copy of it ever exists.

Where these rows are not what the file holds (`int8` is), they are rounded: `groups` and codebooks of unequal steps to
int8 once more, which moves a weight by 0.4 % of its row's largest at most (docs/model-file.md has the encodings).
"""

import dataclasses
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from topgb.modelfile.encodings import Parts, check_deflated, int8_codes, not_unpacked, padded, values
from topgb.modelfile.header import TensorEncoding

MOST_CODE = 127
# Weights handled at once: a few megabytes as float32, so that blocks that are freed again leave no memory behind.
BLOCK = 1 << 18
# Compressed bytes read at once; zlib makes at most a thousand times as many of them.
CHUNK = 1 << 14
# A codebook's steps are equal where it leaves the straight line by no more than this share of them.
STRAIGHT = 1e-3


@dataclass(frozen=True)
class Int8Rows:
    """A matrix [R, C] as code · scale + offset.

    codes    int8 [R, C rounded up to a multiple of 16], contiguous; what lies past C means nothing
    scales   float32 [R]
    offset   what is added to every value
    sums     float32 [R]: the rows' sums, offset and all; None without an offset
    """

    codes: torch.Tensor
    scales: torch.Tensor
    offset: float = 0.0
    sums: torch.Tensor | None = None


def int8_rows(parts: Parts, entry: TensorEncoding, name: str) -> Int8Rows:
    """Checked parts of a quantised matrix as int8 rows; the codes of `int8` are the very tensor in `parts`.

    Exact for `int8`, `int8_zlib` and codebooks of equal steps (`uniform`). Raises `InputError` where entropy-coded
    codes cannot be read.
    """
    if entry.encoding == "int8":
        return Int8Rows(int8_codes(parts, entry, name), parts[".scales"].float())
    if entry.encoding == "int8_zlib":
        return Int8Rows(_inflated(parts, entry, name), parts[".scales"].float())
    if entry.encoding == "codebook":
        return _of_codebook(parts[".codes"], parts[".codebook"])
    rows, columns = entry.shape
    codes, scales = torch.zeros(rows, padded(columns), dtype=torch.int8), torch.ones(rows)
    for start, block in float_blocks(parts, entry):
        own = scales[start : start + len(block)].copy_(_scales(block.abs().amax(1)))
        codes[start : start + len(block), :columns] = block.div_(own[:, None]).round_()
    return Int8Rows(codes, scales)


def bfloat16_rows(parts: Parts, entry: TensorEncoding, name: str) -> torch.Tensor:
    """Checked parts of a matrix as bfloat16 [R, C]. Raises `InputError` as `int8_rows` does."""
    if entry.encoding == "int8_zlib":
        entry, parts = dataclasses.replace(entry, encoding="int8"), {**parts, ".codes": _inflated(parts, entry, name)}
    rows = torch.empty(entry.shape, dtype=torch.bfloat16)
    for start, block in float_blocks(parts, entry):
        rows[start : start + len(block)] = block
    return rows


def float_blocks(parts: Parts, entry: TensorEncoding) -> Iterator[tuple[int, torch.Tensor]]:
    """(first row, float32 [n, C]) of a matrix in any encoding but `int8_zlib`, block by block."""
    rows, columns = entry.shape
    for start, stop in _blocks(rows, columns):
        if entry.encoding != "groups":
            own = {suffix: part if suffix == ".codebook" else part[start:stop] for suffix, part in parts.items()}
            yield start, values(own, dataclasses.replace(entry, shape=(stop - start, columns)))
            continue
        assert entry.group is not None
        first, last = start * columns // entry.group, -(-stop * columns // entry.group)
        shaped = dataclasses.replace(entry, shape=((last - first) * entry.group,))
        flat = values({suffix: part[first:last] for suffix, part in parts.items()}, shaped)
        skipped = start * columns - first * entry.group
        yield start, flat[skipped : skipped + (stop - start) * columns].view(stop - start, columns)


def _blocks(rows: int, columns: int) -> Iterator[tuple[int, int]]:
    step = max(1, BLOCK // max(columns, 1))
    return ((start, min(start + step, rows)) for start in range(0, rows, step))


def _of_codebook(codes: torch.Tensor, book: torch.Tensor) -> Int8Rows:
    """Codes uint8 [R, C] of a codebook as int8 rows."""
    rows, columns = codes.shape
    out = torch.zeros(rows, padded(columns), dtype=torch.int8)
    step = float(book[-1] - book[0]) / max(len(book) - 1, 1) if len(book) else 0.0
    line = step * torch.arange(len(book)) + (book[0] if len(book) else 0.0)
    if bool(((book - line).abs() <= STRAIGHT * abs(step)).all()):
        offset = float(line[0]) + 128 * step if len(line) else 0.0
        sums = torch.zeros(rows)
        for start, stop in _blocks(rows, columns):
            block = (codes[start:stop] ^ 128).view(torch.int8)
            out[start:stop, :columns] = block
            sums[start:stop] = (block.sum(1).double() * step + offset * columns).float()
        return Int8Rows(out, torch.full((rows,), step), offset, sums)
    # In the order of their values, the codes of a row's least and greatest value are its least and greatest.
    book, order = book.sort()
    ranks = torch.zeros(256, dtype=torch.uint8)
    ranks[order] = torch.arange(len(book), dtype=torch.uint8)
    scales = torch.ones(rows)
    for start, stop in _blocks(rows, columns):
        ranked = torch.stack([_translated(row, ranks) for row in codes[start:stop]])
        ends = book[torch.stack(ranked.aminmax(dim=1)).int()]
        own = scales[start:stop].copy_(_scales(ends.abs().amax(0)))
        tables = torch.zeros(stop - start, 256, dtype=torch.int8)
        # Of codes that the row has not the table may hold anything.
        tables[:, : len(book)] = (book / own[:, None]).round_().clamp_(-MOST_CODE, MOST_CODE)
        for row, table, into in zip(ranked, tables, out[start:stop], strict=True):
            into[:columns] = _translated(row, table).view(torch.int8)
    return Int8Rows(out, scales)


def _translated(codes: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
    """uint8 [C]: table[codes] for uint8 codes [C] and a table of 256 bytes, ten times as fast as by indexing."""
    translated = codes.numpy().tobytes().translate(table.numpy().tobytes())
    return torch.frombuffer(bytearray(translated), dtype=torch.uint8)


def _scales(most: torch.Tensor) -> torch.Tensor:
    # A row of zeros has any scale.
    return torch.where(most > 0, most / MOST_CODE, 1.0).clamp_min(torch.finfo(torch.float32).tiny)


def _inflated(parts: Parts, entry: TensorEncoding, name: str) -> torch.Tensor:
    """As `int8_codes` of `int8_zlib`, without a second copy of the codes on the way."""
    rows, columns = entry.shape
    check_deflated(parts[".codes"], rows * columns, name)
    codes = torch.zeros(rows, padded(columns), dtype=torch.int8)
    stream, decoder, pending, filled = parts[".codes"].numpy().data, zlib.decompressobj(), bytearray(), 0
    try:
        for start in range(0, len(stream), CHUNK):
            pending += decoder.decompress(stream[start : start + CHUNK])
            whole = min(len(pending) // max(columns, 1), rows - filled)
            block = np.frombuffer(pending, np.int8, whole * columns).reshape(whole, columns)
            codes[filled : filled + whole, :columns] = torch.from_numpy(block.copy())
            filled += whole
            del block
            del pending[: whole * columns]
            if decoder.unused_data or (filled == rows and pending):
                break
    except zlib.error:
        filled = -1
    if (filled != rows and columns) or pending or not decoder.eof or decoder.unused_data:
        raise not_unpacked(name)
    return codes
