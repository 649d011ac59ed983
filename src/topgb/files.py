"""Files that are never half-written: write beside, fsync, rename."""

import fcntl
import gzip
import hashlib
import os
import re
import secrets
import shutil
import stat
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import BufferedReader
from pathlib import Path
from typing import BinaryIO, Literal, cast

from topgb.checksums import masked_crc
from topgb.errors import InputError, TopgbError, option

# A hidden folder of this name holds a set of files that is being put in place (see `file_sets.py`).
UNFINISHED = ".unfinished-set"
# An empty file of this name says that more files of a set are to come (see `growing_set`).
GROWING = ".unfinished"
# A file of this name is locked while a command writes into its folder (see `folder_lock.py`).
IN_USE = ".in-use"
# A file of these kinds took hours to make, or cannot be made again.
Kind = Literal["records", "a model", "tensors"]
# Other programs take this name for standard input or output.
STANDARD_STREAM = Path("-")
_MODEL = b'{"__metadata__":{"topgb":'


def cache_folder() -> Path:
    """The folder for what topgb has found out about this machine and may find out again."""
    given = os.environ.get("XDG_CACHE_HOME", "")
    # By the XDG specification a relative path counts as none. A user without a home has a folder that cannot be made.
    home = os.path.expanduser("~")
    default = Path(home if os.path.isabs(home) else os.devnull) / ".cache"
    return (Path(given) if os.path.isabs(given) else default) / "topgb"


def refuse_existing(path: Path, force: bool, kind: Kind | None = None) -> None:
    """Raise `InputError` if `path` exists and `force` is off, or if no file of this `kind` can be written there at all.

    Records, models and scores are overwritten only by their own kind: they may be what the command reads.
    """
    check_target(path)
    if path.exists() and not force:
        raise InputError(f"{path} exists already; choose another name, or overwrite it with {option('force', True)}")
    held = _kind_of(path)
    if held not in (None, kind):
        raise InputError(
            f"{path} holds {held}, which {option('force', True)} does not overwrite with something else; choose "
            "another name, or remove it first"
        )


def refuse_unfinished(folder: str | os.PathLike) -> None:
    """Raise `InputError` if `folder` holds a set of files of which only some are in place."""
    for name in (UNFINISHED, GROWING):
        if os.path.lexists(os.path.join(folder, name)):
            raise InputError(
                f"{os.fspath(folder) or '.'} holds a set of files of which only some are in place, as its {name} says: "
                "the command that writes them has not ended; if it was stopped, run it again, and it goes on"
            )


@contextmanager
def atomic_path(path: str | os.PathLike) -> Iterator[Path]:
    """Yield the path of an empty partial file beside `path`; when the block ends, sync it and rename it to `path`.

    A symbolic link is followed. If the block raises, `path` stays as it was, and the partial file is removed. A killed
    process leaves its partial file; the next process that writes `path` removes it. An `OSError` (full disk, read-only
    folder) becomes a `TopgbError` that names `path`; a path that cannot be a file (a directory, a device, below a file)
    is an `InputError`.
    """
    check_target(Path(path))
    target = Path(path).resolve()
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        remove_dead_partials(target)
        with locked_partial(target) as partial:
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
    with atomic_write(path) as file, gzipped_if_named(file, path.name) as stream:
        yield stream


@contextmanager
def gzipped_if_named(file: BinaryIO, name: str) -> Iterator[BinaryIO]:
    """`file`, or a stream that gzips into it if `name` ends in .gz. The same writes give the same bytes."""
    if not name.endswith(".gz"):
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
def locked_partial(target: Path, folder: bool = False) -> Iterator[Path]:
    """Yield a new file, or `folder`, beside `target`, locked until the block or the process ends.

    It is removed if the block raises. Raises `OSError`.
    """
    while True:
        partial = partial_name(target)
        descriptor = _make(partial, folder)
        try:
            # Between creating and locking, another process may have removed it as a leftover.
            if lock(descriptor) is not False and is_at(partial, descriptor):
                yield partial
                return
        except BaseException:
            _remove(partial)
            raise
        finally:
            os.close(descriptor)


