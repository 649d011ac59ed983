"""End the program with one line and an exit code, also at Ctrl-C, at any moment from the first import on."""

import os
import signal
import sys
from types import FrameType
from typing import NoReturn

from topgb.progress import end_shown
from topgb.terminal import tell

INTERRUPTED = 130
_RETRY_SECONDS = 0.01
_IMPORT_MACHINERY = "<frozen importlib._bootstrap>"


class Interrupts:
    """Turns an interrupt into a `KeyboardInterrupt` at a moment when one gets through, and remembers that it came."""

    # Training asks the object whose method handles Ctrl-C for this: then the first Ctrl-C may wait for a checkpoint.
    raises_keyboard_interrupt = True

    def __init__(self) -> None:
        self.came = False
        self._process = os.getpid()

    def install(self) -> None:
        """Handle interrupts, unless the process was started to ignore them (`nohup`, a shell's background)."""
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, self._on_interrupt)
            signal.signal(signal.SIGALRM, self._raise)
            sys.unraisablehook = self._on_unraisable

    def stop_listening(self) -> None:
        """Stop handling interrupts, because the work is done: another one ends the program silently."""
        _alarm(0)
        if signal.getsignal(signal.SIGINT) == self._on_interrupt:
            signal.signal(signal.SIGINT, signal.SIG_DFL)

    def _on_interrupt(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process:
            # A terminal interrupts a loader's workers too. They end with the process that they work for; silence what
            # they would print about broken connections to it.
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
            return
        self.came = True
        # A second Ctrl-C ends the program at once.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        self._raise(number, frame)

    def _raise(self, number: int, frame: FrameType | None) -> None:
        if _importing(frame):
            # During an import, modules turn the interrupt into other errors, and C++ code may abort: try again soon.
            _alarm(_RETRY_SECONDS)
        else:
            raise KeyboardInterrupt

    def _on_unraisable(self, ignored: "sys.UnraisableHookArgs") -> None:
        if os.getpid() != self._process or not self.came:
            sys.__unraisablehook__(ignored)
        elif issubclass(ignored.exc_type, KeyboardInterrupt):
            # Python ignores what a finaliser raises: try again soon.
            _alarm(_RETRY_SECONDS)
        # Otherwise an object left half-built by the interrupt (PyTorch's loader) is being finalised: ignore its error.


def _importing(frame: FrameType | None) -> bool:
    """Whether the code at `frame` runs inside an import."""
    while frame is not None:
        if frame.f_code.co_filename == _IMPORT_MACHINERY:
            return True
        frame = frame.f_back
    return False


def _alarm(seconds: float) -> None:
    """Raise the interrupt again in `seconds`; 0 cancels that."""
    signal.setitimer(signal.ITIMER_REAL, seconds)


def end(words: str, code: int) -> NoReturn:
    """Print `words` on standard error, below any progress bar, and end the program with exit code `code`."""
    end_shown()
    tell(f"topgb: {words}")
    sys.exit(code)


def end_interrupted() -> NoReturn:
    """Print that the program was interrupted, and end it."""
    _alarm(0)
    end("interrupted", INTERRUPTED)
