"""Fetch one file: resume it where its connection broke, and name it only when its bytes are right."""

import fcntl
import hashlib
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from topgb.files import is_at, sync, write_failure
from topgb.youtube8m.http import FetchError, NoRangeError, Patience, chunks_of, first_byte, open_url

# How often a file is fetched that arrives complete, but with wrong bytes.
MOST_WRONG = 3

_READ_BYTES = 1 << 20


class StoppedError(Exception):
    """The work was called off; the bytes fetched so far stay for the next time."""


def fetch_file(
    url: str,
    target: Path,
    md5: str,
    replace: bool,
    patience: Patience,
    stop: threading.Event,
    on_bytes: Callable[[int], None],
) -> None:
    """Fetch `url` into `.NAME.partial`, which a later call resumes, and rename it to `target` when its MD5 is right.

    `on_bytes` is called with the number of bytes that have just come. With `replace`, a `target` with other bytes is
    replaced. Raises `FetchError`, `StoppedError` soon after `stop` is set, and `TopgbError` if nothing can be written.
    """
    try:
        with _lock_partial(partial_of(target)) as file:
            if target.exists():
                # Another process may have fetched it in the meantime.
                if file_md5(target, stop) == md5:
                    partial_of(target).unlink()
                    return
                if not replace:
                    raise FetchError("a file of this name with other bytes has come into the folder", again=False)
            _fetch_until_right(file, url, md5, patience, stop, on_bytes)
            file.flush()
            os.fsync(file.fileno())
            os.replace(partial_of(target), target)
            sync(target.parent)
    except OSError as error:
        raise write_failure(target, error) from error


def partial_of(target: Path) -> Path:
    """The file in which the bytes of `target` gather until all have come."""
    return target.with_name(f".{target.name}.partial")


def file_md5(path: Path, stop: threading.Event) -> str:
    """The MD5 sum of a file. Raises `OSError`, and `StoppedError` soon after `stop` is set."""
    with open(path, "rb") as file:
        return _md5(file, stop)


@contextmanager
def _lock_partial(partial: Path) -> Iterator[BinaryIO]:
    """Open and lock the partial file against other processes; remove it afterwards if it is empty."""
    while True:
        descriptor = os.open(partial, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
        with os.fdopen(descriptor, "r+b") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise FetchError("another process is fetching it", again=False) from None
            except OSError:
                # Some network file systems have no locks; there the user must run one download at a time.
                pass
            if not is_at(partial, descriptor):
                # Another process finished or removed the file after we opened it and before we locked it.
                continue
            try:
                yield file
            finally:
                if is_at(partial, descriptor) and file.seek(0, os.SEEK_END) == 0:
                    partial.unlink()
            return


def _fetch_until_right(
    file: BinaryIO,
    url: str,
    md5: str,
    patience: Patience,
    stop: threading.Event,
    on_bytes: Callable[[int], None],
) -> None:
    """Append to `file` until its MD5 is right."""
    most = failures = wrong = 0
    while _md5(file, stop) != md5:
        try:
            _fetch_rest(file, url, patience.timeout, stop, on_bytes)
        except FetchError as error:
            size = file.seek(0, os.SEEK_END)
            # A server that breaks off often is fine, as long as every try gets further than any before.
            failures = 1 if size > most else failures + 1
            most = max(most, size)
            if not error.again or failures >= patience.tries:
                raise
            if stop.wait(patience.wait * 2 ** (failures - 1)):
                raise StoppedError from None
        else:
            if _md5(file, stop) == md5:
                return
            file.truncate(0)
            most, wrong = 0, wrong + 1
            if wrong == MOST_WRONG:
                raise FetchError(f"its bytes do not have the plan's MD5 sum, {MOST_WRONG} times in a row", again=False)


def _fetch_rest(
    file: BinaryIO, url: str, timeout: float, stop: threading.Event, on_bytes: Callable[[int], None]
) -> None:
    """Fetch the bytes that `file` is missing, or all bytes if the server knows no ranges."""
    size = file.seek(0, os.SEEK_END)
    try:
        response = open_url(url, size, timeout)
    except NoRangeError as error:
        file.truncate(0)
        raise FetchError(str(error), again=True) from None
    with response:
        start = first_byte(response)
        if start != size:
            file.truncate(0)
            file.seek(0)
        if start not in (0, size):
            raise FetchError(f"the server sent another range than asked for (from {start} instead of {size})", True)
        for chunk in chunks_of(response):
            if stop.is_set():
                raise StoppedError
            file.write(chunk)
            on_bytes(len(chunk))


def _md5(file: BinaryIO, stop: threading.Event) -> str:
    file.seek(0)
    digest = hashlib.md5(usedforsecurity=False)
    while chunk := file.read(_READ_BYTES):
        if stop.is_set():
            raise StoppedError
        digest.update(chunk)
    return digest.hexdigest()
