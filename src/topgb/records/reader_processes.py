"""The processes that read training's batches ahead: signals do not disturb them, and none outlives its parent."""

import atexit
import ctypes
import multiprocessing
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from multiprocessing.util import get_temp_dir
from types import TracebackType
from typing import Any, TypeVar

# PyTorch's exit handlers must be registered before ours, because the last one is called first.
from torch.utils.data import DataLoader

from topgb.signals import waiting

Item = TypeVar("Item")
# Terminals and clusters send these to whole groups of processes. A reader ignores them; it ends with its parent.
_TO_GROUPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# Linux: the kernel sends a signal to this process when the thread that forked it ends.
_PR_SET_PDEATHSIG = 1
# A socket's path may take 103 bytes on macOS, of which `/pymp-xxxxxxxx/listener-xxxxxxxx` takes 32.
_LONGEST_FOLDER = 71
# Iterators whose blocks have not ended, each with its processes.
_open: list[tuple[Any, set[BaseProcess]]] = []
os.register_at_fork(after_in_child=_open.clear)


@contextmanager
def reading_ahead(loader: "DataLoader[Item]") -> Iterator[Iterator[Item]]:
    """Yield an iterator over `loader`, whose processes end with the block.

    The loader's `worker_init_fn` must be `prepare_reader`. Signals wait until all processes have been started.
    """
    if loader.num_workers:
        _make_folder_of_sockets()
    items: Any = None
    readers, process = set[BaseProcess](), os.getpid()
    earlier = set(multiprocessing.active_children())
    try:
        with waiting(_TO_GROUPS):
            try:
                items = iter(loader)
            finally:
                readers = set(multiprocessing.active_children()) - earlier
                _open.append((items, readers))
        yield items
    finally:
        # A fork may come here too, with a copy of the generator.
        if os.getpid() == process:
            _end(items, readers)
            _open[:] = [opened for opened in _open if opened[1] is not readers]


def _make_folder_of_sockets() -> None:
    """Make the folder of the sockets over which readers hand tensors on: it ends with this process, not with theirs.

    Readers are killed at their end and would leave theirs. Where a socket's path would be too long a reader could hand
    nothing on, and its parent would wait for ever.
    """
    before = tempfile.tempdir
    if len(os.fsencode(tempfile.gettempdir())) > _LONGEST_FOLDER:
        tempfile.tempdir = "/tmp"
    try:
        get_temp_dir()
    finally:
        tempfile.tempdir = before


def prepare_reader(number: int) -> None:
    """Prepare a reader; it calls this first, as DataLoader's `worker_init_fn`."""
    for each in _TO_GROUPS:
        signal.signal(each, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _TO_GROUPS)
    sys.excepthook = _print_unless_disconnected
    _end_with_parent()


def _end_with_parent() -> None:
    """Have this process end when its parent ends, however that happens."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    # Elsewhere than on Linux, or where a fork server has forked this process, or where the parent has ended already.
    if os.getppid() != parent.pid or not _killed_with_parent() or os.getppid() != parent.pid:
        threading.Thread(target=_die_after, args=[parent.sentinel], daemon=True).start()


def _killed_with_parent() -> bool:
    """Ask the kernel to kill this process when its parent ends; whether it will."""
    if sys.platform != "linux":
        return False
    return ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL) == 0


def _die_after(sentinel: int) -> None:
    wait([sentinel])
    os.kill(os.getpid(), signal.SIGKILL)


def _print_unless_disconnected(
    kind: type[BaseException], error: BaseException, traceback: TracebackType | None
) -> None:
    # The thread of `multiprocessing` that hands tensors over prints an error for every connection that breaks.
    if not issubclass(kind, ConnectionError | EOFError):
        sys.__excepthook__(kind, error, traceback)


def _end(items: Any, readers: set[BaseProcess]) -> None:
    """End the readers now.

    PyTorch ends them when the iterator is finalised, but whoever keeps an error keeps its traceback and with it the
    iterator. Meanwhile the readers would hold all files and pipes that were open when they were forked, and at its end
    Python would wait for them for ever, because they ignore SIGTERM.
    """
    try:
        if items is not None and readers:
            # PyTorch has no public call for this.
            items._shutdown_workers()
    finally:
        for reader in readers:
            if reader.is_alive():
                reader.kill()
                reader.join()


@atexit.register
def _end_all() -> None:
    while _open:
        _end(*_open.pop())
