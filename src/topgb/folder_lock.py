"""One writer at a time in a folder, by a lock that the kernel releases when its process ends, however that happens."""

import os
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from topgb.errors import InputError, printable
from topgb.files import IN_USE, is_at, lock, refuse_undecodable
from topgb.signals import waiting


@dataclass(eq=False)
class _Lock:
    """A folder's lock that this process holds."""

    descriptor: int


_held: set[_Lock] = set()


@contextmanager
def writing_alone(folder: Path) -> Iterator[None]:
    """Refuse other processes and threads that come to such a block for `folder` until this one ends.

    Raises `InputError` if one is in such a block. A missing `folder` is made, and removed where it stays empty. Where
    it cannot be written to, or has no locks, the block runs without one; what is wrong shows when it writes.
    """
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    held = None
    try:
        # Ctrl-C in the middle of taking the lock, or of giving it up, would leave its file.
        with waiting([signal.SIGINT]):
            held = _take(folder)
        yield
    finally:
        try:
            with waiting([signal.SIGINT]):
                _release(folder, held, missing)
        except KeyboardInterrupt:
            # It may have come before that block waited.
            with waiting([signal.SIGINT]):
                _release(folder, held, missing)
            raise


def _release(folder: Path, held: _Lock | None, missing: list[Path]) -> None:
    # A fork that comes here has given the lock up.
    if held in _held:
        # Unlink before unlocking: who waits for the lock sees that the file has gone, and makes a new one.
        with suppress(OSError):
            (folder / IN_USE).unlink()
        _held.discard(held)
        os.close(held.descriptor)
        with suppress(OSError):
            for path in missing:
                path.rmdir()


def _take(folder: Path) -> _Lock | None:
    """The lock of `folder`, or None if there can be none."""
    refuse_undecodable(folder)
    while True:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(folder / IN_USE, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
        except OSError:
            return None
        locked = lock(descriptor)
        if locked and is_at(folder / IN_USE, descriptor):
            # For people to read; a full disk does not matter here.
            with suppress(OSError):
                os.truncate(descriptor, 0)
                os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()}\n".encode())
            held = _Lock(descriptor)
            _held.add(held)
            return held
        owner = os.read(descriptor, 200).decode(errors="replace").strip()
        os.close(descriptor)
        if locked is None:
            with suppress(OSError):
                (folder / IN_USE).unlink()
            return None
        if locked is False:
            raise InputError(
                f"{folder} is being written to by another command ({printable(owner) or 'just started'}); wait for its "
                f"end, or choose another folder"
            )


def _give_up_held() -> None:
    # The lock belongs to the open file, and lasts until the last process that has it open has ended.
    while _held:
        os.close(_held.pop().descriptor)


os.register_at_fork(after_in_child=_give_up_held)
