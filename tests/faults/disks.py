"""A small disk of its own: to fill, and to make read-only."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


class Disk:
    """A file system in memory, mounted at `folder`."""

    def __init__(self, folder: Path):
        self.folder = folder
        self._ballast = folder / "ballast"

    def leave(self, room: int) -> None:
        """Fill it up to `room` bytes."""
        self.empty()
        found = os.statvfs(self.folder)
        os_free = found.f_bavail * found.f_frsize
        with open(self._ballast, "wb") as file:
            os.posix_fallocate(file.fileno(), 0, os_free - room // found.f_frsize * found.f_frsize)

    def empty(self) -> None:
        """Give back what `leave` took."""
        self._ballast.unlink(missing_ok=True)

    def read_only(self) -> None:
        """Allow no writing any more, not even to root."""
        _run("mount", "-o", "remount,ro", str(self.folder))


@contextmanager
def disk_of(folder: Path, size: int) -> Iterator[Disk]:
    """A disk of `size` bytes at `folder`; skips the test where it cannot be mounted."""
    folder.mkdir()
    try:
        _run("mount", "-t", "tmpfs", "-o", f"size={size}", "topgb-test", str(folder))
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"a small disk cannot be mounted here ({error}); it takes root")
    try:
        yield Disk(folder)
    finally:
        _run("umount", "--lazy", str(folder))


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)
