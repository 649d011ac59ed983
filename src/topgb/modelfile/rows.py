"""Convert a stored matrix to rows of int8 or bfloat16, block by block, without a float32 copy of the whole matrix.

Rows of `int8` and `int8_zlib` are exactly those of the file. `groups` and codebooks of unequal steps are rounded to
int8 once more, which moves a weight by at most 0.4 % of the largest in its row (docs/model-file.md has the encodings);
the sums of their rows are kept exactly.
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
# Weights converted at once: a few megabytes as float32, small enough that freed blocks leave no memory behind.
BLOCK = 1 << 18
# Compressed bytes read at once; zlib unpacks them to at most about a thousand times as many.
CHUNK = 1 << 14
# A codebook counts as uniform if no level leaves the straight line by more than this share of a step.
STRAIGHT = 1e-3


@dataclass(frozen=True)
class Int8Rows:
    """A matrix [R, C] as code · scale + offset.

    codes    int8 [R, C rounded up to a multiple of 16], contiguous; codes past column C have no meaning
    scales   float32 [R]
    offset   added to every value
    sums     float32 [R]: the sum of each row's stored values; None where code · scale is each value exactly
    """

    codes: torch.Tensor
    scales: torch.Tensor
    offset: float = 0.0
    sums: torch.Tensor | None = None


def int8_rows(parts: Parts, entry: TensorEncoding, name: str) -> Int8Rows:
    """Checked parts of a quantised matrix as int8 rows; the codes of `int8` are the tensor in `parts`, not a copy.

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
    codes, scales, sums = torch.zeros(rows, padded(columns), dtype=torch.int8), torch.ones(rows), torch.zeros(rows)
    for start, block in float_blocks(parts, entry):
        sums[start : start + len(block)] = block.sum(1)
        own = scales[start : start + len(block)].copy_(_scales(block.abs().amax(1)))
        codes[start : start + len(block), :columns] = block.div_(own[:, None]).round_()
    return Int8Rows(codes, scales, sums=sums)


def bfloat16_rows(parts: Parts, entry: TensorEncoding, name: str) -> torch.Tensor:
    """Checked parts of a matrix as bfloat16 [R, C]. Raises `InputError` as `int8_rows` does."""
    if entry.encoding == "int8_zlib":
        entry, parts = dataclasses.replace(entry, encoding="int8"), {**parts, ".codes": _inflated(parts, entry, name)}
    rows = torch.empty(entry.shape, dtype=torch.bfloat16)
    for start, block in float_blocks(parts, entry):
        rows[start : start + len(block)] = block
    return rows


def float_blocks(parts: Parts, entry: TensorEncoding) -> Iterator[tuple[int, torch.Tensor]]:
    """Yield blocks (first row, values float32 [n, C]) of a matrix in any encoding but `int8_zlib`."""
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
    """A matrix of codes uint8 [R, C] and a codebook float32 [K] as int8 rows.

    A codebook of equal steps gives its codes minus 128, one scale (the step) for all rows, and an offset: exact. Any
    other codebook is rounded to int8 with one scale per row, which the row's largest absolute value determines.
    """
    rows, columns = codes.shape
    out = torch.zeros(rows, padded(columns), dtype=torch.int8)
    step = float(book[-1] - book[0]) / max(len(book) - 1, 1) if len(book) else 0.0
    line, sums = step * torch.arange(len(book)) + (book[0] if len(book) else 0.0), torch.zeros(rows)
    if bool(((book - line).abs() <= STRAIGHT * abs(step)).all()):
        offset = float(line[0]) + 128 * step if len(line) else 0.0
        for start, stop in _blocks(rows, columns):
            block = (codes[start:stop] ^ 128).view(torch.int8)
            out[start:stop, :columns] = block
            sums[start:stop] = (block.sum(1).double() * step + offset * columns).float()
        return Int8Rows(out, torch.full((rows,), step), offset, sums)
    # Renumber the codes by value: then the least and greatest code of a row stand for its least and greatest value.
    book, order = book.sort()
    ranks = torch.zeros(256, dtype=torch.uint8)
    ranks[order] = torch.arange(len(book), dtype=torch.uint8)
    scales = torch.ones(rows)
    for start, stop in _blocks(rows, columns):
        ranked = torch.stack([_translated(row, ranks) for row in codes[start:stop]])
        ends = book[torch.stack(ranked.aminmax(dim=1)).int()]
        own = scales[start:stop].copy_(_scales(ends.abs().amax(0)))
        tables = torch.zeros(stop - start, 256, dtype=torch.int8)
        # Codes that do not occur in the row may be clamped to a wrong value: nothing reads them.
        tables[:, : len(book)] = (book / own[:, None]).round_().clamp_(-MOST_CODE, MOST_CODE)
        for row, table, into in zip(ranked, tables, out[start:stop], strict=True):
            into[:columns] = _translated(row, table).view(torch.int8)
        counts = torch.stack([torch.bincount(row, minlength=len(book)) for row in ranked])
        sums[start:stop] = (counts.double() @ book.double()).float()
    return Int8Rows(out, scales, sums=sums)


def _translated(codes: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
    """table[codes], uint8 [C], for codes uint8 [C] and a table of 256 bytes; ten times as fast as indexing."""
    translated = codes.numpy().tobytes().translate(table.numpy().tobytes())
    return torch.frombuffer(bytearray(translated), dtype=torch.uint8)


def _scales(most: torch.Tensor) -> torch.Tensor:
    """The scale of each row, float32 [R], at which its largest absolute value `most` (float32 [R]) has code 127."""
    # A row of zeros may have any scale.
    return torch.where(most > 0, most / MOST_CODE, 1.0).clamp_min(torch.finfo(torch.float32).tiny)


def _inflated(parts: Parts, entry: TensorEncoding, name: str) -> torch.Tensor:
    """The codes int8 [R, padded columns] of `int8_zlib`, as by `int8_codes` but without a second copy of the codes."""
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
