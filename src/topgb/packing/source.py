"""Find a user's own features: NumPy files, files of one message each, or Parquet tables, recognised by their names."""

import glob
import os
from collections.abc import Iterator
from dataclasses import dataclass

from topgb.errors import InputError, option
from topgb.packing import arrays as pack_arrays
from topgb.packing import messages
from topgb.packing import parquet as pack_parquet
from topgb.packing.video import RawVideo, check_name

SUFFIXES = (*pack_arrays.SUFFIXES, *messages.SUFFIXES, *pack_parquet.SUFFIXES)


@dataclass(frozen=True)
class Source:
    """Files of features.

    paths   files of one video each, in the order of their ids, or Parquet files in the order of their paths
    tables  whether they are Parquet
    name    what the feature of a `.npy` file is called
    videos  number of videos in all files
    """

    paths: tuple[str, ...]
    tables: bool
    name: str
    videos: int

    def __iter__(self) -> Iterator[RawVideo]:
        """Read the videos one by one. Raises as `read_arrays` and `read_rows`."""
        for path in self.paths:
            if self.tables:
                yield from pack_parquet.read_rows(path)
            elif path.endswith((*messages.SUFFIXES, messages.MISLEADING_SUFFIX)):
                yield messages.read_message(path)
            else:
                yield pack_arrays.read_arrays(path, self.name)


def find_source(source: str, name: str = "embedding") -> Source:
    """Find the features that `source` names: a file, a folder (without its subfolders) or a glob.

    Files of other kinds and files whose names begin with a dot are ignored. Raises `InputError` if no file is left, if
    files of single videos and tables are mixed, or if no feature can have the name `name`.
    """
    check_name(name, option("name"))
    expanded = os.path.expanduser(source)
    if os.path.isdir(expanded):
        found = [os.path.join(expanded, entry) for entry in os.listdir(expanded)]
    elif os.path.exists(expanded):
        found = [expanded]
    else:
        found = glob.glob(expanded, recursive=True)
    found = [path for path in found if not os.path.basename(path).startswith(".")]
    # Packed records may lie beside the features that they were made of.
    paths = [path for path in found if path.endswith(SUFFIXES)] or [
        path for path in found if path.endswith(messages.MISLEADING_SUFFIX)
    ]
    if not paths:
        raise InputError(
            f"{source!r} names no features: no {', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]} file; name one, a folder "
            "of them, or a glob in quotes, such as 'features/**/*.npy' for folders in folders"
        )
    tables = [path for path in paths if path.endswith(pack_parquet.SUFFIXES)]
    if tables and len(tables) < len(paths):
        raise InputError(
            f"{source!r} names both files of single videos and Parquet tables; pack one kind, naming it with a glob"
        )
    if tables:
        paths.sort()
        return Source(tuple(paths), True, name, sum(map(pack_parquet.count_rows, paths)))
    paths.sort(key=lambda path: (os.path.splitext(os.path.basename(path))[0], path))
    return Source(tuple(paths), False, name, len(paths))
