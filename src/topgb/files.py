"""Files that are never half-written: write beside, fsync, rename."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from topgb.errors import InputError, TopgbError


def refuse_existing(path: Path, force: bool) -> None:
    """Raise `InputError` where `path` exists and `force` was not given."""
    if path.exists() and not force:
        raise InputError(f"{path} exists already; choose another name, or overwrite it with --force")


@contextmanager
def atomic_path(path: str | os.PathLike) -> Iterator[Path]:
    """Give the path of a partial file beside `path`; on leaving, what was written there is synced and renamed.

    If the block raises, `path` is as it was before and the partial file is gone. An `OSError` (full disk, read-only
    folder) becomes a `TopgbError` that names `path`.
    """
    target = Path(path)
    partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        yield partial
        _sync(partial)
        os.replace(partial, target)
        _sync(target.parent)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise write_failure(target, error) from error
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


@contextmanager
def atomic_write(path: str | os.PathLike) -> Iterator[BinaryIO]:
    """Like `atomic_path`, with the partial file opened for writing bytes."""
    with atomic_path(path) as partial, open(partial, "wb") as file:
        yield file


def write_failure(path: Path, error: OSError) -> TopgbError:
    """The sentence for an `OSError` met while writing `path`."""
    return TopgbError(f"cannot write {path}: {error.strerror or error}; what was there before is unchanged")


def rename_folder(partial: Path, target: Path) -> None:
    """Sync the folder `partial` and give it the name `target`, which must not exist."""
    _sync(partial)
    os.rename(partial, target)
    _sync(target.parent)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
