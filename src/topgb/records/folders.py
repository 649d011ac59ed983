"""A folder in place of a glob: its records, or the part of a packed set that a command wants.

Imported where a folder is named, as most records are named by globs.
"""

import os
from collections.abc import Sequence
from typing import Literal

from topgb.errors import InputError
from topgb.progress import Progress

# The endings of files of records in a folder.
ENDINGS = (".tfrecord", ".tfrecord.gz")
DESCRIPTION = "dataset.yaml"
Part = Literal["train", "validate", "all"]


def no_match_error(piece: str) -> InputError:
    """The error for a path, glob or URL that matches no file."""
    remedy = "check the path, and quote globs so that the shell leaves them alone"
    if "{" in piece or "}" in piece:
        remedy = "only the shell knows braces with alternatives; name several patterns with commas between them"
    return InputError(f"no file matches {piece!r}; {remedy}")


def records_in(folder: str) -> list[str]:
    """The paths of the files of records in `folder`, subfolders left out. Raises `InputError` if there are none."""
    try:
        names = sorted(os.listdir(folder))
    except OSError as error:
        raise InputError(f"cannot read the folder {folder}: {error.strerror}; check its permissions") from error
    found = [name for name in names if name.endswith(ENDINGS) and not name.startswith(".")]
    if not found:
        raise InputError(
            f"the folder {folder} holds no *.tfrecord or *.tfrecord.gz; name the files of records, as a glob in quotes "
            "if they are called otherwise"
        )
    return [os.path.join(folder, name) for name in found]


def has_parts(pattern: str | Sequence[str]) -> bool:
    """Whether `pattern` is a folder with a description and both parts, as packing with `validate` makes it."""
    if not isinstance(pattern, str):
        return False
    folder = os.path.expanduser(pattern)
    if not os.path.isdir(folder) or not os.path.isfile(os.path.join(folder, DESCRIPTION)):
        return False
    names = [os.path.basename(path) for path in records_in(folder)]
    return all(any(name.startswith(part) for name in names) for part in ("train", "validate"))


def part_of(pattern: str | Sequence[str], part: Part, purpose: str, progress: Progress) -> str | Sequence[str]:
    """The files of one part if `pattern` is a folder that `has_parts` (`progress` says so); else `pattern`."""
    if part == "all" or not has_parts(pattern):
        return pattern
    assert isinstance(pattern, str)
    chosen = [path for path in records_in(os.path.expanduser(pattern)) if os.path.basename(path).startswith(part)]
    files = f"{len(chosen):,} file{'' if len(chosen) == 1 else 's'}"
    progress.say(f"{pattern} holds a part to train on and one to validate on; {purpose} takes {part}* ({files})")
    return chosen
