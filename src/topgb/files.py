"""Files that are never half-written: write beside, fsync, rename."""

import fcntl
import gzip
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, cast

from topgb.errors import InputError, TopgbError, option


def refuse_existing(path: Path, force: bool) -> None:
    """Raise `InputError` if `path` exists and `force` is off, or if no file can be written there at all."""
    if path.exists() and not force:
        raise InputError(f"{path} exists already; choose another name, or overwrite it with {option('force', True)}")
    _check_target(path)


@contextmanager
def atomic_path(path: str | os.PathLike) -> Iterator[Path]:
    """Yield the path of an empty partial file beside `path`; when the block ends, sync it and rename it to `path`.

    A symbolic link is followed. If the block raises, `path` stays as it was, and the partial file is removed. A killed
    process leaves its partial file; the next process that writes `path` removes it. An `OSError` (full disk, read-only
    folder) becomes a `TopgbError` that names `path`; a path that cannot be a file (a directory, a device, below a file)
    is an `InputError`.
    """
    _check_target(Path(path))
    target = Path(path).resolve()
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        for leftover in partials_of(target):
            _remove_if_dead(leftover)
        with _locked_partial(target) as partial:
            yield partial
            sync(partial)
            os.replace(partial, target)
        sync(target.parent)
    except OSError as error:
        raise write_failure(Path(path), error) from error


@contextmanager
def atomic_write(path: str | os.PathLike) -> Iterator[BinaryIO]:
    """`atomic_path`, with the partial file opened for writing bytes."""
    with atomic_path(path) as partial, open(partial, "wb") as file:
        yield file


@contextmanager
def atomic_write_named(path: Path) -> Iterator[BinaryIO]:
    """`atomic_write`, gzipped if `path` ends in .gz. The same writes give the same bytes."""
    with atomic_write(path) as file:
        if path.suffix != ".gz":
            yield file
            return
        # A gzip header without name and time, so that the bytes are always the same.
        with gzip.GzipFile("", "wb", fileobj=file, mtime=0) as packed:
            yield cast(BinaryIO, packed)


def partials_of(target: Path) -> list[Path]:
    """The partial files that `atomic_path` made for `target`, by living and by dead writers."""
    name = re.compile(rf"\.{re.escape(target.name)}\.[0-9a-f]+\.partial")
    if not target.parent.is_dir():
        return []
    with os.scandir(target.parent) as entries:
        return [Path(entry.path) for entry in entries if name.fullmatch(entry.name)]


def write_failure(path: Path, error: OSError) -> TopgbError:
    """The error for an `OSError` in writing `path`."""
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


def is_at(path: Path, descriptor: int) -> bool:
    """Whether `path` is (still) the name of the file open as `descriptor`."""
    try:
        return os.path.samestat(os.lstat(path), os.fstat(descriptor))
    except FileNotFoundError:
        return False


@contextmanager
def _locked_partial(target: Path) -> Iterator[Path]:
    """Yield a new file beside `target`, locked until the block or the process ends; removed if the block raises."""
    while True:
        # Random, because process numbers can be the same in two containers that share a folder.
        partial = target.with_name(f".{target.name}.{secrets.token_hex(4)}.partial")
        descriptor = os.open(partial, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        try:
            # Between creating and locking, another process may have removed it as a leftover.
            if _lock(descriptor) is not False and is_at(partial, descriptor):
                yield partial
                return
        except BaseException:
            with suppress(OSError):
                partial.unlink()
            raise
        finally:
            os.close(descriptor)


def _remove_if_dead(partial: Path) -> None:
    """Remove a partial file that no process has locked; on a file system without locks, leave it."""
    with suppress(OSError):
        descriptor = os.open(partial, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            if _lock(descriptor):
                partial.unlink()
        finally:
            os.close(descriptor)


def _lock(descriptor: int) -> bool | None:
    """Lock the file: True if that worked, False if another process has locked it, None if there are no locks here."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def _check_target(path: Path) -> None:
    if path.exists() and not path.is_file():
        # Renaming onto a device such as /dev/null would replace it for the whole machine.
        raise InputError(f"{path} is not a file and cannot be replaced by one; choose another name")
    for parent in path.parents:
        if parent.exists():
            if not parent.is_dir():
                raise InputError(f"{path} cannot be written: {parent} is a file, not a directory")
            return
