"""Blocks of code that signals do not interrupt."""

import signal
import threading
from collections.abc import Collection, Iterator
from contextlib import contextmanager


@contextmanager
def waiting(numbers: Collection[signal.Signals]) -> Iterator[None]:
    """Delay the signals `numbers` until the block ends, in this process and in those that it forks.

    In the main thread the handlers of the signals that came are called at the end. In any other thread nothing is
    delayed: Python calls handlers in the main thread, so they cannot interrupt the block.
    """
    came: list[int] = []
    handlers = {}
    # Python calls handlers in its main thread, whichever thread the system gives a signal to: blocking it here is not
    # enough where there are others, such as a progress bar's.
    if threading.current_thread() is threading.main_thread():
        heard = [number for number in numbers if signal.getsignal(number) is not None]
        handlers = {number: signal.signal(number, lambda number, frame: came.append(number)) for number in heard}
    # Processes that are forked here inherit the blocking, and with it the waiting.
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        for number, handler in handlers.items():
            signal.signal(number, handler)
        for waited in came:
            signal.raise_signal(waited)
