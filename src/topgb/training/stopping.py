"""Stop training when a signal asks for it, after a step and with a checkpoint.

SIGTERM comes from a cluster's manager, minutes or seconds before it kills a process; SIGINT is Ctrl-C.
"""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from topgb.errors import InterruptError, TopgbError, option


class StoppedError(TopgbError):
    """The work was asked to stop, and can go on later. Exit code 143, as for any process that SIGTERM ends."""

    exit_code = 128 + signal.SIGTERM


class Asked:
    """Whether this process was asked to stop: true once a signal came."""

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None

    def __bool__(self) -> bool:
        return self.signal is not None

    def error(self, where: str) -> TopgbError:
        """The error that says that training stopped `where`: after step 5 of 10."""
        if self.signal is signal.SIGINT:
            return InterruptError(f"interrupted {where}; the same call with {option('resume', True)} goes on")
        return StoppedError(
            f"stopped {where}, as SIGTERM asked; the same command with {option('resume', True)} goes on"
        )


@contextmanager
def asked_to_stop() -> Iterator[Asked]:
    """While the block runs, SIGTERM does not end the process, but is noted.

    Python lets only the main thread handle signals; in any other thread none is noted.
    """
    asked = Asked()
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return

    def note(number: int, frame: object) -> None:
        asked.signal = signal.SIGTERM

    before = signal.signal(signal.SIGTERM, note)
    try:
        yield asked
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def interrupts_noted(asked: Asked) -> Iterator[None]:
    """While the block runs, the first Ctrl-C is noted and raises no `KeyboardInterrupt`; a second does.

    Where Ctrl-C has another handler (the command line's), and in other threads than the main one, nothing changes.
    Raises `InterruptError` at the end of a block that paid no heed.
    """
    standard = signal.default_int_handler
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGINT) is not standard:
        yield
        return

    def note(number: int, frame: object) -> None:
        asked.signal = signal.SIGINT
        signal.signal(signal.SIGINT, standard)

    signal.signal(signal.SIGINT, note)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, standard)
    if asked.signal is signal.SIGINT:
        raise asked.error("after the last step")
