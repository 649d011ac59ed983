"""Sets of files that are whole or absent: write them in a hidden folder, then put all of them in place.

That takes several renames. Before the first, the hidden folder gets the name `UNFINISHED`: from then on the set is sure
to be finished, by this process or by the next one that writes a set there. Until it is, `refuse_unfinished` keeps
readers away from the folder, which holds some old and some new files.
"""

import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from topgb.errors import InputError, TopgbError
from topgb.files import (
    GROWING,
    UNFINISHED,
    atomic_write,
    check_target,
    gzipped_if_named,
    locked_partial,
    partial_name,
    remove_dead_partials,
    sync,
    waiting_for_lock,
    write_failure,
)

# The partial folders' names derive from it.
_STAGING = "topgb-set"
_NEW, _GONE = "new", "gone"
_REPLACEMENT = ".replacement"


class NewFiles:
    """The files of a set that is being written; they get their places when the block of `write_set` ends."""

    def __init__(self, folder: Path, staged: Path):
        self._folder, self._staged = folder, staged

    @contextmanager
    def open(self, name: str) -> Iterator[BinaryIO]:
        """The file `name` of the set, opened for writing bytes, and gzipped if its name ends in .gz.

        Raises `InputError` if no file can have that name in the folder, `TopgbError` naming it if writing fails.
        """
        target = self._folder / name
        check_target(target)
        with _failing(target), open(self._staged / name, "wb") as file:
            with gzipped_if_named(file, name) as stream:
                yield stream
            file.flush()
            os.fsync(file.fileno())

    def write(self, name: str, content: bytes) -> None:
        """Write the file `name` of the set. Raises as `open`."""
        with self.open(name) as file:
            file.write(content)


@contextmanager
def write_set(folder: Path, gone: Iterable[Path] = ()) -> Iterator[NewFiles]:
    """Write a set of files into `folder`: when the block ends, they replace files of the same names.

    At the same time the files `gone` are removed. If the block raises, or the process is killed in it, `folder` stays
    as it was; a killed process leaves a hidden folder, which the next process that writes a set there removes. Old and
    new files need room side by side. Raises `InputError` if `folder` cannot be a folder, `TopgbError` if writing fails.
    """
    check_target(folder / _STAGING)
    with _failing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    finish_earlier(folder)
    try:
        with ExitStack() as stack:
            with _failing(folder):
                staging = stack.enter_context(locked_partial(folder / _STAGING, folder=True))
                (staging / _NEW).mkdir()
            yield NewFiles(folder, staging / _NEW)
            with _failing(folder):
                _begin(staging, folder, gone)
        finish_earlier(folder)
    except KeyboardInterrupt:
        finish_earlier(folder)
        raise


def finish_earlier(folder: Path) -> None:
    """Put in place the set that a stopped process had written whole, and remove one that it had not.

    Commands that write sets call it before they look at what is there. Raises `TopgbError` if that fails.
    """
    if not folder.is_dir():
        return
    try:
        _finish(folder)
    except OSError as error:
        reason = error.strerror or error
        raise TopgbError(
            f"cannot put all files in place in {folder}: {reason}; once that is mended, the same command finishes it"
        ) from error
    remove_dead_partials(folder / _STAGING)


@contextmanager
def growing_set(folder: Path) -> Iterator[None]:
    """Make readers refuse `folder` until the block ends without an error, for commands that complete a set bit by bit.

    Raises `TopgbError` if writing fails.
    """
    with atomic_write(folder / GROWING):
        pass
    yield
    complete_set(folder)


def complete_set(folder: Path) -> None:
    """Let readers use `folder` again: its set is complete. Raises `TopgbError` if that fails."""
    with _failing(folder / GROWING):
        (folder / GROWING).unlink(missing_ok=True)
        sync(folder)


def replacement_folder(folder: Path) -> Path:
    """A hidden folder in `folder` for files that will replace the others there; it outlives a killed process.

    Raises `TopgbError` if it cannot be made.
    """
    beside = folder / _REPLACEMENT / _NEW
    with _failing(folder):
        beside.mkdir(parents=True, exist_ok=True)
    return beside


def replace_files(folder: Path, gone: Iterable[Path]) -> None:
    """Put the files of `replacement_folder` in place, all or none, and remove `gone`. Raises `TopgbError`."""
    with _failing(folder):
        _begin(folder / _REPLACEMENT, folder, gone)
    finish_earlier(folder)


def _begin(staging: Path, folder: Path, gone: Iterable[Path]) -> None:
    """Give the staging folder the name `UNFINISHED`: from then on the new set counts, and `gone` will be removed."""
    names = sorted({path.name for path in gone} - set(os.listdir(staging / _NEW)))
    (staging / _GONE).write_bytes(b"\0".join(map(os.fsencode, names)))
    for path in (staging / _GONE, staging / _NEW, staging):
        sync(path)
    while True:
        try:
            os.rename(staging, folder / UNFINISHED)
        except OSError:
            # Another process may be putting its set in place: that one comes first.
            if not (folder / UNFINISHED).exists():
                raise
            _finish(folder)
        else:
            sync(folder)
            return


def _finish(folder: Path) -> None:
    """Put the files of an unfinished set in place, and remove those that it replaces, if there is such a set."""
    unfinished = folder / UNFINISHED
    with waiting_for_lock(unfinished) as there:
        if not there:
            return
        staged = unfinished / _NEW
        if staged.is_symlink():
            raise InputError(f"{staged} is a link, which no command of topgb makes; remove {unfinished}")
        for name in _gone(unfinished / _GONE):
            (folder / name).unlink(missing_ok=True)
        for name in sorted(os.listdir(staged)):
            # Without locks, two processes may finish the same set.
            with suppress(FileNotFoundError):
                os.replace(staged / name, folder / name)
        sync(folder)
        # Rename before deleting: a set that is in place must not look unfinished.
        done = partial_name(folder / _STAGING)
        os.rename(unfinished, done)
        shutil.rmtree(done, ignore_errors=True)


def _gone(path: Path) -> list[str]:
    """The names to remove: bare names only, because the folder may come from a stranger."""
    names = map(os.fsdecode, path.read_bytes().split(b"\0"))
    return [name for name in names if name not in ("", ".", "..") and name == os.path.basename(name)]


@contextmanager
def _failing(path: Path) -> Iterator[None]:
    """Turn an `OSError` in writing `path` into a `TopgbError` that names it."""
    try:
        yield
    except OSError as error:
        raise write_failure(path, error) from error
