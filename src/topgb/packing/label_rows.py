"""Find the video that each row of the labels' CSV names: by id, by path, or by the file's name where that is unique."""

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

from topgb.errors import InputError, option
from topgb.packing.files import Found, in_utf8
from topgb.packing.labels import Labels
from topgb.packing.source import Entry
from topgb.packing.video import normal_id
from topgb.packing.word_lists import quoted_list

Unlabelled = Literal["stop", "skip", "keep"]
# The ending of another file than the features', such as the clip they were made of.
_ENDING = re.compile(r"\.\w{1,5}$")


def match_rows(labels: Labels, entries: Sequence[Entry], labels_file: Path) -> Labels:
    """The labels by the ids of the videos that the rows name; rows that name none of `entries` keep their names.

    A row names a video by its id; by the path of its file, below the source's folder, with that folder's name before
    it, from the CSV's folder, or as the shell would find it; or by the file's name alone; each with or without the
    ending, or with that of another file (`a/clip.mp4`). Raises `InputError` if it names a file that two folders have,
    or if rows with different endings name the same video.
    """
    names = _Names(entries, labels_file)
    matched: Labels = {}
    by_ending: dict[str, str] = {}
    for row, found in labels.items():
        video_id = names.find(row)
        if video_id is None and (ending := _ENDING.search(row)):
            video_id = names.find(row[: ending.start()])
            if video_id is not None and by_ending.setdefault(video_id, row) != row:
                raise InputError(
                    f"{labels_file} has rows for {by_ending[video_id]!r} and {row!r}, which both mean the video "
                    f"{video_id!r}; keep the one whose features these are"
                )
        key = row if video_id is None else video_id
        earlier = matched.get(key, ())
        matched[key] = earlier + tuple(name for name in found if name not in earlier)
    return matched


class _Names:
    """The names that the rows of a CSV may have for videos."""

    def __init__(self, entries: Sequence[Entry], labels_file: Path):
        self._file = labels_file
        self._exact: dict[str, str] = {}
        # Two files of a name are enough to say that it is not unique.
        self._stems: dict[str, list[Entry]] = {}
        for entry in entries:
            for below in dict.fromkeys(part.found.below for part in entry.parts if part.inside is None):
                below = normal_id(below)
                for name in (below, os.path.splitext(below)[0]):
                    self._exact.setdefault(name, entry.id)
                    stem = self._stems.setdefault(name.rpartition("/")[2], [])
                    if entry not in stem and len(stem) < 2:
                        stem.append(entry)
        self._folder = str(labels_file.parent)
        self._roots = list(dict.fromkeys(_root(part.found) for entry in entries for part in entry.parts))
        # An id takes precedence over the path of another video.
        self._exact.update({entry.id: entry.id for entry in entries})

    def find(self, row: str) -> str | None:
        """The id of the video that `row` names, or None."""
        for name in self._forms(row):
            if name in self._exact:
                return self._exact[name]
        if "/" in row or row not in self._stems:
            return None
        first, *others = self._stems[row]
        if others:
            raise InputError(
                f"{self._file} has a row for {row!r}, and two files have that name: {first.parts[0].where} and "
                f"{others[0].parts[0].where}; write their paths below the folder, such as {first.id!r}"
            )
        return first.id

    def _forms(self, row: str) -> Iterator[str]:
        yield row
        if "/" in row or "\\" in row:
            tidy = os.path.normpath(row.replace("\\", "/"))
            yield tidy
            for root in self._roots:
                # As the shell would find it, as it lies from the CSV, and by the name of the source's own folder.
                yield normal_id(os.path.relpath(tidy, root))
                yield normal_id(os.path.relpath(os.path.join(self._folder, tidy), root))
                name = normal_id(os.path.basename(os.path.abspath(root)))
                if tidy.startswith(f"{name}/"):
                    yield tidy[len(name) + 1 :]


def _root(found: Found) -> str:
    return in_utf8(found.path).removesuffix(found.below.replace("/", os.sep)) or os.curdir


def no_row_error(entries: Sequence[tuple[str, str]], total: int, labels: Labels, labels_file: Path) -> InputError:
    """The error for videos without a row, given as (id, place) of each, of `total`."""
    ways = f"{option('unlabelled', 'skip')} leaves such videos out, {option('unlabelled', 'keep')} gives them no class"
    if len(entries) == 1:
        (video_id, where), *_ = entries
        return InputError(
            f"{labels_file} has no row for the id {video_id!r} of {where}; add one, with no labels if the video shows "
            f"none of the classes, or choose: {ways}"
        )
    rows = f" (its first row is for {next(iter(labels))!r})" if len(entries) == total else ""
    return InputError(
        f"{labels_file} has no row for {len(entries):,} of the {total:,} videos{rows}: "
        f"{quoted_list(video_id for video_id, _ in entries)}; add rows, with no labels if a video shows none of the "
        f"classes, or choose: {ways}"
    )


def no_labels_error(places: Sequence[tuple[str, str]], total: int) -> InputError:
    """The error for rows of tables whose labels are null, given as (id, place) of each, of `total`."""
    ways = f"{option('unlabelled', 'skip')} leaves such videos out, {option('unlabelled', 'keep')} gives them no class"
    if len(places) == 1:
        return InputError(
            f"{places[0][1]} has no labels (null); give it an empty list if it shows none of the classes, or choose: "
            + ways
        )
    return InputError(
        f"{len(places):,} of the {total:,} videos have no labels (null), {places[0][1]} the first: "
        f"{quoted_list(video_id for video_id, _ in places)}; give them empty lists if they show none of the "
        f"classes, or choose: {ways}"
    )
