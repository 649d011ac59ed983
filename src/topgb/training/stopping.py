"""Stop training when a signal asks for it, after a step and with a checkpoint.

SIGTERM comes from a cluster's manager, seconds or minutes before it kills a process; SIGHUP comes when a terminal or
its connection is lost; SIGINT is Ctrl-C.
"""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from topgb.errors import InterruptError, TopgbError, option
from topgb.progress import SILENT, Progress

_FROM_OUTSIDE = (signal.SIGTERM, signal.SIGHUP)


class StoppedError(TopgbError):
    """The work was asked to stop, and can go on later. Exit code as for any process that the signal ends: 143, 129."""

    def __init__(self, message: str, asked: signal.Signals):
        super().__init__(message)
        self.asked, self.exit_code = asked, 128 + asked


class Asked:
    """Whether this process was asked to stop: true once a signal came.

    heeded  whether training checks this after each step; until it does, a signal raises an error
    """

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        self.heeded = False

    def __bool__(self) -> bool:
        return self.signal is not None

    def error(self, where: str) -> TopgbError:
        """The error that says that training stopped `where`: after step 5 of 10."""
        again = f"the same command with {option('resume', True)} goes on"
        if self.signal is signal.SIGINT:
            return InterruptError(f"interrupted {where}; {again}")
        # No signal here: only another rank was asked.
        asked = self.signal or signal.SIGTERM
        return StoppedError(f"stopped {where}, as {asked.name} asked; {again}", asked)


@contextmanager
def not_resumed() -> Iterator[None]:
    """A block of which a training is one step, and which only begins anew: who stops it is told so."""
    try:
        yield
    except InterruptError:
        raise InterruptError(f"interrupted; {_begins_anew()}") from None
    except StoppedError as stopped:
        raise StoppedError(f"stopped, as {stopped.asked.name} asked; {_begins_anew()}", stopped.asked) from None


def _begins_anew() -> str:
    return f"the same command with {option('force', True)} begins anew"


@contextmanager
def asked_to_stop() -> Iterator[Asked]:
    """While the block runs, SIGTERM and SIGHUP do not end the process, but are noted; `nohup`'s ignored SIGHUP is not.

    While nothing checks for them yet, as when records are opened, they raise `StoppedError`, so that locks are
    released. Python lets only the main thread handle signals; in any other thread none is noted.
    """
    asked = Asked()
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return

    def note(number: int, frame: object) -> None:
        asked.signal = signal.Signals(number)
        if not asked.heeded:
            raise StoppedError(f"stopped before the first step, as {asked.signal.name} asked", asked.signal)

    before = {each: signal.getsignal(each) for each in _FROM_OUTSIDE if signal.getsignal(each) is not signal.SIG_IGN}
    for each in before:
        signal.signal(each, note)
    try:
        yield asked
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


@contextmanager
def interrupts_noted(asked: Asked, progress: Progress = SILENT) -> Iterator[None]:
    """While the block runs, the first Ctrl-C is noted and raises no `KeyboardInterrupt`; a second does.

    Nothing changes if Ctrl-C is ignored or has a handler of the caller's own, or in a thread other than the main one.
    Raises `InterruptError` at the end of a block that did not stop for it.
    """
    asked.heeded = True
    before = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not _raises_interrupts(before):
        yield
        return

    def note(number: int, frame: object) -> None:
        asked.signal = signal.SIGINT
        signal.signal(signal.SIGINT, before)
        # Python refuses to print where it was interrupted while it printed.
        with suppress(RuntimeError):
            progress.say("stopping after this step, with a checkpoint; another Ctrl-C ends at once, without")

    signal.signal(signal.SIGINT, note)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if asked.signal is signal.SIGINT:
        raise asked.error("after the last step")


def _raises_interrupts(handler: Callable | int | None) -> bool:
    """Whether `handler` makes Ctrl-C a `KeyboardInterrupt`, as Python's own and the command line's do."""
    owner = getattr(handler, "__self__", None)
    return handler is signal.default_int_handler or bool(getattr(owner, "raises_keyboard_interrupt", False))
