"""Read a user's own features from Parquet tables, one row per video."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from topgb.errors import InputError, TopgbError, install_extra, printable
from topgb.file_kinds import instead
from topgb.packing.frame_counts import Frames
from topgb.packing.parquet_sizes import column_sizes
from topgb.packing.video import RawVideo, as_stored, check_count, check_dtype, check_name, check_size, raw_video
from topgb.unpacked_size import check_unpacked, max_unpacked

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

SUFFIXES = (".parquet", ".pq")
# Rows in memory at a time. A row of 300 frames of YouTube-8M's widths takes 1.4 MB as floats.
ROWS = 64
_BUFFER_BYTES = 1 << 20
# The fewest bytes that a value takes while it is read, with its levels in nested lists.
_VALUE_BYTES = 4
# Messages show so many characters of an id.
_LONGEST_SHOWN = 80
ID, LABELS = "id", "labels"


def count_rows(path: str) -> int:
    """The number of rows of a Parquet file. Raises as `read_rows`."""
    with _open_table(path) as file:
        return file.metadata.num_rows


def read_rows(path: str, frames: Frames = "equal") -> Iterator[RawVideo]:
    """Read the videos of a Parquet file, in the order of its rows, a few rows in memory at a time.

    id       column of strings or integers
    labels   optional column of strings (names with separators between them) or lists of strings; null makes a video
             unlabelled
    others   each is a feature, of floats or uint8: lists (one vector [D] of the whole video) or lists of lists (frames
             [T, D]), whose type may or may not fix their size

    Raises `InputError` naming file and row if the table is not like this, and `TopgbError` if pyarrow is not installed.
    """
    with _open_table(path) as file:
        features = _feature_axes(file.schema_arrow, path)
        batches = file.iter_batches(batch_size=ROWS)
        row = 0
        while (batch := _next_batch(batches, path)) is not None:
            for position in range(batch.num_rows):
                yield _read_video(batch, position, features, f"{path}: row {row}", frames)
                row += 1
        if row != file.metadata.num_rows:
            raise InputError(
                f"{path} says that it has {file.metadata.num_rows:,} rows, but {row:,} can be read; write the file anew"
            )


@contextmanager
def _open_table(path: str) -> "Iterator[pq.ParquetFile]":
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise TopgbError(
            f"reading Parquet needs pyarrow, which is not installed here; {install_extra('parquet')}"
        ) from None
    try:
        # By default pyarrow keeps a whole row group in memory, and that may be the whole table.
        file = pq.ParquetFile(path, pre_buffer=False, buffer_size=_BUFFER_BYTES)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise _unreadable_error(path, error) from None
    with file:
        # Each column counts, whatever it holds: the sizes of all of them are read.
        check_count(file.metadata.num_columns - len({ID, LABELS} & set(file.schema_arrow.names)), path)
        _check_sizes(path)
        yield file


def _check_sizes(path: str) -> None:
    """Raise `InputError` if the file's values take more than it may unpack to, or its footer is malformed."""
    needed = longest = 0
    try:
        for column in column_sizes(path):
            # Encodings can hold a thousand million equal values in some bytes, so the bytes of a column say too little.
            needed += max(column.size, column.values * _VALUE_BYTES)
            longest = max(longest, column.longest)
    except (OSError, ValueError) as error:
        raise _unreadable_error(path, error) from None
    # Each row in memory gets a copy of a text that a dictionary holds once.
    check_unpacked(path, max(needed, longest * ROWS), os.path.getsize(path), max_unpacked())


def _next_batch(batches: "Iterator[pa.RecordBatch]", path: str) -> "pa.RecordBatch | None":
    import pyarrow as pa

    try:
        return next(batches, None)
    except MemoryError:
        raise InputError(
            f"{path} has rows that need more memory than there is; write it anew with smaller row groups"
        ) from None
    except (pa.ArrowException, OSError, ValueError, RuntimeError) as error:
        raise _unreadable_error(path, error) from None


def _unreadable_error(path: str, error: BaseException) -> InputError:
    text = " ".join(str(error).split()) or type(error).__name__
    said = f"{printable(text[:120])}; check the path, or write the file anew"
    if "encrypted" in text:
        said = "it is encrypted; write it anew without encryption"
    elif "magic bytes not found" in text:
        said = instead(path, "write it as Parquet", "a Parquet table") or said
    return InputError(f"cannot read {path} as Parquet: {said}")


