"""Read a user's own features from NumPy files, one file per video, without unpickling anything."""

import os
import zipfile
import zlib
from lzma import LZMAError
from math import prod
from pathlib import Path
from typing import IO

import numpy as np

from topgb.errors import InputError
from topgb.packing.video import RawVideo, as_stored, check_dtype, check_name, check_size, raw_video

SUFFIXES = (".npy", ".npz")
_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
# zipfile raises these for archives that are damaged, encrypted or compressed in a way that it does not know.
_BROKEN_ARCHIVE = (
    zipfile.BadZipFile,
    zlib.error,
    LZMAError,
    EOFError,
    ValueError,
    OverflowError,
    RuntimeError,
    OSError,
)


def read_arrays(path: str, name: str) -> RawVideo:
    """Read the video in a `.npy` file (one feature, called `name`) or a `.npz` file (one feature per array).

    An array of a `.npz` file gives the feature its name. The video's id is the file's name without the suffix. Raises
    `InputError` naming the file if it cannot be read, or if it holds anything but float or uint8 arrays [T, D] or [D].
    """
    video_id, suffix = os.path.splitext(os.path.basename(path))
    if not Path(path).is_file():
        raise InputError(f"{path} is not a file; name .npy or .npz files, one a video")
    try:
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            features = {name: _read_array(file, size, name, path)} if suffix == ".npy" else _read_archive(file, path)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}; check the path and its permissions") from None
    return raw_video(video_id, path, features)


def _read_archive(file: IO[bytes], path: str) -> dict[str, np.ndarray]:
    features: dict[str, np.ndarray] = {}
    try:
        with zipfile.ZipFile(file) as archive:
            for entry in archive.infolist():
                name = entry.filename.removesuffix(".npy")
                check_name(name, path)
                if name in features:
                    raise InputError(f"{path} holds the array {name!r} twice; save it anew with np.savez")
                with archive.open(entry) as member:
                    features[name] = _read_array(member, entry.file_size, name, path)
    except _BROKEN_ARCHIVE as error:
        raise InputError(f"{path} is not a .npz file ({_one_line(error)}); save it anew with np.savez") from None
    return features


def _read_array(file: IO[bytes], size: int, name: str, path: str) -> np.ndarray:
    """Read the array in `size` bytes as uint8 or float32; its header is checked before anything is allocated."""
    try:
        version = np.lib.format.read_magic(file)
        if version not in _HEADERS:
            raise ValueError(f"its version is {version}")
        shape, fortran_order, dtype = _HEADERS[version](file)
    except Exception as error:
        # The header is Python text, and NumPy's parser raises errors without a common base class.
        raise InputError(f"{path}: {name!r} is not a NumPy array ({_one_line(error)}); save it with np.save") from None
    check_dtype(dtype.newbyteorder("="), name, path)
    if len(shape) > 2 or any(length < 0 for length in shape):
        raise InputError(f"{path}: feature {name!r} has the shape {shape}; it must be [T, D], or [D]")
    values = prod(shape)
    check_size(values, name, path)
    wanted = values * dtype.itemsize
    if wanted > size:
        raise _cut_short_error(path, name)
    data = file.read(wanted)
    if len(data) < wanted:
        raise _cut_short_error(path, name)
    array = np.frombuffer(data, dtype).reshape(shape, order="F" if fortran_order else "C")
    return as_stored(array)


def _cut_short_error(path: str, name: str) -> InputError:
    return InputError(f"{path} is cut off: the array {name!r} lacks some of its bytes; make the file anew")


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 80 else text[:80] + "…"
