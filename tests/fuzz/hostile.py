"""Numbers that no file can mean, and what a reader must do with them: refuse, soon and without taking memory."""

import sys
import time
from collections.abc import Callable

import pytest

from fuzz.limits import limited
from topgb.errors import InputError

HUGE = [2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**60, 2**63 - 1, 2**63, 2**64 - 1]
SECONDS = 10
needs_limits = pytest.mark.skipif(sys.platform != "linux", reason="limits memory as Linux does")


def refused(read: Callable[[], object], size: int, words: str = ".") -> None:
    """`read` raises `InputError` with `words` within 64 MB beyond `size` bytes of input, and soon."""
    start = time.monotonic()
    with limited(size), pytest.raises(InputError, match=words):
        read()
    assert time.monotonic() - start < SECONDS