def _feature_axes(schema: "pa.Schema", path: str) -> dict[str, int]:
    """The columns that are features, by name, with their number of axes: 1 for [D], 2 for [T, D]."""
    import pyarrow as pa

    names = schema.names
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"{path} has the column {name!r} twice; give each a name of its own")
    if ID not in names:
        held = printable(", ".join(names[:8])) + (", …" if len(names) > 8 else "")
        raise InputError(
            f"{path} has no column {ID!r}; it needs one row per video, with its id in that column; it has: {held}"
        )
    kind = schema.field(ID).type
    if not (_is_text(kind) or pa.types.is_integer(kind)):
        raise InputError(f"{path}: the column {ID!r} holds {kind}; ids are strings or integers")
    if LABELS in names:
        kind = schema.field(LABELS).type
        if not _is_text(_element_type(kind) or kind):
            raise InputError(f"{path}: the column {LABELS!r} holds {kind}; labels are class names, a list of strings")
    return {name: _count_axes(schema.field(name).type, name, path) for name in names if name not in (ID, LABELS)}


def _count_axes(kind: "pa.DataType", name: str, path: str) -> int:
    check_name(name, path)
    inner = _element_type(kind)
    if inner is None:
        raise InputError(
            f"{path}: the column {name!r} holds {str(kind)[:40]}; a feature is a list of numbers, or of lists of them, "
            "so leave the column out"
        )
    innermost = _element_type(inner)
    try:
        dtype: Any = np.dtype((innermost or inner).to_pandas_dtype())
    except NotImplementedError:
        dtype = np.dtype(object)
    if dtype.hasobject:
        # Arrow's own name says what it is: text, decimals, lists of lists of lists.
        dtype = str(innermost or inner)
    check_dtype(dtype, name, path)
    return 1 if innermost is None else 2


def _element_type(kind: "pa.DataType") -> "pa.DataType | None":
    """The type of a list's elements, or None if `kind` is not a list."""
    import pyarrow as pa

    is_list = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    return kind.value_type if is_list else None


def _is_text(kind: "pa.DataType") -> bool:
    import pyarrow as pa

    # A column of few different texts, such as a category of pandas.
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


def _read_video(
    batch: "pa.RecordBatch", position: int, features: dict[str, int], where: str, frames: Frames
) -> RawVideo:
    video_id = _read_text(batch.column(ID)[position], ID, where)
    where = f"{where} (id {video_id[:_LONGEST_SHOWN]!r})"
    labels = None
    labelled = LABELS in batch.schema.names
    if labelled:
        labels = _read_labels(batch.column(LABELS)[position], where)
    arrays = {name: _read_feature(batch.column(name)[position], axes, name, where) for name, axes in features.items()}
    return raw_video(video_id, where, arrays, labels, labelled and labels is None, frames)


def _read_text(value: "pa.Scalar", name: str, where: str) -> str:
    if not value.is_valid:
        raise InputError(f"{where} has no {name} (null); give each video one")
    try:
        return str(value.as_py())
    except UnicodeDecodeError:
        raise InputError(f"{where}: its {name} is not UTF-8; write the file anew") from None


def _read_labels(value: Any, where: str) -> str | tuple[str, ...] | None:
    if not value.is_valid:
        return None
    if _is_text(value.type):
        return _read_text(value, LABELS, where)
    return tuple(_read_text(value.values[number], "label", where) for number in range(len(value.values)))


def _read_feature(value: Any, axes: int, name: str, where: str) -> np.ndarray:
    if not value.is_valid:
        raise _null_error(name, where)
    rows = value.values
    if axes == 1:
        return as_stored(_read_numbers(rows, name, where))
    if rows.null_count:
        raise _null_error(name, where)
    widths = set(rows.value_lengths().to_pylist())
    if len(widths) > 1:
        raise InputError(
            f"{where}: feature {name!r} has frames of {min(widths)} to {max(widths)} values; it needs one width"
        )
    return as_stored(_read_numbers(rows.flatten(), name, where)).reshape(len(rows), widths.pop() if widths else 0)


def _read_numbers(values: "pa.Array", name: str, where: str) -> np.ndarray:
    check_size(len(values), name, where)
    if values.null_count:
        raise _null_error(name, where)
    return values.to_numpy(zero_copy_only=False)


def _null_error(name: str, where: str) -> InputError:
    return InputError(f"{where}: feature {name!r} has empty (null) values; leave the video out, or fill them")
