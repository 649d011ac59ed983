"""Blocks that signals do not disturb."""

import signal
import threading
from collections.abc import Collection, Iterator
from contextlib import contextmanager


@contextmanager
def waiting(numbers: Collection[signal.Signals]) -> Iterator[None]:
    """A block whose end the signals `numbers` wait for, in this process and in those that it forks.

    Then this process's handlers are called, in the main thread; off it, they do not wait, but disturb no block either.
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
