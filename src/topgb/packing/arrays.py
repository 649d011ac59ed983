"""Read a user's own features from NumPy files, one file per video, without unpickling anything."""

import io
import os
import zipfile
import zlib
from lzma import LZMAError
from math import prod
from pathlib import Path
from typing import IO

import numpy as np

from topgb.errors import InputError, printable
from topgb.file_kinds import instead
from topgb.files import open_input
from topgb.packing.frame_counts import Frames
from topgb.packing.video import RawVideo, as_stored, check_count, check_dtype, check_name, check_size, raw_video
from topgb.unpacked_size import check_unpacked, max_unpacked

SUFFIXES = (".npy", ".npz")
_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
# The compression methods that np.savez uses. With the others, a single read may return gigabytes.
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_ENCRYPTED = 1
# Magic, version and the length of the header: of two bytes in version 1, of four in version 2.
_SIZED = 12
# NumPy's own limit.
_LONGEST_HEADER = 10_000
# NumPy's own limit is a little higher, and counts bytes.
_LONGEST_AXIS = 1 << 60
# Values read at once.
_PIECE = 1 << 18
# zipfile raises these for archives that are damaged, encrypted or compressed in a way that it does not know.
BROKEN_ARCHIVE = (
    zipfile.BadZipFile,
    zlib.error,
    LZMAError,
    EOFError,
    ValueError,
    OverflowError,
    RuntimeError,
    OSError,
)


def read_arrays(path: str, name: str, video_id: str | None = None, frames: Frames = "equal") -> RawVideo:
    """Read the video in a `.npy` file (one feature, called `name`) or a `.npz` file (one feature per array).

    An array of a `.npz` file gives the feature its name. `video_id` None is the file's name without the suffix. Raises
    `InputError` naming the file if it cannot be read, or if it holds anything but float or uint8 arrays [T, D] or [D].
    """
    stem, suffix = os.path.splitext(os.path.basename(path))
    if not Path(path).is_file():
        raise InputError(f"{path} is not a file; name .npy or .npz files, one a video")
    try:
        with open_input(path) as file:
            size = os.fstat(file.fileno()).st_size
            features = {name: _read_array(file, size, name, path)} if suffix == ".npy" else _read_archive(file, path)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}; check the path and its permissions") from None
    return raw_video(stem if video_id is None else video_id, path, features, frames=frames)


def _read_archive(file: IO[bytes], path: str) -> dict[str, np.ndarray]:
    features: dict[str, np.ndarray] = {}
    unpacked = 0
    try:
        with zipfile.ZipFile(file) as archive:
            entries = archive.infolist()
            check_count(len(entries), path)
            for entry in entries:
                name = entry.filename.removesuffix(".npy")
                check_name(name, path)
                if name in features:
                    raise InputError(f"{path} holds the array {name!r} twice; save it anew with np.savez")
                if entry.compress_type not in _METHODS:
                    raise ValueError("its arrays are compressed in another way than NumPy's")
                if entry.flag_bits & _ENCRYPTED:
                    raise ValueError("its arrays are encrypted")
                with archive.open(entry) as member:
                    features[name] = _read_array(member, entry.file_size, name, path, unpacked)
                unpacked += features[name].nbytes
    except BROKEN_ARCHIVE as error:
        said = f" ({_one_line(error)}); save it anew with np.savez"
        if not zipfile.is_zipfile(path) and (other := instead(path, "save its arrays with np.savez", ".npz")):
            said = f": {other}"
        raise InputError(f"{path} is not a .npz file{said}") from None
    return features


def _read_array(file: IO[bytes], size: int, name: str, path: str, unpacked: int = 0) -> np.ndarray:
    """Read the array in `size` bytes as uint8 or float32; its header is checked before anything is allocated.

    `unpacked` bytes of the same archive have been read before.
    """
    try:
        shape, fortran_order, dtype = read_header(file)
    except Exception as error:
        # The header is Python text, and NumPy's parser raises errors without a common base class.
        if str(error).startswith("EOF") and path.endswith(SUFFIXES[0]):
            raise InputError(f"{path} is cut off in the header of the array {name!r}; copy or save it again") from None
        said = f" ({_one_line(error)}); save it with np.save"
        if "magic string" in said and path.endswith(SUFFIXES[0]) and (other := instead(path, "save it with np.save")):
            said = f": {other}"
        raise InputError(f"{path}: {name!r} is not a NumPy array{said}") from None
    check_dtype(dtype.newbyteorder("="), name, path)
    # NumPy's parser also lets through True, and numbers that no array can have.
    if len(shape) > 2 or any(type(length) is not int or not 0 <= length <= _LONGEST_AXIS for length in shape):
        raise InputError(f"{path}: feature {name!r} has the shape {shape}; it must be [T, D], or [D]")
    values = prod(shape)
    check_size(values, name, path)
    wanted = values * dtype.itemsize
    if wanted > size:
        raise _cut_short_error(path, name)
    check_unpacked(path, unpacked + wanted, os.path.getsize(path), max_unpacked())
    array = np.empty(values, np.uint8 if dtype == np.uint8 else np.float32)
    for start in range(0, values, _PIECE):
        piece = array[start : start + _PIECE]
        data = file.read(len(piece) * dtype.itemsize)
        if len(data) < len(piece) * dtype.itemsize:
            raise _cut_short_error(path, name)
        piece[:] = as_stored(np.frombuffer(data, dtype))
    # An archive compares its checksum only where a member is read to its end.
    if file.read(1):
        raise InputError(
            f"{path}: {name!r} holds more behind its array of the shape {list(shape)}, as a file does that np.save "
            "wrote to more than once; save one array of all frames"
        )
    return array.reshape(shape, order="F" if fortran_order else "C")


def read_header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Shape, whether in Fortran's order, and dtype of a `.npy` file, which is read up to its values.

    NumPy alone would read a header of gigabytes before refusing it. Raises whatever NumPy's parser does.
    """
    start = file.read(_SIZED)
    version = np.lib.format.read_magic(io.BytesIO(start))
    if version not in _HEADERS:
        raise ValueError(f"its version is {version}")
    length = int.from_bytes(start[8:10] if version == (1, 0) else start[8:12], "little")
    if length > _LONGEST_HEADER:
        raise ValueError(f"its header has {length:,} bytes")
    read_already = _SIZED - 10 if version == (1, 0) else 0
    return _HEADERS[version](io.BytesIO(start[8:] + file.read(max(0, length - read_already))))


def _cut_short_error(path: str, name: str) -> InputError:
    return InputError(f"{path} is cut off: the array {name!r} lacks some of its bytes; copy or save it again")


def _one_line(error: Exception) -> str:
    text = printable(" ".join(str(error).split()) or type(error).__name__)
    return text if len(text) <= 80 else text[:80] + "…"
