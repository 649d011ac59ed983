"""Files that are never half-written: write beside, fsync, rename."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from topgb.errors import InputError, TopgbError


def refuse_existing(path: Path, force: bool) -> None:
    """Raise `InputError` where `path` exists and `force` was not given, or is no place for a file even so."""
    if path.exists() and not force:
        raise InputError(f"{path} exists already; choose another name, or overwrite it with --force")
    _check_target(path)


@contextmanager
def atomic_path(path: str | os.PathLike) -> Iterator[Path]:
    """Give the path of a partial file beside `path`; on leaving, what was written there is synced and renamed.

    A symbolic link is followed. If the block raises, `path` is as it was before and the partial file is gone. An
    `OSError` (full disk, read-only folder) becomes a `TopgbError` that names `path`; a path that cannot be a file (a
    directory, a device, below a file) is an `InputError`.
    """
    _check_target(Path(path))
    target = Path(path).resolve()
    partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        yield partial
        sync(partial)
        os.replace(partial, target)
        sync(target.parent)
    except OSError as error:
        _discard(partial)
        raise write_failure(Path(path), error) from error
    except BaseException:
        _discard(partial)
        raise


@contextmanager
def atomic_write(path: str | os.PathLike) -> Iterator[BinaryIO]:
    """Like `atomic_path`, with the partial file opened for writing bytes."""
    with atomic_path(path) as partial, open(partial, "wb") as file:
        yield file


def write_failure(path: Path, error: OSError) -> TopgbError:
    """The sentence for an `OSError` met while writing `path`."""
    kept = "; what was there before is unchanged" if path.exists() else ""
    return TopgbError(f"cannot write {path}: {error.strerror or error}{kept}")


def rename_folder(partial: Path, target: Path) -> None:
    """Sync the folder `partial` and give it the name `target`, which must not exist."""
    sync(partial)
    os.rename(partial, target)
    sync(target.parent)


def sync(path: Path) -> None:
    """Make what was written to a file, or renamed inside a folder, survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _check_target(path: Path) -> None:
    if path.exists() and not path.is_file():
        # Renaming onto a device such as /dev/null would replace it for the whole machine.
        raise InputError(f"{path} is not a file and cannot be replaced by one; choose another name")
    for parent in path.parents:
        if parent.exists():
            if not parent.is_dir():
                raise InputError(f"{path} cannot be written: {parent} is a file, not a directory")
            return


def _discard(partial: Path) -> None:
    with suppress(OSError):
        partial.unlink()
