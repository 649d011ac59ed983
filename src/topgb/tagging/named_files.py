"""The files that a user names to be tagged: each by itself, or all in a folder."""

import os
from collections.abc import Sequence

from topgb.video.sources import find_videos


def files_of(named: Sequence[str]) -> list[str]:
    """The files, in the order in which they are named; those of a folder and its subfolders are sorted by path.

    A missing file is no error here: it is reported when its turn comes. Raises `InputError` for a folder without
    videos, sounds and pictures.
    """
    found: list[str] = []
    for name in map(os.path.expanduser, named):
        found += [video.found.path for video in find_videos([name])[0]] if os.path.isdir(name) else [name]
    return found
