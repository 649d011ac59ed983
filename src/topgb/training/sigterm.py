"""Stop on SIGTERM, which a cluster's manager sends minutes or seconds before it kills a process."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from topgb.errors import TopgbError


class StoppedError(TopgbError):
    """The work was asked to stop, and can go on later. Exit code 143, as for any process that SIGTERM ends."""

    exit_code = 128 + signal.SIGTERM


@contextmanager
def asked_to_stop() -> Iterator[Callable[[], bool]]:
    """While the block runs, SIGTERM does not end the process; the function given says whether SIGTERM has arrived.

    Python delivers signals only to the main thread; in any other thread the function always returns false.
    """
    came = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield came.is_set
        return
    before = signal.signal(signal.SIGTERM, lambda number, frame: came.set())
    try:
        yield came.is_set
    finally:
        signal.signal(signal.SIGTERM, before)
