"""Find the videos that a user names: files, folders, globs, or CSVs that list them."""

import os
from collections.abc import Sequence
from pathlib import Path

from topgb.csv_tables import read_table
from topgb.errors import InputError
from topgb.packing.files import Found, VideoFile, find_files, name_videos
from topgb.video.opening import PICTURE_SUFFIXES, SUFFIXES

_LISTS = (".csv", ".csv.gz", ".tsv")
# Cameras write .MP4 and .MOV.
_KNOWN = tuple(suffix for one in (*SUFFIXES, *PICTURE_SUFFIXES) for suffix in (one, one.upper()))


def find_videos(sources: Sequence[str]) -> tuple[list[VideoFile], Path | None]:
    """The videos, sorted by id, and the CSV among the sources that labels them, if one has a column `labels`.

    An id is a video's path below the folder that was named, below the CSV's folder, or its name, without the suffix.
    Raises `InputError` if a source names no video, if two videos have the same id, or if a CSV has no column `path`.
    """
    if not sources:
        raise InputError("no video is named; name files, folders, globs in quotes, or CSVs with a column path")
    found: dict[str, Found] = {}
    labels: list[Path] = []
    for source in sources:
        if source.lower().endswith(_LISTS):
            files, labelled = _listed(Path(os.path.expanduser(source)))
            labels += [Path(source)] if labelled else []
        else:
            files = _named(source)
        for file in files:
            # A file that is named twice, in a folder and by itself, is one video.
            found.setdefault(os.path.abspath(file.path), file)
    if len(labels) > 1:
        raise InputError(f"{labels[0]} and {labels[1]} both have a column labels; put the labels into one CSV")
    return name_videos(list(found.values()), "path"), labels[0] if labels else None


def _named(source: str) -> list[Found]:
    expanded = os.path.expanduser(source)
    if os.path.isfile(expanded):
        # The user named this file, so take it whatever its suffix.
        return [Found(expanded, os.path.basename(expanded))]
    found = find_files(source, _KNOWN)
    if not found:
        missing = "does not exist" if not os.path.exists(expanded) else "holds no video, sound or picture"
        raise InputError(
            f"{source} {missing}; name a file, a folder of {SUFFIXES[12]}, {SUFFIXES[15]} and the like, a glob in "
            "quotes, or a CSV with a column path"
        )
    return found


def _listed(path: Path) -> tuple[list[Found], bool]:
    """The videos in a CSV's column `path`, and whether it has a column `labels`."""
    table = read_table(path, ("path", "labels"))
    column = table.find(("path",))
    if column is None:
        raise InputError(f"{path} has no column 'path' in its first line, which is {table.seen()}; list videos in one")
    folder, found = path.parent, []
    for line, row in table.rows:
        given = row[column].strip() if column < len(row) else ""
        if not given:
            raise InputError(f"{path}: line {line} has an empty path; give each row the path of a video")
        # An absolute path stays as it is.
        place = os.path.normpath(os.path.join(folder, os.path.expanduser(given)))
        below = os.path.relpath(place, folder)
        outside = below.startswith(os.pardir + os.sep)
        found.append(Found(place, os.path.basename(place) if outside else below.replace(os.sep, "/")))
    if not found:
        raise InputError(f"{path} lists no video; below its first line each video needs a row")
    return found, table.find(("labels",)) is not None
