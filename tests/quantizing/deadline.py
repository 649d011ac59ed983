"""A time limit for a test, so that a search that does not end fails instead of being waited for."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def deadline(seconds: int) -> Iterator[None]:
    """Raise `TimeoutError` in the block once it has taken `seconds`."""

    def stop(*_):
        raise TimeoutError(f"not done after {seconds} seconds")

    earlier = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, earlier)
