"""How the program ends: with a line and an exit code; at Ctrl-C too, at any moment from the first import on."""

import os
import signal
import sys
from types import FrameType
from typing import NoReturn

from topgb.progress import end_shown

INTERRUPTED = 130
_MOMENT = 0.01
_IMPORT = "<frozen importlib._bootstrap>"


class Interrupts:
    """Makes an interrupt a `KeyboardInterrupt` where that is heard, and knows afterwards that it came."""

    def __init__(self) -> None:
        self.came = False
        self._process = os.getpid()

    def install(self) -> None:
        """Listen, unless interrupts are ignored (`nohup`, a shell's background)."""
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, self._on_interrupt)
            signal.signal(signal.SIGALRM, self._raise)
            sys.unraisablehook = self._on_unraisable

    def stop_listening(self) -> None:
        """The work is done: what comes now ends the program without a word."""
        _alarm(0)
        if signal.getsignal(signal.SIGINT) == self._on_interrupt:
            signal.signal(signal.SIGINT, signal.SIG_DFL)

    def _on_interrupt(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process:
            # A terminal interrupts a loader's workers too. They end with the process that they work for, and have
            # nothing to say about connections to it that break.
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
            return
        self.came = True
        # Whoever presses a second time does not want to wait for anything.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        self._raise(number, frame)

    def _raise(self, number: int, frame: FrameType | None) -> None:
        if _importing(frame):
            # Modules turn it into errors of their own, and what is written in C++ may abort.
            _alarm(_MOMENT)
        else:
            raise KeyboardInterrupt

    def _on_unraisable(self, ignored: "sys.UnraisableHookArgs") -> None:
        if os.getpid() != self._process or not self.came:
            sys.__unraisablehook__(ignored)
        elif issubclass(ignored.exc_type, KeyboardInterrupt):
            # It came in a finaliser, out of which Python lets nothing.
            _alarm(_MOMENT)
        # Else the finaliser of something that the interrupt left half made, as PyTorch's loader: no defect of anyone's.


def _importing(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename == _IMPORT:
            return True
        frame = frame.f_back
    return False


def _alarm(seconds: float) -> None:
    signal.setitimer(signal.ITIMER_REAL, seconds)


def end(words: str, code: int) -> NoReturn:
    """Say `words` below whatever is on the terminal, and end the program."""
    end_shown()
    print(f"topgb: {words}", file=sys.stderr)
    sys.exit(code)


def end_interrupted() -> NoReturn:
    """Say that the program was interrupted, and end it."""
    _alarm(0)
    end("interrupted", INTERRUPTED)
