"""Ctrl-C: one line and exit code 130, at any moment from the first import on."""

import os
import signal
import sys
import threading
from contextlib import suppress
from types import FrameType
from typing import NoReturn

from topgb.cli.endings import end

INTERRUPTED = 130
_MOMENT = 0.01


class Interrupts:
    """Notes an interrupt before it becomes a `KeyboardInterrupt`, which imports may turn into other errors."""

    def __init__(self) -> None:
        self.came = False
        self._process = os.getpid()

    def install(self) -> None:
        """Listen, unless interrupts are ignored (`nohup`, a shell's background)."""
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, self._on_interrupt)
            sys.unraisablehook = self._on_unraisable

    def stop_listening(self) -> None:
        """The work is done: what comes now ends the program without a word."""
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
        raise KeyboardInterrupt

    def _on_unraisable(self, ignored: "sys.UnraisableHookArgs") -> None:
        if os.getpid() != self._process or not self.came:
            sys.__unraisablehook__(ignored)
            return
        if not issubclass(ignored.exc_type, KeyboardInterrupt):
            # The finaliser of something that the interrupt left half made, as PyTorch's loader; no defect of anyone's.
            return
        # It came in a finaliser, out of which Python lets nothing: so again, a moment later.
        signal.signal(signal.SIGINT, self._on_interrupt)
        again = threading.Timer(_MOMENT, os.kill, (self._process, signal.SIGINT))
        again.daemon = True
        # At the end of the program there are no threads any more, and nothing left to interrupt.
        with suppress(RuntimeError):
            again.start()


def end_interrupted() -> NoReturn:
    """Say that the program was interrupted, and end it."""
    end("interrupted", INTERRUPTED)
