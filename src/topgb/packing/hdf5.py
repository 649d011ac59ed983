"""Read a user's own features from HDF5 files, of one video or of many, by h5py (extra `hdf5`).

No file can make topgb read another one: links, virtual arrays and arrays in external files are refused.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from math import prod
from typing import Any, Literal

import numpy as np

from topgb.errors import InputError, TopgbError, install_extra, printable
from topgb.file_kinds import instead
from topgb.files import refuse_special
from topgb.packing.files import Found, Naming, VideoFile, name_videos, sorted_videos
from topgb.packing.frame_counts import Frames
from topgb.packing.video import (
    RawVideo,
    as_stored,
    check_count,
    check_dtype,
    check_name,
    check_size,
    normal_id,
    raw_video,
)
from topgb.unpacked_size import check_unpacked, max_unpacked

SUFFIXES = (".h5", ".hdf5")
# Each array at the top of a file is a video, or a feature of the one video of the file.
Arrays = Literal["videos", "features"]
_DEEPEST = 16
# deflate, shuffle, fletcher32 and h5py's lzf. Other filters are plug-ins, which HDF5 loads as code.
_FILTERS = {1, 2, 3, 32000}
_UNREADABLE = (OSError, RuntimeError, KeyError, ValueError, TypeError, OverflowError)


def find_videos(files: Sequence[Found], arrays: Arrays | None, naming: Naming) -> list[VideoFile]:
    """The videos in HDF5 files, sorted by id.

    A group that holds arrays is a video, its path in the file the id, and each of its arrays a feature. In files with
    arrays at the top and no groups, each array is a video of one feature, or (`arrays` "features") each file is a video
    and named like other files of one video. By default several files whose arrays have the same names are videos: the
    names cannot be ids. Raises `InputError` naming the file that is not like this, `TopgbError` if h5py is not there.
    """
    contents = {file: _survey(file.path) for file in files}
    tops = [set(top) for top, _ in contents.values()]
    if arrays is None:
        arrays = "features" if len(tops) > 1 and set.intersection(*tops) else "videos"
    videos = []
    for file, (top, groups) in contents.items():
        if top and arrays == "features":
            videos += name_videos([file], naming)
        else:
            videos += [VideoFile(normal_id(name), file, f"/{name}") for name in (*top, *groups)]
    return sorted_videos(videos, naming)


def read_video(file: Any, video: VideoFile, name: str, frames: Frames = "equal") -> RawVideo:
    """Read a video of an opened file; the feature of an array that is a video is called `name`. Raises `InputError`."""
    import h5py

    with _reading(video.found.path):
        # The survey has followed this path from the top, and met no links.
        place = file if video.inside is None else file[video.inside]
        check_count(1 if isinstance(place, h5py.Dataset) else len(place), video.where)
        members = {name: place} if isinstance(place, h5py.Dataset) else {key: place[key] for key in place}
        features = {}
        for key, array in members.items():
            check_name(key, video.where)
            features[key] = _read_array(array, key, video)
    return raw_video(video.id, video.where, features, frames=frames)


@contextmanager
def opened(path: str) -> Iterator[Any]:
    """The file `path`, opened by h5py. Raises `InputError` if it is no HDF5 file, `TopgbError` if h5py is not there."""
    try:
        import h5py
    except ImportError:
        raise TopgbError(f"reading HDF5 needs h5py, which is not installed here; {install_extra('hdf5')}") from None
    refuse_special(path)
    with _reading(path):
        if not h5py.is_hdf5(path) and (other := instead(path, "write it with h5py")):
            raise InputError(f"cannot read {path} as HDF5: {other}")
        file = h5py.File(path, "r")
    with file:
        yield file


@contextmanager
def _reading(path: str) -> Iterator[None]:
    """Turn what h5py raises into an `InputError` that names the file."""
    try:
        yield
    except MemoryError:
        raise InputError(f"{path} has arrays that need more memory than there is; cut its videos") from None
    except _UNREADABLE as error:
        text = printable(" ".join(str(error).split()) or type(error).__name__)[:120]
        raise InputError(f"cannot read {path} as HDF5: {text}; check the path, or write the file anew") from None


def _survey(path: str) -> tuple[list[str], list[str]]:
    """The names of a file's arrays at its top, and the paths of its groups with arrays, in name order."""
    top: list[str] = []
    groups: list[str] = []
    with opened(path) as file, _reading(path):
        import h5py

        size, unpacked = os.path.getsize(path), 0
        seen = {_address(file)}
        waiting = [("", file)]
        while waiting:
            above, group = waiting.pop()
            arrays = []
            for name in group:
                place = f"{above}/{name}"
                if not isinstance(group.get(name, getlink=True), h5py.HardLink):
                    raise InputError(f"{path}: {place} is a link, which is not followed; write its arrays in its place")
                member = group[name]
                if isinstance(member, h5py.Dataset):
                    unpacked += prod(member.shape or (0,)) * member.dtype.itemsize
                    check_unpacked(path, unpacked, size, max_unpacked())
                    arrays.append(name)
                elif isinstance(member, h5py.Group):
                    if _address(member) in seen or place.count("/") > _DEEPEST:
                        raise InputError(f"{path}: {place} is nested too deeply, or stands in the file twice")
                    seen.add(_address(member))
                    waiting.append((place, member))
            if arrays and len(arrays) < len(group):
                raise InputError(
                    f"{path}: {above or '/'} holds both arrays and groups; let each group of arrays be one video"
                )
            if not above:
                top = arrays
            elif arrays:
                groups.append(above[1:])
    if not top and not groups:
        raise InputError(f"{path} holds no arrays; leave it out")
    return sorted(top), sorted(groups)


def _address(place: Any) -> int:
    import h5py

    return h5py.h5o.get_info(place.id).addr


def _read_array(array: Any, name: str, video: VideoFile) -> np.ndarray:
    """An array as uint8 or float32; everything is checked before its values are unpacked."""
    where, path = video.where, video.found.path
    check_dtype(array.dtype.newbyteorder("="), name, where)
    shape = array.shape
    if shape is None or len(shape) > 2:
        raise InputError(f"{where}: feature {name!r} has the shape {shape}; it must be [T, D], or [D]")
    check_size(prod(shape), name, where)
    settings = array.id.get_create_plist()
    filters = {settings.get_filter(number)[0] for number in range(settings.get_nfilters())}
    if array.is_virtual or array.external or filters - _FILTERS:
        raise InputError(
            f"{where}: the values of {name!r} stand in other files, or are packed by a plug-in; write them into this "
            "file, packed by gzip or lzf if at all"
        )
    # HDF5 unpacks whole chunks, however few of their values the array has.
    for values in (prod(shape), prod(array.chunks or (0,))):
        check_unpacked(path, values * array.dtype.itemsize, os.path.getsize(path), max_unpacked())
    if not _is_written(array):
        raise InputError(
            f"{where}: values of {name!r} were never written, and HDF5 would put {array.fillvalue:g} in their place; "
            "finish the array, or leave it out"
        )
    return as_stored(np.asarray(array[()]))


def _is_written(array: Any) -> bool:
    """Whether all values of an array are in the file; those that were never written are its fill value to HDF5."""
    if array.chunks is None:
        return bool(array.id.get_storage_size() or not array.size)
    pieces = prod(-(-length // chunk) for length, chunk in zip(array.shape, array.chunks, strict=True))
    return array.id.get_num_chunks() >= pieces
