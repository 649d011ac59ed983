"""Find a user's own features, recognised by the names of their files, and read them video by video."""

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Any

from topgb.errors import InputError, option
from topgb.packing import arrays, hdf5, messages, parquet
from topgb.packing.files import Naming, VideoFile, find_files, name_videos
from topgb.packing.frame_counts import Frames
from topgb.packing.video import RawVideo, check_name, raw_video
from topgb.packing.word_lists import quoted_list

SUFFIXES = (*arrays.SUFFIXES, *messages.SUFFIXES, *hdf5.SUFFIXES, *parquet.SUFFIXES)


@dataclass(frozen=True)
class Reading:
    """How the files of a source are read.

    name    the name of the feature that `.npy` files hold, and of arrays of HDF5 files that are a video each
    naming  whether ids are paths below the source's folder, or the files' names alone
    frames  what becomes of features of one video with unequal numbers of frames
    arrays  what the arrays at the top of HDF5 files are; None: decide by their names
    """

    name: str = "embedding"
    naming: Naming = "path"
    frames: Frames = "equal"
    arrays: hdf5.Arrays | None = None


@dataclass(frozen=True, slots=True)
class Entry:
    """A video of a source: its id and its parts. If there are several parts, each is one feature."""

    id: str
    parts: tuple[VideoFile, ...]


@dataclass(frozen=True)
class Source:
    """Features of videos.

    reading   how they are read
    videos    their number
    entries   the videos in files of one video or of HDF5, sorted by id
    tables    paths of Parquet files instead, in name order
    features  where each feature has a folder of its own, their names, in the order of an entry's parts
    """

    reading: Reading
    videos: int
    entries: tuple[Entry, ...] = ()
    tables: tuple[str, ...] = ()
    features: tuple[str, ...] = field(default=())

    def __iter__(self) -> Iterator[RawVideo]:
        """Read the videos one by one, each with as many frames in every feature. Raises as the readers do."""
        for path in self.tables:
            yield from parquet.read_rows(path, self.reading.frames)
        with ExitStack() as stack:
            files = [_Files(stack.enter_context(ExitStack())) for _ in self.features or [""]]
            for entry in self.entries:
                parts = zip(files, entry.parts, strict=True)
                videos = [file.read(part, self.reading) for file, part in parts]
                yield _joined(entry.id, self.features, videos, self.reading) if self.features else videos[0]

    def only(self, wanted: Callable[[str], bool]) -> "Source":
        """The source without the entries whose id is not `wanted`; rows of tables all stay."""
        kept = tuple(entry for entry in self.entries if wanted(entry.id))
        return replace(self, entries=kept, videos=self.videos - len(self.entries) + len(kept))


def find_source(source: str | Mapping[str, str], reading: Reading) -> Source:
    """Find the features that `source` names: a file, a folder with its subfolders, or a glob; or one for each feature.

    Files of other kinds and names that begin with a dot are ignored. Raises `InputError` if no file is left, if files
    of videos and tables are mixed, if a video has no file of one of the features, if two files give the same id, or if
    no feature can have its name.
    """
    check_name(reading.name, option("name"))
    if isinstance(source, str):
        videos, tables = _find(source, reading)
        if tables:
            return Source(reading, sum(map(parquet.count_rows, tables)), tables=tuple(tables))
        return Source(reading, len(videos), tuple(Entry(video.id, (video,)) for video in videos))
    by_feature = {}
    for name, folder in source.items():
        check_name(name, option("feature"))
        videos, tables = _find(folder, reading)
        if tables:
            raise InputError(
                f"{option('feature', {name: folder})} names Parquet tables; put all features into one table, a column "
                "each, and name it as the source"
            )
        by_feature[name] = {video.id: video for video in videos}
    ids = sorted(set().union(*by_feature.values()))
    for name, found in by_feature.items():
        missing = [video_id for video_id in ids if video_id not in found]
        if missing:
            raise _missing_error(name, source, missing, len(ids))
    entries = tuple(Entry(one, tuple(found[one] for found in by_feature.values())) for one in ids)
    return Source(reading, len(entries), entries, features=tuple(by_feature))


def _find(source: str, reading: Reading) -> tuple[list[VideoFile], list[str]]:
    """The videos in files, sorted by id, or the paths of tables."""
    # Packed records may lie beside the features that they were made of.
    files = find_files(source, SUFFIXES) or find_files(source, (messages.MISLEADING_SUFFIX,))
    if not files:
        raise InputError(
            f"{source!r} names no features: no {', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]} file; name one, a folder "
            "of them, or a glob in quotes, such as 'features/**/*.npy'"
        )
    tables = [file.path for file in files if file.path.endswith(parquet.SUFFIXES)]
    containers = [file for file in files if file.path.endswith(hdf5.SUFFIXES)]
    for kinds, several in (("files of single videos and Parquet tables", tables), ("HDF5 and other files", containers)):
        if 0 < len(several) < len(files):
            raise InputError(f"{source!r} names both {kinds}; pack one kind, naming it with a glob")
    if containers:
        return hdf5.find_videos(containers, reading.arrays, reading.naming), []
    return ([], sorted(tables)) if tables else (name_videos(files, reading.naming), [])


def _missing_error(name: str, source: Mapping[str, str], missing: Collection[str], total: int) -> InputError:
    return InputError(
        f"{source[name]} has no features {name!r} of {len(missing):,} of the {total:,} videos: {quoted_list(missing)}; "
        "every video needs all features, in files of the same path below each folder"
    )


class _Files:
    """Reads videos one by one, and keeps an HDF5 file open while the videos come from it."""

    def __init__(self, stack: ExitStack):
        self._stack, self._path, self._file = stack, "", None

    def read(self, video: VideoFile, reading: Reading) -> RawVideo:
        path = video.found.path
        if path.endswith(hdf5.SUFFIXES):
            return hdf5.read_video(self._open(path), video, reading.name, reading.frames)
        if path.endswith((*messages.SUFFIXES, messages.MISLEADING_SUFFIX)):
            return messages.read_message(path, video.id, reading.frames)
        return arrays.read_arrays(path, reading.name, video.id, reading.frames)

    def _open(self, path: str) -> Any:
        if path != self._path:
            self._stack.close()
            self._file = self._stack.enter_context(hdf5.opened(path))
            self._path = path
        return self._file


def _joined(video_id: str, names: Collection[str], parts: Collection[RawVideo], reading: Reading) -> RawVideo:
    """The video whose features, called `names`, are the one feature of each of its `parts`."""
    features = {}
    for name, part in zip(names, parts, strict=True):
        if len(part.features) > 1:
            raise InputError(
                f"{part.where} holds the features {quoted_list(part.features)}, but stands for {name!r} alone; save "
                "them apart, or name the folder as the source, without a feature's name"
            )
        (features[name],) = part.features.values()
    return raw_video(video_id, " and ".join(part.where for part in parts), features, frames=reading.frames)
