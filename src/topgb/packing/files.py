"""Find the files of a user's features, and name the videos in them: an id is the path below the folder."""

import glob
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, NamedTuple

from topgb.errors import InputError, option
from topgb.packing.video import normal_id

Naming = Literal["path", "stem"]


class Found(NamedTuple):
    """A file: the `path` to open it by, and its path `below` the folder of the source, with `/` between the parts."""

    path: str
    below: str


@dataclass(frozen=True, slots=True)
class VideoFile:
    """A video of a source, or its part in a file.

    id      in the form in which ids compare (`normal_id`)
    found   its file
    inside  the place of its arrays in an HDF5 file of several videos; None for a file of one video
    """

    id: str
    found: Found
    inside: str | None = None

    @property
    def where(self) -> str:
        """The file, and the place in it, as messages name them."""
        return self.found.path if self.inside is None else f"{self.found.path}: {self.inside}"


def find_files(source: str, suffixes: Sequence[str]) -> list[Found]:
    """The files that `source` names (a file, a folder with its subfolders, or a glob) and that end like `suffixes`.

    Names that begin with a dot are left out. A glob's folder is the part before its first wildcard.
    """
    source = os.path.expanduser(source)
    if os.path.isdir(source):
        root, paths = source, list(_files_below(source, tuple(suffixes), ()))
    elif os.path.exists(source):
        root, paths = os.path.dirname(source), [source]
    else:
        root, paths = _fixed_folder(source), glob.glob(source, recursive=True)
    return [
        Found(path, in_utf8(_below(path, root)).replace(os.sep, "/"))
        for path in paths
        if path.endswith(tuple(suffixes)) and not os.path.basename(path).startswith(".")
    ]


def _below(path: str, root: str) -> str:
    start = os.path.join(root, "") if root else ""
    rest = path[len(start) :]
    # os.path.relpath would take most of the time where there are many files.
    return rest if path.startswith(start) and not rest.startswith(os.sep) else os.path.relpath(path, root or os.curdir)


def in_utf8(path: str) -> str:
    """A path as UTF-8 names it, whatever encoding of names Python took from the locale."""
    return os.fsencode(path).decode("utf-8", "surrogateescape")


def _files_below(folder: str, suffixes: tuple[str, ...], above: tuple[tuple[int, int], ...]) -> Iterator[str]:
    """All files in a folder and its subfolders, except folders that a link puts inside themselves."""
    try:
        found = os.stat(folder)
        with os.scandir(folder) as entries:
            children = sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        raise InputError(f"cannot read {folder}: {error.strerror}; check the path and its permissions") from None
    here = (found.st_dev, found.st_ino)
    if here in above:
        return
    for child in children:
        if child.name.startswith("."):
            continue
        if child.is_dir():
            if child.name.endswith(suffixes):
                raise InputError(f"{child.path} is not a file, although it is called like one; rename the folder")
            yield from _files_below(child.path, suffixes, (*above, here))
        else:
            yield child.path


def _fixed_folder(pattern: str) -> str:
    """The folder that a glob begins with, before any wildcard."""
    folder = os.path.dirname(pattern)
    while glob.has_magic(folder):
        folder = os.path.dirname(folder)
    return folder


def name_videos(files: Sequence[Found], naming: Naming) -> list[VideoFile]:
    """Files of one video each, sorted by id. Raises `InputError` naming both files where two give the same id."""
    return sorted_videos([VideoFile(_id(file, naming), file) for file in files], naming)


def sorted_videos(videos: list[VideoFile], naming: Naming = "path") -> list[VideoFile]:
    """The videos sorted by id. Raises `InputError` naming both places where two have the same id."""
    videos.sort(key=lambda video: (video.id, video.where))
    for first, second in pairwise(videos):
        if first.id == second.id:
            remedy = "give each video a name of its own"
            if naming == "stem":
                remedy += f", or use {option('id', 'path')}, which takes the folders' names into the ids"
            raise InputError(f"{second.where}: the id {second.id!r} occurs twice, first in {first.where}; {remedy}")
    return videos


def _id(file: Found, naming: Naming) -> str:
    name, _ = os.path.splitext(file.below)
    return normal_id(name if naming == "path" else name.rpartition("/")[2])