@contextmanager
def waiting_for_lock(folder: Path) -> Iterator[bool]:
    """Wait until no other process has locked `folder`, and lock it; yields whether it is (still) there.

    On a file system without locks, go on without. Raises `OSError` if it cannot be opened.
    """
    try:
        descriptor = os.open(folder, _OPEN_FOLDER)
    except FileNotFoundError:
        yield False
        return
    try:
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield is_at(folder, descriptor)
    finally:
        os.close(descriptor)


def remove_dead_partials(target: Path) -> None:
    """Remove partial files and folders of `target` that no process has locked; without locks, leave them."""
    for partial in partials_of(target):
        with suppress(OSError):
            descriptor = os.open(partial, _OPEN_FOLDER if partial.is_dir() else _OPEN_FILE)
            try:
                if lock(descriptor):
                    _remove(partial)
            finally:
                os.close(descriptor)


def partial_name(target: Path) -> Path:
    """A new name for a partial file or folder beside `target`."""
    # Random, because process numbers can be the same in two containers that share a folder.
    return target.with_name(f".{target.name}.{secrets.token_hex(4)}.partial")


_OPEN_FILE = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_OPEN_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def _make(partial: Path, folder: bool) -> int:
    if not folder:
        return os.open(partial, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    os.mkdir(partial)
    return os.open(partial, _OPEN_FOLDER)


def _remove(partial: Path) -> None:
    with suppress(OSError):
        if partial.is_dir():
            shutil.rmtree(partial)
        else:
            partial.unlink()


def lock(descriptor: int) -> bool | None:
    """Lock the file: True if that worked, False if another process has locked it, None if there are no locks here."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def refuse_special(path: str | os.PathLike) -> None:
    """Raise `InputError` for a FIFO, a socket or a device: reading it would wait, or never end."""
    try:
        mode = os.stat(path).st_mode
    except OSError:
        # Opening it tells why.
        return
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        kind = "a FIFO" if stat.S_ISFIFO(mode) else "a socket" if stat.S_ISSOCK(mode) else "a device"
        raise InputError(f"{os.fspath(path)} is {kind}, not a file; save what it gives as a file, and name that")


def open_input(path: str | os.PathLike) -> BufferedReader:
    """Open a file for reading bytes. Raises `OSError` as `open`, and `InputError` as `refuse_special`."""
    refuse_special(path)
    return open(path, "rb")


def file_sha256(path: str | os.PathLike) -> str:
    """SHA-256 of a file in hexadecimal, by which a model file names its parents."""
    with open_input(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def refuse_undecodable(path: Path) -> None:
    """Raise `InputError` if the name `path` is not UTF-8, which JSON and sentences must hold."""
    try:
        os.fspath(path).encode()
    except UnicodeEncodeError:
        raise InputError(f"the name {path} is not UTF-8; choose another name for what is written") from None


def check_target(path: Path) -> None:
    """Raise `InputError` if `path` cannot be a file."""
    refuse_undecodable(path)
    if path == STANDARD_STREAM:
        raise InputError("topgb writes whole files, not to standard output; give the file a name in place of '-'")
    if path.exists() and not path.is_file():
        # Renaming onto a device such as /dev/null would replace it for the whole machine.
        raise InputError(f"{path} is not a file and cannot be replaced by one; choose another name")
    for parent in path.parents:
        if parent.exists():
            if not parent.is_dir():
                raise InputError(f"{path} cannot be written: {parent} is a file, not a directory")
            return


def _kind_of(path: Path) -> Kind | None:
    """The kind of the file `path` by its first bytes; None if it is another, or no file is there."""
    try:
        with open(path, "rb") as file:
            head = file.read(8 + len(_MODEL))
        if head.startswith(b"\x1f\x8b"):
            with gzip.open(path, mode="rb") as unpacked:
                head = unpacked.read(12)
    except (OSError, EOFError, zlib.error):
        return None
    if len(head) >= 12 and masked_crc(head[:8]) == int.from_bytes(head[8:12], "little"):
        return "records"
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= path.stat().st_size - 8:
        return "a model" if head[8:] == _MODEL else "tensors"
    return None
