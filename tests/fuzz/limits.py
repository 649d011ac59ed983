"""What an execution may take: no more than 64 MB of memory beyond its input's size.

The limit is on the address space, which every allocation needs, whoever makes it and whether it is touched or not:
Python, NumPy, torch, protobuf, zlib, a mapping. What goes beyond it fails, which no reader documents.
"""

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

MOST_BYTES = 64 << 20
_LINUX = sys.platform == "linux"
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3


def return_freed_memory() -> None:
    """Have malloc give large blocks back when they are freed: kept ones would not count against the next limit."""
    if _LINUX:
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_MMAP_THRESHOLD, 1 << 16)
        libc.mallopt(_M_TRIM_THRESHOLD, 1 << 17)


@contextmanager
def limited(input_bytes: int) -> Iterator[None]:
    """A block in which the process may take `input_bytes` and 64 MB more than it has; elsewhere than on Linux, all."""
    if not _LINUX:
        yield
        return
    import resource

    unlimited = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (_address_space() + input_bytes + MOST_BYTES, unlimited[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, unlimited)


class Peak:
    """The most memory that was resident in any `measured` block, beyond what was when it began."""

    def __init__(self) -> None:
        self.most = 0

    @contextmanager
    def measured(self, input_bytes: int) -> Iterator[None]:
        _reset_resident_peak()
        before = _resident_peak()
        yield
        self.most = max(self.most, _resident_peak() - before - input_bytes)


def _address_space() -> int:
    with open("/proc/self/statm", "rb", buffering=0) as file:
        return int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")


def _reset_resident_peak() -> None:
    with open("/proc/self/clear_refs", "wb", buffering=0) as file:
        file.write(b"5")


def _resident_peak() -> int:
    with open("/proc/self/status", "rb", buffering=0) as file:
        return int(file.read().split(b"VmHWM:", 1)[1].split(None, 1)[0]) << 10
